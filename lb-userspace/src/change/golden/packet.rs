//! The packets themselves, from headers that are written out byte by byte.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::checksum;
use lb_common::wire::ip_proto;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Type of service of every golden packet: one that must be copied.
pub const TOS: u8 = 0x28;
/// "Don't fragment" in the flags of an IPv4 header.
pub const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// TTL that must not change.
const TTL: u8 = 59;
/// MAC addresses of golden packets: ours, and a router's.
const ADDRESSED: [u8; 6] = [2, 0, 0, 0, 0x90, 1];
const SENDING: [u8; 6] = [2, 0, 0, 0, 0x90, 2];

/// A client's flow to a VIP; numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// The VIP, of the same family.
    pub vip: IpAddr,
    /// Its port.
    pub vip_port: u16,
    /// IANA number of TCP or UDP.
    pub protocol: u8,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = SocketAddr::new(self.client, self.client_port);
        write!(
            f,
            "from {client} to {}",
            SocketAddr::new(self.vip, self.vip_port)
        )
    }
}

/// Kinds of golden packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP SYN.
    Syn,
    /// A TCP segment in the middle of a flow.
    Segment,
    /// A UDP datagram.
    Datagram,
    /// A router's error about an answer, quoting no more than it must.
    Error,
    /// A first fragment.
    Fragment,
    /// The largest packet that fits.
    Full,
}

impl Kind {
    /// Kinds that a flow can have.
    pub const fn of(flow: &Flow) -> &'static [Self] {
        if flow.protocol == ip_proto::TCP {
            &[
                Self::Syn,
                Self::Segment,
                Self::Error,
                Self::Fragment,
                Self::Full,
            ]
        } else {
            &[Self::Datagram, Self::Error, Self::Fragment, Self::Full]
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "a SYN",
            Self::Segment => "a mid-flow segment",
            Self::Datagram => "a datagram",
            Self::Error => "an ICMP error",
            Self::Fragment => "a fragment",
            Self::Full => "a full-size packet",
        }
    }
}

/// An IP header. `id` and `flags` are IPv4's, `flow_label` is IPv6's.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Source.
    pub from: IpAddr,
    /// Destination, of the same family.
    pub to: IpAddr,
    /// What follows.
    pub protocol: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub flags: u16,
    /// Flow label, 20 bits.
    pub flow_label: u32,
}

/// An IP packet of a flow; one of transport has `length` bytes, if its headers leave room.
pub fn build(flow: &Flow, kind: Kind, length: usize) -> Vec<u8> {
    let header = Header {
        from: flow.client,
        to: flow.vip,
        protocol: flow.protocol,
        tos: TOS,
        ttl: TTL,
        id: 0x1d,
        flags: if kind == Kind::Fragment {
            MORE_FRAGMENTS
        } else {
            DONT_FRAGMENT
        },
        flow_label: 0,
    };
    match kind {
        Kind::Error => error(flow, &header),
        Kind::Fragment if flow.vip.is_ipv6() => {
            // RFC 8200, 4.5: next header, reserved, offset 0 and "more", identification.
            let fragment = [flow.protocol, 0, 0, 1, 0, 0, 0, 0x1d];
            let payload = [&fragment[..], &transport(flow, kind, 48)].concat();
            ip(
                &Header {
                    protocol: ip_proto::FRAGMENT,
                    ..header
                },
                &payload,
            )
        }
        _ => {
            let head = if flow.vip.is_ipv4() { 20 } else { 40 };
            ip(&header, &transport(flow, kind, length.saturating_sub(head)))
        }
    }
}

/// A frame that comes to the balancer.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    ethernet(ADDRESSED, SENDING, packet)
}

/// An Ethernet frame around an IP packet.
pub fn ethernet(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first() {
        Some(first) if first >> 4 == 4 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    };
    [&to[..], &from, &kind, packet].concat()
}

/// An IP packet.
pub fn ip(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match (header.from, header.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ipv4(header, from.octets(), to.octets(), payload.len()).to_vec()
        }
        (from, to) => ipv6(header, sixteen(from), sixteen(to), payload.len()).to_vec(),
    };
    bytes.extend_from_slice(payload);
    bytes
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// RFC 791, 3.1.
fn ipv4(header: &Header, from: [u8; 4], to: [u8; 4], payload: usize) -> [u8; 20] {
    let [l0, l1] = u16::try_from(payload.saturating_add(20))
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let ([i0, i1], [f0, f1]) = (header.id.to_be_bytes(), header.flags.to_be_bytes());
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (from, to);
    let (tos, ttl, protocol) = (header.tos, header.ttl, header.protocol);
    let with = |[c0, c1]: [u8; 2]| {
        [
            0x45, tos, l0, l1, i0, i1, f0, f1, ttl, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2,
            d3,
        ]
    };
    with(checksum::fold(checksum::bytes(&with([0, 0]))).to_ne_bytes())
}

/// RFC 8200, 3.
fn ipv6(header: &Header, from: [u8; 16], to: [u8; 16], payload: usize) -> [u8; 40] {
    let first = 0x6000_0000 | u32::from(header.tos) << 20 | header.flow_label;
    let length = u16::try_from(payload).unwrap_or(u16::MAX);
    let [a, b, c, d] = first.to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    let head = [a, b, c, d, l0, l1, header.protocol, header.ttl];
    let mut bytes = [0; 40];
    let all = head.iter().chain(&from).chain(&to);
    bytes
        .iter_mut()
        .zip(all)
        .for_each(|(place, byte)| *place = *byte);
    bytes
}

/// TCP or UDP of `length` bytes from client to VIP.
fn transport(flow: &Flow, kind: Kind, length: usize) -> Vec<u8> {
    let (from, to) = (flow.client_port.to_be_bytes(), flow.vip_port.to_be_bytes());
    let head = if flow.protocol == ip_proto::TCP {
        let flags = if kind == Kind::Syn { 0x02 } else { 0x10 };
        // RFC 9293, 3.1: ports, sequence, acknowledgement, length and flags, window, checksum.
        let rest = [
            0,
            0,
            0,
            9,
            0,
            0,
            0,
            if kind == Kind::Syn { 0 } else { 7 },
            0x50,
            flags,
        ];
        [&from[..], &to, &rest, &[0x40, 0, 0, 0, 0, 0]].concat()
    } else {
        let length = u16::try_from(length.max(8))
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        [&from[..], &to, &length, &[0, 0]].concat()
    };
    let place = if flow.protocol == ip_proto::TCP {
        16
    } else {
        6
    };
    let mut bytes = head;
    bytes.resize(length.max(bytes.len()), 0xa5);
    let sum = sum(flow.client, flow.vip, flow.protocol, &bytes);
    put(
        &mut bytes,
        place,
        if sum == [0, 0] { [0xff, 0xff] } else { sum },
    );
    bytes
}

/// An IP packet as the data of a UDP datagram, its checksum over all of it.
pub fn in_udp(outer: &Header, from: u16, to: u16, packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len().saturating_add(8)).unwrap_or(u16::MAX);
    let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
    let mut bytes = [&from[..], &to, &length.to_be_bytes(), &[0, 0], packet].concat();
    let sum = sum(outer.from, outer.to, ip_proto::UDP, &bytes);
    put(
        &mut bytes,
        6,
        if sum == [0, 0] { [0xff, 0xff] } else { sum },
    );
    bytes
}

/// A router's "fragmentation needed" or "packet too big" about an answer of the VIP, with the 8
/// bytes behind the quoted header that RFC 792 promises.
fn error(flow: &Flow, header: &Header) -> Vec<u8> {
    let back = Header {
        from: flow.vip,
        to: flow.client,
        ..*header
    };
    let (from, to) = (flow.vip_port.to_be_bytes(), flow.client_port.to_be_bytes());
    let quote = ip(&back, &[&from[..], &to, &[0, 0, 0, 9]].concat());
    let (router, protocol, head) = if flow.vip.is_ipv4() {
        let router = IpAddr::from([198, 19, 255, 254]);
        (router, ip_proto::ICMP, [3, 4, 0, 0, 0, 0, 0x05, 0x78])
    } else {
        let router = IpAddr::from([
            0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe,
        ]);
        (router, ip_proto::ICMPV6, [2, 0, 0, 0, 0, 0, 0x05, 0x78])
    };
    let mut message = [&head[..], &quote].concat();
    let sum = if flow.vip.is_ipv4() {
        checksum::fold(checksum::bytes(&message)).to_ne_bytes()
    } else {
        sum(router, flow.vip, protocol, &message)
    };
    put(&mut message, 2, sum);
    ip(
        &Header {
            from: router,
            protocol,
            ..*header
        },
        &message,
    )
}

/// Checksum over a pseudo-header and what follows (RFC 9293, 3.1; RFC 8200, 8.1).
fn sum(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> [u8; 2] {
    let address = |address: IpAddr| match address {
        IpAddr::V4(v4) => checksum::bytes(&v4.octets()),
        IpAddr::V6(v6) => checksum::bytes(&v6.octets()),
    };
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let rest = checksum::bytes(&length).saturating_add(checksum::bytes(&[0, protocol]));
    let addresses = address(from).saturating_add(address(to));
    let total = addresses
        .saturating_add(rest)
        .saturating_add(checksum::bytes(bytes));
    checksum::fold(total).to_ne_bytes()
}

fn put(bytes: &mut [u8], at: usize, sum: [u8; 2]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(sum) {
        *place = byte;
    }
}
