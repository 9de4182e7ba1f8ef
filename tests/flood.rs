//! A flood of SYNs that nobody completes, from addresses that nobody has.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use crate::packets::{Flags, Ip, Talk, ip, tcp_segment};
use lb_userspace::lab::{Host, VIP_V4};

/// Where it says to come from.
const PREFIX: &str = "192.0.2.0/24";

/// Answers to it go nowhere.
pub fn swallow(router: &Host) {
    router
        .run(&["ip", "route", "add", "blackhole", PREFIX])
        .expect("a route");
}

/// Sends SYNs to the VIP, so many a second, for so long; how many it sent.
pub fn flood(client: &Host, rate: u32, lasts: Duration) -> u32 {
    flood_while(client, rate, |since| since < lasts)
}

/// The same for as long as `on` says, which is told for how long it has lasted.
pub fn flood_while(client: &Host, rate: u32, on: impl Fn(Duration) -> bool + Send) -> u32 {
    client
        .in_ns(|| send(rate, on))
        .expect("the client's namespace")
}

fn send(rate: u32, on: impl Fn(Duration) -> bool) -> u32 {
    // SAFETY: takes three numbers.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_RAW,
        )
    };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else has it.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let began = Instant::now();
    let mut sent = 0;
    while on(began.elapsed()) {
        let due = began.elapsed().as_secs_f64() * f64::from(rate);
        while f64::from(sent) < due {
            // A full queue loses some: it is a flood.
            let _ = socket.send_to(&syn(sent), (VIP_V4, 0));
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

fn syn(number: u32) -> Vec<u8> {
    let scattered = number.wrapping_mul(2_654_435_761);
    let [a, b, c, _] = scattered.to_be_bytes();
    let from = IpAddr::from(Ipv4Addr::new(192, 0, 2, a));
    let talk = Talk {
        from: (from, u16::from_be_bytes([b, c])).into(),
        to: (VIP_V4, 80).into(),
    };
    ip(
        &Ip::default(),
        from,
        VIP_V4.into(),
        6,
        &tcp_segment(talk, Flags::Syn, &[]),
    )
}
