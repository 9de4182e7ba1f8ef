//! Traffic: which packets, of how many flows, in which order.
//!
//! A flow is a number; its upper bits are the low half of the client's address, its lower 15 bits the
//! port. The BPF side makes the same packets from a template and patches checksums; here each is built
//! by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::measure::shared::{HEADER_WORDS, Traffic, YOUNG};
use crate::packets::{Flags, Talk, tcp, udp};

/// The order in which flows are visited when it is not that in which they came: odd, far from both ends.
pub const ELSEWHERE: u32 = 0x9e37_79b1;

/// First VIP, and an address that is none.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// The same of IPv6.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x99);
/// Ports of the VIPs.
pub const TCP_PORT: u16 = 80;
/// For UDP.
pub const UDP_PORT: u16 = 443;

/// What the packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP segments of known connections.
    Ack,
    /// TCP connections that begin.
    Syn,
    /// TCP connections that end.
    Fin,
    /// Datagrams.
    Udp,
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As figures name it.
    pub name: &'static str,
    /// IPv6 rather than IPv4.
    pub is_v6: bool,
    /// What the packets are.
    pub kind: Kind,
    /// How many flows, a power of two; 0 = none comes twice.
    pub flows: u32,
    /// Whether they are for a VIP.
    pub for_vip: bool,
    /// VIPs over which the flows go by their numbers, a power of two.
    pub vips: u16,
}

const fn v4(name: &'static str, kind: Kind, flows: u32) -> Workload {
    Workload {
        name,
        is_v6: false,
        kind,
        flows,
        for_vip: true,
        vips: 1,
    }
}

/// One flow over TCP.
pub const V4_ACK_1: Workload = v4("v4-tcp-ack-1", Kind::Ack, 1);
/// 65,536 flows over TCP.
pub const V4_ACK_64K: Workload = v4("v4-tcp-ack-64k", Kind::Ack, 1 << 16);
/// 1,048,576 flows over TCP.
pub const V4_ACK_1M: Workload = v4("v4-tcp-ack-1m", Kind::Ack, 1 << 20);
/// Nothing but new flows.
pub const V4_SYN_NEW: Workload = v4("v4-tcp-syn-new", Kind::Syn, 0);
/// 65,536 flows over UDP.
pub const V4_UDP_64K: Workload = v4("v4-udp-64k", Kind::Udp, 1 << 16);
/// Not for a VIP.
pub const V4_OTHER: Workload = Workload {
    for_vip: false,
    ..v4("v4-other", Kind::Ack, 1)
};
/// One flow over TCP and IPv6.
pub const V6_ACK_1: Workload = Workload {
    is_v6: true,
    ..v4("v6-tcp-ack-1", Kind::Ack, 1)
};
/// 65,536 flows over TCP and IPv6.
pub const V6_ACK_64K: Workload = Workload {
    is_v6: true,
    ..v4("v6-tcp-ack-64k", Kind::Ack, 1 << 16)
};

impl Workload {
    /// Bytes of a frame.
    pub const fn frame_length(&self) -> usize {
        if self.is_v6 { 96 } else { 64 }
    }

    /// Bits of a flow's number, as a mask.
    pub const fn mask(&self) -> u32 {
        if self.flows == 0 {
            YOUNG - 1
        } else {
            self.flows - 1
        }
    }

    /// The flow of a packet by its place in an order.
    pub const fn flow(&self, stride: u32, place: u32) -> u32 {
        place.wrapping_mul(stride) & self.mask()
    }

    /// Who talks to whom. Flow 0 has port 1,024.
    pub fn talk(&self, flow: u32) -> Talk {
        let port = 1_024 + u16::try_from(flow & 0x7fff).expect("15 bits");
        let address = u16::try_from(flow >> 15).expect("31 bits at most");
        let vip = flow & u32::from(self.vips - 1);
        let talk = self.talk_of(address, port);
        match talk.to.ip() {
            IpAddr::V4(first) => Talk {
                to: (Ipv4Addr::from(u32::from(first) + vip), talk.to.port()).into(),
                ..talk
            },
            IpAddr::V6(_) => talk,
        }
    }

    /// Of the first VIP.
    fn talk_of(&self, address: u16, port: u16) -> Talk {
        let [high, low] = address.to_be_bytes();
        let to_port = match self.kind {
            Kind::Udp => UDP_PORT,
            Kind::Ack | Kind::Syn | Kind::Fin => TCP_PORT,
        };
        let (from, to): (IpAddr, IpAddr) = if self.is_v6 {
            let from = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, address);
            (
                from.into(),
                if self.for_vip { VIP_V6 } else { OTHER_V6 }.into(),
            )
        } else {
            let from = Ipv4Addr::new(198, 18, high, low);
            (
                from.into(),
                if self.for_vip { VIP_V4 } else { OTHER_V4 }.into(),
            )
        };
        Talk {
            from: SocketAddr::new(from, port),
            to: SocketAddr::new(to, to_port),
        }
    }

    /// A flow's packet, by etherparse.
    pub fn frame(&self, flow: u32) -> Vec<u8> {
        self.frame_of(self.talk(flow), self.kind)
    }

    fn frame_of(&self, talk: Talk, kind: Kind) -> Vec<u8> {
        let headers = match kind {
            Kind::Ack | Kind::Syn | Kind::Fin => 20,
            Kind::Udp => 8,
        };
        let before = if self.is_v6 { 54 } else { 34 };
        let payload = vec![b'x'; self.frame_length() - before - headers];
        match kind {
            Kind::Ack => tcp(talk, Flags::Ack, &payload),
            Kind::Syn => tcp(talk, Flags::Syn, &payload),
            Kind::Fin => tcp(talk, Flags::FinAck, &payload),
            Kind::Udp => udp(talk, &payload),
        }
    }

    /// What begins its flows, and what they go on with: one kind after the other.
    pub const fn filled_by(&self) -> &'static [Kind] {
        match self.kind {
            _ if self.flows == 0 => &[],
            Kind::Ack | Kind::Fin => &[Kind::Syn, Kind::Ack],
            Kind::Syn => &[Kind::Syn],
            Kind::Udp => &[Kind::Udp],
        }
    }

    /// The same flows, with other packets.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// What the BPF side makes, from `place` in the order on.
    pub fn traffic(&self, stride: u32, place: u32) -> Traffic {
        let zero = self.talk_of(0, 0);
        let template = |kind| words(&self.frame_of(zero, kind));
        let before = if self.is_v6 { 54 } else { 34 };
        let checksum = match self.kind {
            Kind::Udp => 6,
            Kind::Ack | Kind::Syn | Kind::Fin => 16,
        };
        Traffic {
            plain: template(self.kind),
            syn: template(Kind::Syn),
            fin: template(Kind::Fin),
            length: u32::try_from(self.frame_length()).expect("short"),
            is_v6: self.is_v6.into(),
            checksum_at: before + checksum,
            mask: self.mask(),
            stride,
            next: place,
            vip_mask: u32::from(self.vips - 1),
            young: YOUNG,
            ..Traffic::default()
        }
    }
}

/// The first bytes of a frame, as they are stored.
fn words(frame: &[u8]) -> [u64; HEADER_WORDS] {
    let mut words = [0; HEADER_WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    words
}
