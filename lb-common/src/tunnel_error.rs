//! ICMP errors about packets that were tunnelled to a backend: what they say, and about which flow.
//!
//! Linux quotes as much as fits (RFC 1812, 4.3.2.3), so the client's packet is in the quote; an error
//! that quotes only RFC 792's eight bytes is about no flow that can be named.

use crate::address::Address;
use crate::evidence::IcmpError;
use crate::packet::{Kind, Packet, Role, Skip};
use crate::wire::{
    Frame, ICMP_LEN, IPV6_LEN, Icmp, Ipv4, Ipv6, Ports, UDP_LEN, icmp_type, icmpv6_type, ip_proto,
};

/// Codes of [`icmp_type::UNREACHABLE`] (RFC 792).
const PROTOCOL_UNREACHABLE: u8 = 2;
const PORT_UNREACHABLE: u8 = 3;
/// Code of [`icmpv6_type::UNREACHABLE`] (RFC 4443, 3.1).
const PORT_UNREACHABLE_V6: u8 = 4;
/// Code of [`icmpv6_type::PARAMETER_PROBLEM`]: unrecognised next header (RFC 4443, 3.4).
const NEXT_HEADER_UNKNOWN: u8 = 1;

/// Whether a quoted packet of this protocol is a tunnel's.
#[inline(always)]
pub const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, ip_proto::IPIP | ip_proto::IPV6)
}

/// What an ICMP message says.
#[inline(always)]
pub const fn meaning_v4(header: &Icmp) -> IcmpError {
    match (header.kind, header.code) {
        (icmp_type::UNREACHABLE, PROTOCOL_UNREACHABLE) => IcmpError::Protocol,
        (icmp_type::UNREACHABLE, PORT_UNREACHABLE) => IcmpError::Port,
        (icmp_type::UNREACHABLE, icmp_type::FRAGMENTATION_NEEDED) => IcmpError::TooBig,
        _ => IcmpError::Host,
    }
}

/// What an ICMPv6 message says.
#[inline(always)]
pub const fn meaning_v6(header: &Icmp) -> IcmpError {
    match (header.kind, header.code) {
        (icmpv6_type::PARAMETER_PROBLEM, NEXT_HEADER_UNKNOWN) => IcmpError::Protocol,
        (icmpv6_type::UNREACHABLE, PORT_UNREACHABLE_V6) => IcmpError::Port,
        (icmpv6_type::PACKET_TOO_BIG, _) => IcmpError::TooBig,
        _ => IcmpError::Host,
    }
}

/// The flow of the packet that was in the GUE packet that an ICMP error quotes.
#[inline(always)]
pub fn inside_gue<F: Frame + ?Sized>(frame: &F, packet: &mut Packet) -> Result<Kind, Skip> {
    let quote = usize::from(packet.payload_offset) + ICMP_LEN;
    let length = if packet.is_v4 {
        let head: [u8; 2] = frame.read(quote).ok_or(Skip::Icmp)?;
        usize::from(head[0] & 0x0f) * 4
    } else {
        IPV6_LEN
    };
    let offset = quote + length + UDP_LEN;
    let head: [u8; 2] = frame.read(offset).ok_or(Skip::Icmp)?;
    let tunnel = match head[0] >> 4 {
        4 => ip_proto::IPIP,
        6 => ip_proto::IPV6,
        _ => return Err(Skip::Icmp),
    };
    inner(frame, offset, tunnel, packet)
}

/// The flow of the packet at `offset`, which was inside the tunnel of protocol `tunnel`.
#[inline(always)]
pub fn inner<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    tunnel: u8,
    packet: &mut Packet,
) -> Result<Kind, Skip> {
    let length = if tunnel == ip_proto::IPIP {
        let inner: Ipv4 = frame.read(offset).ok_or(Skip::Icmp)?;
        packet.flow.source = Address::v4(inner.source);
        packet.flow.destination = Address::v4(inner.destination);
        packet.flow.protocol = inner.protocol;
        usize::from(inner.version_ihl & 0x0f) * 4
    } else {
        let inner: Ipv6 = frame.read(offset).ok_or(Skip::Icmp)?;
        packet.flow.source = Address::v6(inner.source);
        packet.flow.destination = Address::v6(inner.destination);
        packet.flow.protocol = inner.next_header;
        IPV6_LEN
    };
    if !matches!(packet.flow.protocol, ip_proto::TCP | ip_proto::UDP) {
        return Err(Skip::Icmp);
    }
    let ports: Ports = frame.read(offset + length).ok_or(Skip::Icmp)?;
    packet.flow.source_port = u16::from_ne_bytes(ports.source);
    packet.flow.destination_port = u16::from_ne_bytes(ports.destination);
    packet.role = Role::Error;
    Ok(Kind::TunnelError)
}
