//! The backend's decap program, under real traffic: a stand-in for the balancer encapsulates in
//! user space, as simply as can be, so that only the program is judged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::services;
use lb_userspace::decap::{self, DecapError, Mode, Options};
use lb_userspace::lab::{
    BALANCER_V4, Capture, Host, HttpOptions, Instance, Lab, Outcome, VIP_V4, VIP_V6, binary, until,
};

const SOON: Duration = Duration::from_secs(5);

fn raw_socket(domain: i32, kind: i32, protocol: i32) -> std::fs::File {
    // SAFETY: a plain system call; the descriptor it returns is ours alone.
    let fd = unsafe { libc::socket(domain, kind, protocol) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

/// Sends what arrives in the balancer for `vip` on to `backend`, in an outer header that the
/// kernel makes.
struct Tunnel {
    stop: Arc<AtomicBool>,
    tos: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    fn start(balancer: &Host, vip: IpAddr, backend: IpAddr) -> Self {
        let (balancer, stop, tos) = (balancer.clone(), Arc::default(), Arc::default());
        let (stopped, marked): (Arc<AtomicBool>, Arc<AtomicU8>) =
            (Arc::clone(&stop), Arc::clone(&tos));
        let (ready, wait_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            balancer.enter().unwrap();
            let (ether_type, inner) = match vip {
                IpAddr::V4(_) => (libc::ETH_P_IP, libc::IPPROTO_IPIP),
                IpAddr::V6(_) => (libc::ETH_P_IPV6, libc::IPPROTO_IPV6),
            };
            let protocol = i32::from(u16::try_from(ether_type).unwrap().to_be());
            let mut input = raw_socket(libc::AF_PACKET, libc::SOCK_DGRAM, protocol);
            receive_at_most(&input, Duration::from_millis(20));
            let domain = if backend.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            // std knows no raw sockets, but what it does with a UDP socket works with one.
            let output = UdpSocket::from(OwnedFd::from(raw_socket(domain, libc::SOCK_RAW, inner)));
            ready.send(()).unwrap();
            let mut packet = [0; 2000];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(length) = input.read(&mut packet) else {
                    continue;
                };
                let packet = &packet[..length];
                if destination(packet) == Some(vip) {
                    set_tos(&output, backend, marked.load(Ordering::Relaxed));
                    output.send_to(packet, SocketAddr::new(backend, 0)).unwrap();
                }
            }
        });
        wait_ready.recv().unwrap();
        Self {
            stop,
            tos,
            thread: Some(thread),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into()),
        _ => Some(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into()),
    }
}

fn set_option<T>(socket: &impl std::os::fd::AsRawFd, level: i32, name: i32, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    // SAFETY: the value lives over the call, and its length is its own.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn receive_at_most(socket: &std::fs::File, limit: Duration) {
    let limit = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::from(limit.subsec_micros()),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &limit);
}

fn set_tos(socket: &UdpSocket, backend: IpAddr, tos: u8) {
    let (level, name) = match backend {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    };
    set_option(socket, level, name, &i32::from(tos));
}

fn lab() -> Lab {
    Lab::builder()
        .backends("web", 1)
        .without_decap()
        .build()
        .unwrap()
}

fn attach(lab: &Lab, options: &Options) -> Result<decap::Attached, DecapError> {
    let web = lab.host("web-1").unwrap();
    web.in_ns(|| decap::run("eth0", options, &lab.bpffs()))
        .unwrap()
}

fn count(lab: &Lab, name: &str) -> u64 {
    let counters = decap::counters("eth0", &lab.bpffs()).unwrap();
    counters
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap()
        .1
}

fn reaches(lab: &Lab, vip: IpAddr, path: &str, bytes: usize) {
    let request = lab.client().http(SocketAddr::new(vip, 80), path).unwrap();
    let expected = Outcome::Ok {
        backend: "web-1".to_owned(),
        service: "web".to_owned(),
        bytes,
    };
    assert_eq!(request.outcome, expected, "{vip}{path}");
}

fn fails(lab: &Lab, vip: IpAddr) {
    let request = lab.client().http(SocketAddr::new(vip, 80), "/").unwrap();
    assert!(matches!(request.outcome, Outcome::Failed(_)), "{request:?}");
}

#[test]
fn http_works_through_all_three_kinds_of_tunnel() {
    for mode in [Mode::Native, Mode::Generic] {
        let lab = lab();
        let attached = attach(
            &lab,
            &Options {
                mode,
                ..Options::default()
            },
        )
        .unwrap();
        assert_eq!(attached.mode, Some(mode));
        let web = lab.host("web-1").unwrap();
        let mut seen = 0;
        for (vip, backend) in [
            (IpAddr::from(VIP_V4), IpAddr::from(web.v4())),
            (VIP_V6.into(), web.v6().into()),
            (VIP_V4.into(), web.v6().into()),
        ] {
            let _tunnel = Tunnel::start(lab.balancer(), vip, backend);
            reaches(&lab, vip, "/", 6);
            reaches(&lab, vip, "/1m", 1 << 20);
            let now = count(&lab, "decapped");
            assert!(now > seen, "{vip} by {backend}: {now}");
            seen = now;
        }
        for name in ["refused", "fragment", "malformed", "congestion"] {
            assert_eq!(count(&lab, name), 0, "{name}");
        }
    }
}

#[test]
fn full_size_packets_fit_a_wider_segment() {
    let lab = lab();
    attach(&lab, &Options::default()).unwrap();
    let web = lab.host("web-1").unwrap();
    let _tunnel = Tunnel::start(lab.balancer(), VIP_V4.into(), web.v4().into());
    let vip = VIP_V4.to_string();
    // 1472 bytes of data, 8 of ICMP, 20 of IP.
    let ping = [
        "ping", "-c", "3", "-i", "0.2", "-W", "2", "-M", "do", "-s", "1472", &vip,
    ];
    lab.client().run(&ping).unwrap();
}

#[test]
fn without_the_program_nothing_arrives() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let _tunnel = Tunnel::start(lab.balancer(), VIP_V4.into(), web.v4().into());
    fails(&lab, VIP_V4.into());
}

#[test]
fn it_outlives_its_loader_is_replaced_in_place_and_goes_when_told() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let _tunnel = Tunnel::start(lab.balancer(), VIP_V4.into(), web.v4().into());
    attach(&lab, &Options::default()).unwrap();
    reaches(&lab, VIP_V4.into(), "/", 6);
    let other = Options {
        destinations: vec![web.v6().into()],
        ..Options::default()
    };
    assert_eq!(attach(&lab, &other).unwrap().mode, None);
    fails(&lab, VIP_V4.into());
    attach(
        &lab,
        &Options {
            destinations: vec![web.v4().into()],
            ..Options::default()
        },
    )
    .unwrap();
    reaches(&lab, VIP_V4.into(), "/", 6);
    assert!(decap::detach("eth0", &lab.bpffs()).unwrap());
    until("the program is gone", SOON, || {
        let left = web.in_ns(|| decap::program_on("eth0")).unwrap().unwrap();
        left.is_none().then_some(())
    })
    .unwrap();
    assert!(!decap::detach("eth0", &lab.bpffs()).unwrap());
    fails(&lab, VIP_V4.into());
}

#[test]
fn a_strict_backend_takes_tunnels_from_its_balancers_only() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let _tunnel = Tunnel::start(lab.balancer(), VIP_V4.into(), web.v4().into());
    let from = |prefix: &str| Options {
        sources: vec!["fd00::/16".parse().unwrap(), prefix.parse().unwrap()],
        ..Options::default()
    };
    attach(&lab, &from("10.9.0.0/16")).unwrap();
    fails(&lab, VIP_V4.into());
    assert!(count(&lab, "refused") > 0);
    attach(&lab, &from(&format!("{BALANCER_V4}/31"))).unwrap();
    reaches(&lab, VIP_V4.into(), "/", 6);
    assert_eq!(count(&lab, "refused"), 0);
}

/// Another decapsulator counts all of its packets in one place, whatever became of them.
#[test]
fn defect_10_each_outcome_is_counted_as_what_it_is() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let _tunnel = Tunnel::start(lab.balancer(), VIP_V4.into(), web.v4().into());
    let counts = || ["decapped", "refused"].map(|name| count(&lab, name) > 0);
    let only_from = |prefix: &str| Options {
        sources: vec![prefix.parse().unwrap()],
        ..Options::default()
    };
    attach(&lab, &only_from("10.9.0.0/16")).unwrap();
    fails(&lab, VIP_V4.into());
    assert_eq!(counts(), [false, true]);
    attach(&lab, &Options::default()).unwrap();
    reaches(&lab, VIP_V4.into(), "/", 6);
    assert_eq!(counts(), [true, false]);
    assert!(count(&lab, "passed") > 0, "what is no tunnel: ARP, for one");
}

#[test]
fn a_foreign_program_is_named_and_left() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let web = lab.host("web-1").unwrap();
    let before = web.in_ns(|| decap::program_on("eth0")).unwrap().unwrap();
    let refused = attach(&lab, &Options::default()).unwrap_err();
    assert!(matches!(refused, DecapError::Foreign { .. }), "{refused}");
    assert!(refused.to_string().contains("\"decap\""), "{refused}");
    assert_eq!(
        web.in_ns(|| decap::program_on("eth0")).unwrap().unwrap(),
        before
    );
    let nowhere = web
        .in_ns(|| decap::run("eth9", &Options::default(), &lab.bpffs()))
        .unwrap();
    assert!(
        matches!(nowhere, Err(DecapError::NoInterface(_))),
        "{nowhere:?}"
    );
}

#[test]
fn congestion_marks_reach_the_inner_packet_or_drop_it() {
    const CE: u8 = 3;
    let lab = lab();
    attach(&lab, &Options::default()).unwrap();
    let web = lab.host("web-1").unwrap();
    for (vip, backend) in [
        (IpAddr::from(VIP_V4), IpAddr::from(web.v4())),
        (VIP_V6.into(), web.v6().into()),
    ] {
        let tunnel = Tunnel::start(lab.balancer(), vip, backend);
        let echo = if vip.is_ipv4() { "icmp" } else { "icmp6" };
        let answers = web
            .capture("eth0", &format!("{echo} and src host {vip}"))
            .unwrap();
        tunnel.tos.store(CE, Ordering::Relaxed);
        // -Q 2: the inner sender knows ECN, and its mark comes back in the answer.
        let address = vip.to_string();
        lab.client()
            .run(&["ping", "-c", "1", "-W", "2", "-Q", "2", &address])
            .unwrap();
        until("the answer is marked", SOON, || marked(&answers, CE)).unwrap();
        let lost = lab.client().run(&["ping", "-c", "1", "-W", "1", &address]);
        lost.unwrap_err();
    }
    assert_eq!(count(&lab, "congestion"), 2);
}

/// Whether the first captured packet carries the ECN bits.
fn marked(capture: &Capture, ecn: u8) -> Option<()> {
    let file = std::fs::read(capture.file()).ok()?;
    // After the file's header of 24 bytes, the packet's of 16, and Ethernet.
    let ip = file.get(24 + 16 + 14..)?;
    let found = match ip.first()? >> 4 {
        4 => ip.get(1)? & 3,
        _ => (ip.get(1)? >> 4) & 3,
    };
    (found == ecn).then_some(())
}

/// As the unit runs it at each start and reload: again and again, and nothing is lost.
#[test]
fn run_again_it_loses_nothing() {
    let lab = Lab::builder()
        .backends("web", 1)
        .without_decap()
        .build()
        .unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    let web = lab.host("web-1").unwrap().clone();
    let program = binary().unwrap();
    let decap = || {
        let root = lab.root().to_string_lossy().into_owned();
        let words = [
            "--root",
            &root,
            "decap",
            "eth0",
            "--source",
            "172.16.0.0/16",
        ];
        let mut command = Command::new(&program);
        web.run_command(command.args(words)).unwrap();
    };
    decap();
    instance.start_agent().unwrap();
    instance.commit(&services::shop(&[&web])).unwrap();
    let options = HttpOptions {
        rate: 300,
        ..HttpOptions::default()
    };
    let target = SocketAddr::new(VIP_V4.into(), 80);
    let requests = lab.client().http_loop(target, &options).unwrap();
    requests.wait(100, SOON).unwrap();
    for _ in 0..10 {
        decap();
    }
    requests.wait(100, SOON).unwrap();
    assert_eq!(requests.failed(), 0);
}

/// The units are what systemd takes, with the program in its place.
#[test]
fn the_units_are_sound() {
    let Ok(found) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("no systemd-analyze here: the units are not checked");
        return;
    };
    assert!(found.status.success());
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let to = tempfile::tempdir().unwrap();
    for (file, name) in [
        ("lbguard.service", "lbguard.service"),
        ("lbguard-decap@.service", "lbguard-decap@eth0.service"),
    ] {
        let text = std::fs::read_to_string(from.join(file)).unwrap();
        assert!(text.contains("/usr/local/bin/lbguard"), "{file}");
        let text = text.replace("/usr/local/bin/lbguard", "/bin/true");
        let unit = to.path().join(name);
        std::fs::write(&unit, text).unwrap();
        let verified = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&unit)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(
            verified.status.success() && !said.contains(name),
            "{file}: {said}"
        );
    }
}
