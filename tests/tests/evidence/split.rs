//! Clients that always come from the same ports are drawn into the same arm again and again: what the
//! arms show is then no proof of anything, and that is said.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{Host, VIP_V4, until};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use crate::scene::{SOON, Scene};

/// Monitors, each of which asks 25 times a second, from one port.
const MONITORS: u8 = 4;
const PAUSE: Duration = Duration::from_millis(40);

struct Monitors {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
}

impl Monitors {
    fn start(client: &Host) -> Self {
        let monitors = Self {
            over: Arc::default(),
            answers: Arc::default(),
        };
        for number in 0..MONITORS {
            let (over, answers) = (Arc::clone(&monitors.over), Arc::clone(&monitors.answers));
            let client = client.clone();
            std::thread::spawn(move || {
                client.enter().unwrap();
                let from = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2 + number), 4_000);
                while !over.load(Ordering::Relaxed) {
                    if ask(from).is_ok() {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(PAUSE);
                }
            });
        }
        monitors
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// One request from this very port, which is free at once: the connection ends by a reset.
fn ask(from: SocketAddrV4) -> std::io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::Linger, &linger)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(from))?;
    connect(
        socket.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(VIP_V4, 80)),
    )?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    stream.read(&mut [0; 512]).map(drop)
}

#[test]
fn a_split_that_is_not_the_one_set_is_inconclusive() {
    let scene = Scene::new("step_within = \"4s\"\n");
    let monitors = Monitors::start(scene.lab.client());
    let flowing = || (monitors.answers.load(Ordering::Relaxed) > 50).then_some(());
    until("the monitors ask", SOON, flowing).unwrap();
    let hosts = scene.of("web");
    let next = services::shop(&hosts).replace("table_size = 4099", "table_size = 5003");
    let applied = scene.apply(&next, &["--confirm", "auto"]);
    assert!(applied.is_inconclusive(), "{}", applied.text());
    assert!(
        applied.text().contains("S15 split of shop-v4"),
        "{}",
        applied.text()
    );
    assert_eq!(scene.instance.active(), Some(1));
}
