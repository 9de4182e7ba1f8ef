//! Packets for tests, built by etherparse: it shares no code with the parser under test, so a
//! mistake on one side shows.
//!
//! Every function returns bytes from the Ethernet header on, with all checksums right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]
#![allow(
    clippy::missing_panics_doc,
    reason = "a test that cannot build its packet has to stop"
)]

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type,
    IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader,
};

/// MAC address of whoever sends to the balancer.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// MAC address of the balancer.
pub const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
}

impl Talk {
    /// From texts such as `198.51.100.7:40000` and `[2001:db8::1]:80`.
    pub fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    /// The other direction.
    #[must_use]
    pub const fn back(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }

    /// The same with another port of the sender.
    #[must_use]
    pub const fn sender_port(mut self, port: u16) -> Self {
        self.from.set_port(port);
        self
    }

    /// The same from another host.
    #[must_use]
    pub const fn sender_address(mut self, address: IpAddr) -> Self {
        self.from.set_ip(address);
        self
    }

    /// The same to another port.
    #[must_use]
    pub const fn receiver_port(mut self, port: u16) -> Self {
        self.to.set_port(port);
        self
    }
}

/// What the IP header says besides addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Type of service or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 "don't fragment".
    pub dont_fragment: bool,
    /// IPv4 "more fragments".
    pub more: bool,
    /// IPv4 fragment offset in 8-byte units.
    pub offset: u16,
    /// IPv4 options: a multiple of 4 bytes, at most 40.
    pub options: Vec<u8>,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// IPv6 extension headers: protocol number and the bytes after its first two. Each with these
    /// two is a multiple of 8 bytes.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Default for Ip {
    fn default() -> Self {
        Self {
            tos: 0,
            ttl: 57,
            id: 0x1234,
            dont_fragment: true,
            more: false,
            offset: 0,
            options: Vec::new(),
            flow_label: 0x5_4321,
            extensions: Vec::new(),
        }
    }
}

/// An IP packet without Ethernet header.
pub fn ip(ip: &Ip, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(payload.len()).unwrap();
            let mut header =
                Ipv4Header::new(0, ip.ttl, IpNumber(protocol), from.octets(), to.octets()).unwrap();
            header.dscp = (ip.tos >> 2).try_into().unwrap();
            header.ecn = (ip.tos & 3).try_into().unwrap();
            header.identification = ip.id;
            header.dont_fragment = ip.dont_fragment;
            header.more_fragments = ip.more;
            header.fragment_offset = ip.offset.try_into().unwrap();
            header.options = ip.options.as_slice().try_into().unwrap();
            header.set_payload_len(usize::from(length)).unwrap();
            header.header_checksum = header.calc_header_checksum();
            [&header.to_bytes(), payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let chain = extensions(&ip.extensions, protocol);
            let first = ip.extensions.first().map_or(protocol, |(kind, _)| *kind);
            let header = Ipv6Header {
                traffic_class: ip.tos,
                flow_label: ip.flow_label.try_into().unwrap(),
                payload_length: u16::try_from(chain.len() + payload.len()).unwrap(),
                next_header: IpNumber(first),
                hop_limit: ip.ttl,
                source: from.octets(),
                destination: to.octets(),
            };
            [&header.to_bytes()[..], &chain, payload].concat()
        }
        _ => panic!("{from} and {to} are of different families"),
    }
}

/// IPv6 extension headers, the last of which announces `protocol`.
fn extensions(list: &[(u8, Vec<u8>)], protocol: u8) -> Vec<u8> {
    let next = list.iter().skip(1).map(|(kind, _)| *kind).chain([protocol]);
    let mut chain = Vec::new();
    for ((kind, rest), next) in list.iter().zip(next) {
        assert_eq!(
            (rest.len() + 2) % 8,
            0,
            "extension headers come in 8-byte units"
        );
        // A fragment header has no length; its second byte is reserved (RFC 8200, 4.5).
        let units = if *kind == 44 {
            0
        } else {
            (rest.len() + 2) / 8 - 1
        };
        chain.extend_from_slice(&[next, u8::try_from(units).unwrap()]);
        chain.extend_from_slice(rest);
    }
    chain
}

/// An Ethernet frame from the router to the balancer around an IP packet.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    framed(packet, ROUTER_MAC, BALANCER_MAC)
}

/// An Ethernet frame around an IP packet.
pub fn framed(packet: &[u8], source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 {
        EtherType::IPV4
    } else {
        EtherType::IPV6
    };
    let header = Ethernet2Header {
        source,
        destination,
        ether_type,
    };
    [&header.to_bytes()[..], packet].concat()
}

/// The frame with its MAC addresses exchanged, as an answer has them.
pub fn turned(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// The IP packet in a frame.
pub fn inner(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// TCP segments by what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// Begins.
    Syn,
    /// Answers a beginning.
    SynAck,
    /// Goes on.
    Ack,
    /// Goes on and pushes.
    PshAck,
    /// Ends.
    FinAck,
    /// Breaks off.
    Rst,
    /// Breaks off and acknowledges.
    RstAck,
    /// A combination that no host sends.
    SynFin,
    /// Another one.
    SynRst,
    /// None at all.
    None,
}

/// A TCP segment as an IP payload.
pub fn tcp_segment(talk: Talk, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(talk.from.port(), talk.to.port(), 0x0102_0304, 64_240);
    let has = |of: &[Flags]| of.contains(&flags);
    header.syn = has(&[Flags::Syn, Flags::SynAck, Flags::SynFin, Flags::SynRst]);
    header.ack = has(&[
        Flags::SynAck,
        Flags::Ack,
        Flags::PshAck,
        Flags::FinAck,
        Flags::RstAck,
    ]);
    header.fin = has(&[Flags::FinAck, Flags::SynFin]);
    header.rst = has(&[Flags::Rst, Flags::RstAck, Flags::SynRst]);
    header.psh = has(&[Flags::PshAck]);
    header.checksum = match (talk.from.ip(), talk.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header
            .calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
            .unwrap(),
        (IpAddr::V6(from), IpAddr::V6(to)) => header
            .calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
            .unwrap(),
        _ => panic!("{talk:?} is of two families"),
    };
    [&header.to_bytes(), payload].concat()
}

/// What a host answers to a segment of a connection that it does not know, from sequence number
/// `seq`; with an acknowledgement number if there is one.
pub fn reset(talk: Talk, seq: u32, ack: Option<u32>) -> Vec<u8> {
    let mut header = TcpHeader::new(talk.from.port(), talk.to.port(), seq, 0);
    header.rst = true;
    header.ack = ack.is_some();
    header.acknowledgment_number = ack.unwrap_or(0);
    header.checksum = match (talk.from.ip(), talk.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header
            .calc_checksum_ipv4_raw(from.octets(), to.octets(), &[])
            .unwrap(),
        (IpAddr::V6(from), IpAddr::V6(to)) => header
            .calc_checksum_ipv6_raw(from.octets(), to.octets(), &[])
            .unwrap(),
        _ => panic!("{talk:?} is of two families"),
    };
    let outer = Ip {
        ttl: 64,
        id: 0,
        flow_label: 0,
        ..Ip::default()
    };
    frame(&ip(
        &outer,
        talk.from.ip(),
        talk.to.ip(),
        6,
        &header.to_bytes(),
    ))
}

/// A UDP datagram as an IP payload.
pub fn udp_datagram(talk: Talk, payload: &[u8]) -> Vec<u8> {
    let mut header = UdpHeader {
        source_port: talk.from.port(),
        destination_port: talk.to.port(),
        length: u16::try_from(payload.len() + 8).unwrap(),
        checksum: 0,
    };
    header.checksum = match (talk.from.ip(), talk.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header
            .calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
            .unwrap(),
        (IpAddr::V6(from), IpAddr::V6(to)) => header
            .calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
            .unwrap(),
        _ => panic!("{talk:?} is of two families"),
    };
    [&header.to_bytes()[..], payload].concat()
}

/// A frame with a TCP segment and a usual IP header.
pub fn tcp(talk: Talk, flags: Flags, payload: &[u8]) -> Vec<u8> {
    tcp_with(&Ip::default(), talk, flags, payload)
}

/// A frame with a TCP segment.
pub fn tcp_with(header: &Ip, talk: Talk, flags: Flags, payload: &[u8]) -> Vec<u8> {
    frame(&ip(
        header,
        talk.from.ip(),
        talk.to.ip(),
        6,
        &tcp_segment(talk, flags, payload),
    ))
}

/// A frame with a UDP datagram and a usual IP header.
pub fn udp(talk: Talk, payload: &[u8]) -> Vec<u8> {
    udp_with(&Ip::default(), talk, payload)
}

/// A frame with a UDP datagram.
pub fn udp_with(header: &Ip, talk: Talk, payload: &[u8]) -> Vec<u8> {
    frame(&ip(
        header,
        talk.from.ip(),
        talk.to.ip(),
        17,
        &udp_datagram(talk, payload),
    ))
}

/// A frame with an echo request.
pub fn echo_request(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    echo(
        &Ip::default(),
        from.parse().unwrap(),
        to.parse().unwrap(),
        false,
        payload,
    )
}

/// A frame with an echo request or reply, identifier 77, sequence number 5.
pub fn echo(header: &Ip, from: IpAddr, to: IpAddr, reply: bool, payload: &[u8]) -> Vec<u8> {
    echo_numbered(header, from, to, reply, 77, payload)
}

/// The same with another identifier.
pub fn echo_numbered(
    header: &Ip,
    from: IpAddr,
    to: IpAddr,
    reply: bool,
    id: u16,
    payload: &[u8],
) -> Vec<u8> {
    let number = IcmpEchoHeader { id, seq: 5 };
    let (v4, v6) = if reply {
        (Icmpv4Type::EchoReply(number), Icmpv6Type::EchoReply(number))
    } else {
        (
            Icmpv4Type::EchoRequest(number),
            Icmpv6Type::EchoRequest(number),
        )
    };
    icmp(header, from, to, v4, v6, payload)
}

/// A frame with the ICMP message of the addresses' family.
pub fn icmp(
    header: &Ip,
    from: IpAddr,
    to: IpAddr,
    v4: Icmpv4Type,
    v6: Icmpv6Type,
    payload: &[u8],
) -> Vec<u8> {
    let (protocol, message) = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (
            1,
            [
                &Icmpv4Header::with_checksum(v4, payload).to_bytes(),
                payload,
            ]
            .concat(),
        ),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let head =
                Icmpv6Header::with_checksum(v6, from.octets(), to.octets(), payload).unwrap();
            (58, [&head.to_bytes(), payload].concat())
        }
        _ => panic!("{from} and {to} are of different families"),
    };
    frame(&ip(header, from, to, protocol, &message))
}

/// A frame with the ICMP message of a type and code that etherparse may not know.
pub fn icmp_raw(from: IpAddr, to: IpAddr, kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let (type_u8, code_u8, bytes5to8) = (kind, code, [0, 0, 5, 0xdc]);
    icmp(
        &Ip::default(),
        from,
        to,
        Icmpv4Type::Unknown {
            type_u8,
            code_u8,
            bytes5to8,
        },
        Icmpv6Type::Unknown {
            type_u8,
            code_u8,
            bytes5to8,
        },
        payload,
    )
}

/// A router's "fragmentation needed" (v4) or "packet too big" (v6) about a packet that was sent.
/// `quote` is that packet, cut as the router would.
pub fn too_big(router: IpAddr, sender: IpAddr, mtu: u16, quote: &[u8]) -> Vec<u8> {
    use etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded;
    let v4 = Icmpv4Type::DestinationUnreachable(FragmentationNeeded { next_hop_mtu: mtu });
    let v6 = Icmpv6Type::PacketTooBig {
        mtu: u32::from(mtu),
    };
    icmp(&Ip::default(), router, sender, v4, v6, quote)
}
