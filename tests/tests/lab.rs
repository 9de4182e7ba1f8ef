//! The laboratory itself: what the other end-to-end tests stand on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lb_userspace::lab::{
    ConnectionOptions, HttpOptions, Lab, Outcome, Role, VIP_V4, VIP_V6, sweep, until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(10);

/// What of the names in a directory begins with `id`.
fn left(directory: &str, id: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name == id || name.starts_with(&format!("{id}-")))
        .collect()
}

fn assert_nothing_left(id: &str) {
    assert_eq!(left("/run/netns", id), Vec::<String>::new());
    let temporary = std::env::temp_dir();
    assert_eq!(left(&temporary.to_string_lossy(), id), Vec::<String>::new());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(id), "{mounts}");
}

#[test]
fn the_client_reaches_every_backend_through_the_routers() {
    let lab = Lab::builder()
        .backends("web", 2)
        .far_backends("web", 1)
        .others(1)
        .build()
        .unwrap();
    assert_eq!(lab.backends().count(), 3);
    for backend in lab.backends() {
        for address in [IpAddr::from(backend.v4()), backend.v6().into()] {
            let target = SocketAddr::new(address, 80);
            let url = format!("http://{target}/");
            let answer = lab.client().text(&["curl", "-gsSm", "5", &url]).unwrap();
            assert_eq!(answer, format!("{}\n", backend.name()));
            let big = lab.client().http(target, "/1m").unwrap();
            let expected = Outcome::Ok {
                backend: backend.name().to_owned(),
                service: "web".to_owned(),
                bytes: 1 << 20,
            };
            assert_eq!(big.outcome, expected, "{target}");
        }
    }
}

#[test]
fn only_the_balancer_is_sent_what_is_for_a_vip() {
    let lab = Lab::builder().backends("web", 1).others(1).build().unwrap();
    let balancer = lab.balancer();
    for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
        let here = balancer
            .capture("lb0", &format!("tcp and dst host {vip}"))
            .unwrap();
        let web = lab.host("web-1").unwrap();
        let there = web
            .capture("eth0", &format!("tcp and dst host {vip}"))
            .unwrap();
        let target = SocketAddr::new(vip, 80);
        let request = lab.client().http(target, "/").unwrap();
        assert!(matches!(request.outcome, Outcome::Failed(_)), "{request:?}");
        let seen = until("the balancer sees the SYN", SOON, || {
            let lines = here.lines().unwrap_or_default();
            (!lines.is_empty()).then_some(lines)
        });
        seen.unwrap();
        assert_eq!(there.lines().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn two_labs_do_not_meet_and_leave_nothing() {
    let (one, two) = std::thread::scope(|scope| {
        let build = || Lab::builder().backends("web", 1).build().unwrap();
        let one = scope.spawn(build);
        let two = scope.spawn(build);
        (one.join().unwrap(), two.join().unwrap())
    });
    let target = SocketAddr::from((one.host("web-1").unwrap().v4(), 80));
    for lab in [&one, &two] {
        let request = lab.client().http(target, "/").unwrap();
        assert!(matches!(request.outcome, Outcome::Ok { .. }), "{request:?}");
    }
    let (first, second) = (one.id(), two.id());
    assert_ne!(first, second);
    drop(one);
    assert_nothing_left(&first);
    let request = two.client().http(target, "/").unwrap();
    assert!(matches!(request.outcome, Outcome::Ok { .. }), "{request:?}");
    drop(two);
    assert_nothing_left(&second);
}

#[test]
fn a_thousand_connections_stay_and_their_breaks_are_seen() {
    let lab = Lab::builder()
        .backends("web", 1)
        .without_web()
        .build()
        .unwrap();
    let web = lab.host("web-1").unwrap();
    let server = web.serve_lines(7000).unwrap();
    let options = ConnectionOptions {
        count: 1000,
        interval: Duration::from_millis(500),
        sources: vec![
            "198.51.100.2".parse().unwrap(),
            "198.51.100.3".parse().unwrap(),
        ],
        ..ConnectionOptions::default()
    };
    let target = SocketAddr::from((web.v4(), 7000));
    let connections = lab.client().connections(target, &options).unwrap();
    connections.wait_established(SOON).unwrap();
    connections.wait_answers(2000, SOON).unwrap();
    assert!(connections.breaks().is_empty());
    assert_eq!(connections.backends()["web-1"], 1000);
    let before = Instant::now();
    drop(server);
    let breaks = until("all breaks are seen", SOON, || {
        Some(connections.breaks()).filter(|breaks| breaks.len() == 1000)
    });
    for broken in breaks.unwrap() {
        assert!(broken.at >= before);
        assert_eq!(broken.backend.as_deref(), Some("web-1"));
    }
    assert_eq!(connections.established(), 0);
}

#[test]
fn a_request_loop_keeps_its_rate_and_sees_an_outage() {
    let mut lab = Lab::builder().backends("web", 1).build().unwrap();
    let web = lab.host("web-1").unwrap().clone();
    let target = SocketAddr::from((web.v4(), 80));
    let options = HttpOptions {
        rate: 100,
        ..HttpOptions::default()
    };
    let requests = lab.client().http_loop(target, &options).unwrap();
    let began = Instant::now();
    requests.wait(100, SOON).unwrap();
    let took = began.elapsed();
    assert!((0.9..2.0).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!(requests.failed(), 0);
    lab.stop_web("web-1");
    until("failures are seen", SOON, || {
        (requests.failed() >= 10).then_some(())
    })
    .unwrap();
    lab.start_web(&web).unwrap();
    let healed = until("it answers again", SOON, || {
        let last = requests.requests().pop()?;
        matches!(last.outcome, Outcome::Ok { .. }).then_some(())
    });
    healed.unwrap();
}

#[test]
fn datagrams_are_answered_with_the_name() {
    let lab = Lab::builder()
        .backends("dns", 1)
        .without_web()
        .build()
        .unwrap();
    let host = lab.host("dns-1").unwrap();
    let address = SocketAddr::from((host.v4(), 5300));
    let _server = host.serve_datagrams(address).unwrap();
    let answer = lab.client().in_ns(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.send_to(b"hello", address).unwrap();
        let mut data = [0; 100];
        let length = socket.recv(&mut data).unwrap();
        String::from_utf8_lossy(&data[..length]).into_owned()
    });
    assert_eq!(answer.unwrap(), "dns-1 hello");
}

/// Not a test: what the two tests below start, and end from outside.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn holder() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let _sleeper = lab.balancer().spawn(&["sleep", "1000"]).unwrap();
    println!("\nlab {}", lab.id());
    std::thread::sleep(Duration::from_mins(1));
}

fn start_holder() -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = lines.find_map(|line| Some(line.unwrap().strip_prefix("lab ")?.to_owned()));
    (child, id.unwrap())
}

fn end(child: &mut Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    child.wait().unwrap();
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let (mut child, id) = start_holder();
    sweep();
    assert_eq!(left("/run/netns", &id).len(), 4, "a living lab was swept");
    end(&mut child, Signal::SIGKILL);
    assert_eq!(left("/run/netns", &id).len(), 4);
    sweep();
    assert_nothing_left(&id);
    let directory = format!("{}/{id}", std::env::temp_dir().display());
    let sleeping = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        command.contains(&directory)
    });
    assert!(!sleeping, "nginx of the dead lab still runs");
}

#[test]
fn an_interrupt_removes_the_lab() {
    let (mut child, id) = start_holder();
    end(&mut child, Signal::SIGINT);
    assert_nothing_left(&id);
}

#[test]
fn the_balancer_finds_its_files() {
    let lab = Lab::builder().build().unwrap();
    let agent = lab.root().join("etc/lbguard/agent.toml");
    let text = std::fs::read_to_string(agent).unwrap();
    assert!(text.contains("interfaces = [\"lb0\"]"), "{text}");
    let found = lab
        .balancer()
        .text(&["stat", "-fc", "%T", &lab.bpffs().to_string_lossy()]);
    assert_eq!(found.unwrap().trim(), "bpf_fs");
    assert!(
        Path::new("/run/netns")
            .join(lab.balancer().namespace_name())
            .exists()
    );
    assert_eq!(lab.balancer().role(), Role::Balancer);
}
