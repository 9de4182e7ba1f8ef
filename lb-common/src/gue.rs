//! Generic UDP encapsulation (draft-ietf-intarea-gue): an IP packet behind a UDP header, variant 1,
//! which tells IPv4 from IPv6 by the packet's own first bits.
//!
//! The outer checksum is derived from the inner one: a packet whose transport checksum is right sums
//! to what its pseudo-header lacks, so nothing but headers need be read. Where there is none (ICMP has
//! no pseudo-header, UDP may have no checksum) that is taken into account. A packet that came with a
//! wrong checksum gets a wrong outer one, and is dropped where it would have been.

use crate::checksum;
use crate::packet::{Packet, Role};
use crate::wire::{Frame, IPV6_LEN, Ipv4, Ipv6, Ports, UDP_LEN, Udp, ip_proto};
use zerocopy::network_endian::U16;

/// The port that GUE is received on (IANA).
pub const PORT: u16 = 6080;

/// Whether an ICMP error may be about a packet that we sent by GUE: it quotes one to the port. If it
/// is one of ours its destination tells.
#[inline(always)]
pub fn may_be_error(packet: &Packet) -> bool {
    packet.role == Role::Error
        && packet.flow.protocol == ip_proto::UDP
        && packet.flow.source_port == PORT.to_be()
}

/// The sum of a packet that is too long to be summed: no other sum has more than 32 bits.
pub const NO_SUM: u64 = u64::MAX;

/// What is known of the sum of an IP packet without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// This, to be folded.
    Known(u64),
    /// It has to be computed.
    Unknown,
}

/// Sum over the whole IP packet at `packet.ip_offset`.
#[inline(always)]
pub fn inner_sum<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Sum {
    let sum = if packet.is_v4 {
        inner_v4(frame, packet)
    } else {
        inner_v6(frame, packet)
    };
    sum.map_or(Sum::Unknown, Sum::Known)
}

#[inline(always)]
fn inner_v4<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<u64> {
    let ip: Ipv4 = frame.read(packet.ip_offset.into())?;
    // The header's own checksum makes it sum to nothing.
    if ip.protocol == ip_proto::ICMP {
        return Some(0);
    }
    if ip.protocol != ip_proto::TCP && !has_checksum(frame, packet, ip.protocol) {
        return None;
    }
    let pseudo = checksum::word(u32::from_ne_bytes(ip.source))
        + checksum::word(u32::from_ne_bytes(ip.destination))
        + transport(packet, ip.protocol);
    Some(u64::from(checksum::fold(pseudo)))
}

#[inline(always)]
fn inner_v6<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<u64> {
    let ip: Ipv6 = frame.read(packet.ip_offset.into())?;
    let extensions = packet.payload_offset != packet.ip_offset.wrapping_add(IPV6_LEN as u16);
    let summed = matches!(ip.next_header, ip_proto::TCP | ip_proto::ICMPV6)
        || has_checksum(frame, packet, ip.next_header);
    if extensions || !summed {
        return None;
    }
    // The addresses are in the header and, taken off, in the pseudo-header: they cancel out.
    let head: [[u8; 4]; 2] = frame.read(packet.ip_offset.into())?;
    let header =
        checksum::word(u32::from_ne_bytes(head[0])) + checksum::word(u32::from_ne_bytes(head[1]));
    let less = checksum::fold(transport(packet, ip.next_header));
    Some(header + u64::from(less))
}

/// Protocol and length of the pseudo-header.
#[inline(always)]
fn transport(packet: &Packet, protocol: u8) -> u64 {
    let headers = packet.payload_offset.wrapping_sub(packet.ip_offset);
    let [high, low] = packet.ip_length.wrapping_sub(headers).to_be_bytes();
    checksum::quad(0, protocol, high, low)
}

#[inline(always)]
fn has_checksum<F: Frame + ?Sized>(frame: &F, packet: &Packet, protocol: u8) -> bool {
    let udp: Option<Udp> = frame.read(packet.payload_offset.into());
    protocol == ip_proto::UDP && udp.is_some_and(|udp| udp.checksum != [0; 2])
}

/// The UDP header before an IP packet of `length` bytes; `inner` is its sum, `addresses` that of the
/// outer source and destination. With [`NO_SUM`] it has no checksum (RFC 768, and for tunnels over IPv6 RFC
/// 6935): a wrong one would be dropped where it arrives. The source port carries entropy, for receivers that spread by it.
#[inline(always)]
pub fn header(length: u16, inner: u64, addresses: u64, entropy: u64) -> Udp {
    // The dynamic ports of RFC 6335.
    let source = (0xc000 | (entropy >> 16) as u16 & 0x3fff).to_be_bytes();
    let destination = PORT.to_be_bytes();
    let length = length.wrapping_add(UDP_LEN as u16);
    let [high, low] = length.to_be_bytes();
    let known = inner != NO_SUM;
    let sum = addresses
        + checksum::quad(0, ip_proto::UDP, high, low)
        + checksum::quad(source[0], source[1], destination[0], destination[1])
        + checksum::quad(high, low, 0, 0)
        + if known { inner } else { 0 };
    let checksum = match checksum::fold(sum) {
        _ if !known => 0,
        // 0 means none (RFC 768).
        0 => 0xffff,
        sum => sum,
    };
    Udp {
        ports: Ports {
            source,
            destination,
        },
        length: U16::new(length),
        checksum: checksum.to_ne_bytes(),
    }
}
