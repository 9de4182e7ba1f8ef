//! Whether full-size packets reach the backends: an echo request as long as a client's packet, by the way
//! of clients' packets, beside a short one. A path that takes the short one alone lets handshakes and
//! small health checks (tcp, udp, dns) through, and then every transfer hangs.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use lb_common::checks;
use lb_common::checksum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::Check;
use super::traffic::some;
use crate::kernel::inspect::{Active, Backend};
use crate::net;

const ID: &str = "paths";
const TITLE: &str = "Full-size packets reach the backends";
/// Clients' packets are no longer than this.
const CLIENTS: u16 = 1500;
/// Bytes of the short one.
const SHORT: u16 = 100;
/// Backends that are asked, at most.
const ASKED: usize = 256;
/// Times that they are asked: a packet may be lost.
const ROUNDS: u16 = 3;
/// How long they have to answer, each time.
const PATIENCE: Duration = Duration::from_millis(500);

/// One backend, asked at a VIP.
struct Asked {
    backend: String,
    to: IpAddr,
    socket: Socket,
    /// Tells its answers from others'.
    id: u16,
    full: u16,
    /// Whether the short and the full one were answered.
    answered: [bool; 2],
}

pub(super) fn check(active: Option<&Active>) -> Check {
    if !net::checks::are_there() {
        return Check::skip(ID, TITLE, "no agent has made a way for checks");
    }
    let backends = active.map_or(&[][..], |active| &active.backends);
    let vips: Vec<IpAddr> = active.map_or_else(Vec::new, |active| {
        active.vips.iter().map(|(_, address)| *address).collect()
    });
    let asked: io::Result<Vec<Asked>> = backends
        .iter()
        .zip(1..)
        .filter_map(|(backend, id)| Some((backend, vip_of(backend, &vips)?, id)))
        .take(ASKED)
        .map(|(backend, to, id)| Asked::new(backend, to, id))
        .collect();
    match asked.and_then(ask) {
        Ok(asked) => judge(&asked),
        Err(error) => Check::skip(ID, TITLE, format!("cannot be asked: {error}")),
    }
}

/// An address that the backend answers for.
fn vip_of(backend: &Backend, vips: &[IpAddr]) -> Option<IpAddr> {
    let own = backend.tcp.first().map(SocketAddr::ip);
    // Without a TCP VIP of its pool, one of the same family does: the path is the same.
    own.or_else(|| {
        let same = |vip: &&IpAddr| vip.is_ipv4() == backend.address.is_ipv4();
        vips.iter().find(same).copied()
    })
}

impl Asked {
    fn new(backend: &Backend, to: IpAddr, id: u16) -> io::Result<Self> {
        let protocol = if to.is_ipv4() {
            Protocol::ICMPV4
        } else {
            Protocol::ICMPV6
        };
        let domain = Domain::for_address(SocketAddr::new(to, 0));
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.set_mark(checks::mark(backend.member))?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        let room = backend.next_hop_mtu.unwrap_or(CLIENTS);
        Ok(Self {
            backend: backend.name.clone(),
            to,
            socket,
            id,
            full: room.saturating_sub(backend.overhead).min(CLIENTS),
            answered: [false; 2],
        })
    }

    /// Sends both. What cannot be sent is not answered.
    fn send(&self, round: u16) {
        for (kind, length) in [(0, SHORT), (1, self.full)] {
            let sequence = round.saturating_mul(2).saturating_add(kind);
            let _ = self.socket.send(&self.request(sequence, length));
        }
    }

    /// An echo request that makes an IP packet of `length` bytes.
    fn request(&self, sequence: u16, length: u16) -> Vec<u8> {
        let (kind, header) = if self.to.is_ipv4() {
            (8, 20)
        } else {
            (128, 40)
        };
        let ([a, b], [c, d]) = (self.id.to_be_bytes(), sequence.to_be_bytes());
        let mut bytes = vec![kind, 0, 0, 0, a, b, c, d];
        bytes.resize(usize::from(length.saturating_sub(header)), 0);
        // The system fills in that of ICMPv6.
        if self.to.is_ipv4() {
            let sum = checksum::quad(kind, 0, 0, 0) + checksum::quad(a, b, c, d);
            let sum = checksum::fold(sum).to_ne_bytes();
            for (place, byte) in bytes.iter_mut().skip(2).zip(sum) {
                *place = byte;
            }
        }
        bytes
    }

    /// Takes what has come.
    fn take(&mut self) {
        let mut data = [0; 2_048];
        while let Ok(length) = (&self.socket).read(&mut data) {
            let packet = data.get(..length).unwrap_or_default();
            // IPv4 comes with its header.
            let header = if self.to.is_ipv4() { 20 } else { 0 };
            let reply = packet
                .get(header..)
                .and_then(|icmp| icmp.first_chunk::<8>());
            if let Some([0 | 129, 0, _, _, a, b, _, d]) = reply
                && u16::from_be_bytes([*a, *b]) == self.id
                && let Some(answered) = self.answered.get_mut(usize::from(*d & 1))
            {
                *answered = true;
            }
        }
    }
}

fn ask(mut all: Vec<Asked>) -> io::Result<Vec<Asked>> {
    for round in 0..ROUNDS {
        let waits = |asked: &Asked| asked.answered != [true; 2];
        for asked in all.iter().filter(|asked| waits(asked)) {
            asked.send(round);
        }
        let begun = Instant::now();
        while all.iter().any(waits) && begun.elapsed() < PATIENCE {
            {
                let mut fds: Vec<PollFd<'_>> = all
                    .iter()
                    .map(|asked| PollFd::new(asked.socket.as_fd(), PollFlags::POLLIN))
                    .collect();
                poll(&mut fds, PollTimeout::from(50_u8))?;
            }
            all.iter_mut().for_each(Asked::take);
        }
    }
    Ok(all)
}

fn judge(all: &[Asked]) -> Check {
    let heard: Vec<&Asked> = all.iter().filter(|asked| asked.answered[0]).collect();
    if heard.is_empty() {
        return Check::skip(ID, TITLE, "no backend has answered an echo request");
    }
    let narrow: Vec<String> = heard
        .iter()
        .filter(|asked| !asked.answered[1])
        .map(|asked| {
            format!(
                "{} answers {SHORT} bytes and not {}",
                asked.backend, asked.full
            )
        })
        .collect();
    if narrow.is_empty() {
        let text = format!("{} of {} backends answered them", heard.len(), all.len());
        return Check::ok(ID, TITLE, text);
    }
    Check::fail(
        ID,
        TITLE,
        some(&narrow),
        "something on the way to them takes no packet of that size (and the outer header) and tells nobody: \
         find it with `tracepath`, give it an MTU that bears the tunnel, or set the pool's mtu to what fits",
    )
}
