//! The TCP reset that answers a segment of a connection whose backend is down: pure, from what is
//! known of the segment to headers (RFC 9293, 3.10.7.1).

use crate::checksum;
use crate::encap::TTL;
use crate::packet::Packet;
use crate::wire::{
    ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, Ports, TCP_LEN, Tcp, TcpStart, ip_proto,
    tcp_flags,
};
use zerocopy::network_endian::{U16, U32};

/// Bytes of the frame that carries an IPv4 reset.
pub const LENGTH_V4: usize = ETHERNET_LEN + IPV4_LEN + TCP_LEN;
/// The same for IPv6.
pub const LENGTH_V6: usize = ETHERNET_LEN + IPV6_LEN + TCP_LEN;

/// The TCP header of the reset that answers `segment` of `packet`.
#[inline(always)]
pub fn tcp(packet: &Packet, segment: &TcpStart) -> Tcp {
    let mut tcp = header(packet, segment);
    let mut sum = checksum::quad(0, ip_proto::TCP, 0, TCP_LEN as u8);
    let (a, b) = (packet.flow.destination.words(), packet.flow.source.words());
    sum += checksum::word(a[3]) + checksum::word(b[3]);
    if !packet.is_v4 {
        sum += checksum::word(a[0]) + checksum::word(a[1]) + checksum::word(a[2]);
        sum += checksum::word(b[0]) + checksum::word(b[1]) + checksum::word(b[2]);
    }
    tcp.checksum = checksum::fold(sum + words(&tcp)).to_ne_bytes();
    tcp
}

/// The IPv6 header before it.
#[inline(always)]
pub fn ipv6(packet: &Packet) -> Ipv6 {
    Ipv6 {
        version_class_flow: U32::new(0x6000_0000),
        payload_length: U16::new(TCP_LEN as u16),
        next_header: ip_proto::TCP,
        hop_limit: TTL,
        source: packet.flow.destination.v6_bytes(),
        destination: packet.flow.source.v6_bytes(),
    }
}

#[inline(always)]
fn header(packet: &Packet, segment: &TcpStart) -> Tcp {
    let headers = packet.payload_offset.wrapping_sub(packet.ip_offset)
        + (u16::from(segment.data_offset >> 4) << 2);
    let data = packet.ip_length.saturating_sub(headers);
    let (sequence, acknowledgement, flags) = if segment.flags & tcp_flags::ACK != 0 {
        (segment.acknowledgement, U32::new(0), tcp_flags::RST)
    } else {
        let marks = segment.flags & (tcp_flags::SYN | tcp_flags::FIN);
        let ends = u32::from(data) + u32::from(marks != 0);
        let next = segment.sequence.get().wrapping_add(ends);
        (U32::new(0), U32::new(next), tcp_flags::RST | tcp_flags::ACK)
    };
    Tcp {
        ports: Ports {
            source: segment.ports.destination,
            destination: segment.ports.source,
        },
        sequence,
        acknowledgement,
        data_offset: (TCP_LEN as u8) << 2,
        flags,
        window: U16::new(0),
        checksum: [0; 2],
        urgent: U16::new(0),
    }
}

/// Sum over a header whose checksum is 0.
#[inline(always)]
fn words(tcp: &Tcp) -> u64 {
    let word = |bytes: [u8; 4]| checksum::word(u32::from_ne_bytes(bytes));
    let (from, to) = (tcp.ports.source, tcp.ports.destination);
    checksum::quad(from[0], from[1], to[0], to[1])
        + word(tcp.sequence.to_bytes())
        + word(tcp.acknowledgement.to_bytes())
        + checksum::quad(tcp.data_offset, tcp.flags, 0, 0)
}

/// The IPv4 header before it.
#[inline(always)]
pub fn ipv4(packet: &Packet) -> Ipv4 {
    let (source, destination) = (
        packet.flow.destination.v4_bytes(),
        packet.flow.source.v4_bytes(),
    );
    let length = (IPV4_LEN + TCP_LEN) as u16;
    let [length_high, length_low] = length.to_be_bytes();
    let [flags_high, flags_low] = Ipv4::DONT_FRAGMENT.to_be_bytes();
    let sum = checksum::quad(0x45, 0, length_high, length_low)
        + checksum::quad(0, 0, flags_high, flags_low)
        + checksum::quad(TTL, ip_proto::TCP, 0, 0)
        + checksum::word(u32::from_ne_bytes(source))
        + checksum::word(u32::from_ne_bytes(destination));
    Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_length: U16::new(length),
        id: [0; 2],
        fragment: U16::new(Ipv4::DONT_FRAGMENT),
        ttl: TTL,
        protocol: ip_proto::TCP,
        checksum: checksum::fold(sum).to_ne_bytes(),
        source,
        destination,
    }
}
