//! Frame to [`Packet`]: Ethernet, VLAN tags, IPv4 with options, IPv6 with extension headers, TCP, UDP, ICMP.
//!
//! One header, one function, one bounds check. `Err(Skip)` means "not ours": the frame goes to the
//! stack untouched. The same code runs in the kernel and under `cargo test`.

use crate::address::Address;
use crate::packet::{Kind, Packet, Role, Skip};
use crate::tunnel_error;
use crate::wire::{
    ETHERNET_LEN, Ethernet, Frame, ICMP_LEN, IPV4_LEN, IPV6_LEN, Icmp, Ipv4, Ipv6, Ipv6Extension,
    Ports, TcpStart, VLAN_TAG_LEN, VlanTag, ether_type, icmp_type, icmpv6_type, ip_proto,
    tcp_flags,
};
use zerocopy::{FromBytes, Unaligned};

/// VLAN tags that are skipped: 802.1ad allows two.
const MAX_TAGS: usize = 2;
/// IPv6 extension headers that are skipped before giving up.
const MAX_EXTENSIONS: usize = 4;

/// Says what a frame is, and fills in what is known of it.
///
/// # Errors
/// [`Skip`] if the frame is not one to balance; `packet` is then partly filled.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, packet: &mut Packet) -> Result<Kind, Skip> {
    let ethernet: Ethernet = frame.read(0).ok_or(Skip::Runt)?;
    let (ether_type, offset) = untagged(frame, ethernet.ether_type.get())?;
    let mut fragment = match ether_type {
        ether_type::IPV4 => ipv4(frame, offset, packet)?,
        ether_type::IPV6 => ipv6(frame, offset, packet)?,
        _ => return Err(Skip::NotIp),
    };
    let end = offset + usize::from(packet.ip_length);
    if !frame.holds(end) {
        return Err(Skip::Runt);
    }
    let frame = &Within { frame, end };
    if is_skipped_extension(packet.flow.protocol) && !packet.is_v4 {
        ipv6_extensions(frame, packet)?;
    }
    fragment |= packet.flow.protocol == ip_proto::FRAGMENT && !packet.is_v4;
    if fragment {
        return Ok(Kind::Fragment);
    }
    let offset = usize::from(packet.payload_offset);
    match packet.flow.protocol {
        ip_proto::TCP => tcp(frame, offset, packet),
        ip_proto::UDP => udp(frame, offset, packet),
        ip_proto::ICMP if packet.is_v4 => icmp(frame, offset, packet),
        ip_proto::ICMPV6 if !packet.is_v4 => icmpv6(frame, offset, packet),
        _ => Err(Skip::Protocol),
    }
}

/// What follows the VLAN tags, two at most (802.1Q, 802.1ad), and where.
#[inline(always)]
fn untagged<F: Frame + ?Sized>(frame: &F, ether_type: u16) -> Result<(u16, usize), Skip> {
    let (mut ether_type, mut offset) = (ether_type, ETHERNET_LEN);
    for _ in 0..MAX_TAGS {
        if !is_tag(ether_type) {
            break;
        }
        let tag: VlanTag = frame.read(offset).ok_or(Skip::Runt)?;
        ether_type = tag.ether_type.get();
        offset += VLAN_TAG_LEN;
    }
    if is_tag(ether_type) {
        return Err(Skip::Vlan);
    }
    Ok((ether_type, offset))
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, ether_type::VLAN | ether_type::QINQ)
}

/// A frame up to the end of its IP packet: what lies behind it (Ethernet pads to 60 bytes) is no
/// part of it.
struct Within<'a, F: ?Sized> {
    frame: &'a F,
    end: usize,
}

impl<F: Frame + ?Sized> Frame for Within<'_, F> {
    #[inline(always)]
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        // The frame's own check comes first: the other way round the compiler derives it from this
        // one and leaves it out, which the kernel's verifier cannot follow.
        let value = self.frame.read(offset)?;
        (offset + size_of::<T>() <= self.end).then_some(value)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end
    }
}

/// Bytes of an IPv4 header, options included: 20 to 60.
#[inline(always)]
fn ipv4_header_length(header: &Ipv4) -> Option<usize> {
    let words = header.version_ihl & 0x0f;
    if header.version_ihl >> 4 != 4 || words < 5 {
        return None;
    }
    Some(usize::from(words) * 4)
}

/// Whether the packet is a fragment.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize, packet: &mut Packet) -> Result<bool, Skip> {
    let header: Ipv4 = frame.read(offset).ok_or(Skip::Runt)?;
    let length = ipv4_header_length(&header).ok_or(Skip::Runt)?;
    let fragment = header.fragment.get();
    if usize::from(header.total_length.get()) < length {
        return Err(Skip::Runt);
    }
    packet.flow.source = Address::v4(header.source);
    packet.flow.destination = Address::v4(header.destination);
    packet.flow.protocol = header.protocol;
    packet.is_v4 = true;
    packet.dont_fragment = fragment & Ipv4::DONT_FRAGMENT != 0;
    packet.has_options = length > IPV4_LEN;
    packet.tos = header.tos;
    packet.id = u16::from_ne_bytes(header.id);
    packet.ip_length = header.total_length.get();
    packet.ip_offset = offset as u16;
    packet.payload_offset = (offset + length) as u16;
    Ok(fragment & (Ipv4::MORE_FRAGMENTS | Ipv4::OFFSET_MASK) != 0)
}

/// Never says that the packet is a fragment: that is in the extension headers.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize, packet: &mut Packet) -> Result<bool, Skip> {
    let header: Ipv6 = frame.read(offset).ok_or(Skip::Runt)?;
    if header.version_class_flow.get() >> 28 != 6 {
        return Err(Skip::Runt);
    }
    packet.flow.source = Address::v6(header.source);
    packet.flow.destination = Address::v6(header.destination);
    packet.flow.protocol = header.next_header;
    packet.dont_fragment = true;
    packet.tos = header.traffic_class();
    packet.ip_length = header.payload_length.get().saturating_add(IPV6_LEN as u16);
    packet.ip_offset = offset as u16;
    packet.payload_offset = (offset + IPV6_LEN) as u16;
    Ok(false)
}

/// Whether a protocol number is an IPv6 extension header that is skipped.
#[inline(always)]
fn is_skipped_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        ip_proto::HOP_BY_HOP | ip_proto::ROUTING | ip_proto::DESTINATION_OPTIONS
    )
}

/// Walks extension headers to the transport or fragment header (RFC 8200, 4).
#[inline(always)]
fn ipv6_extensions<F: Frame + ?Sized>(frame: &F, packet: &mut Packet) -> Result<(), Skip> {
    let mut offset = usize::from(packet.payload_offset);
    let mut protocol = packet.flow.protocol;
    for _ in 0..MAX_EXTENSIONS {
        if !is_skipped_extension(protocol) {
            break;
        }
        let extension: Ipv6Extension = frame.read(offset).ok_or(Skip::Runt)?;
        protocol = extension.next_header;
        offset += (usize::from(extension.length) + 1) * 8;
    }
    if is_skipped_extension(protocol) {
        return Err(Skip::Extensions);
    }
    if !frame.holds(offset) {
        return Err(Skip::Runt);
    }
    packet.flow.protocol = protocol;
    packet.payload_offset = offset as u16;
    Ok(())
}

#[inline(always)]
fn put(packet: &mut Packet, ports: Ports, role: Role) -> Kind {
    packet.flow.source_port = u16::from_ne_bytes(ports.source);
    packet.flow.destination_port = u16::from_ne_bytes(ports.destination);
    packet.role = role;
    Kind::Flow
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Kind, Skip> {
    let header: TcpStart = frame.read(offset).ok_or(Skip::Runt)?;
    let role = if header.flags & tcp_flags::RST != 0 {
        Role::Reset
    } else if header.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN {
        Role::Syn
    } else {
        Role::Segment
    };
    Ok(put(packet, header.ports, role))
}

#[inline(always)]
fn udp<F: Frame + ?Sized>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Kind, Skip> {
    // Length and checksum must be there too, or it is no datagram.
    let header: [Ports; 2] = frame.read(offset).ok_or(Skip::Runt)?;
    Ok(put(packet, header[0], Role::Datagram))
}

#[inline(always)]
fn icmp<F: Frame + ?Sized>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Kind, Skip> {
    let header: Icmp = frame.read(offset).ok_or(Skip::Runt)?;
    match header.kind {
        icmp_type::ECHO_REQUEST if header.code == 0 => Ok(Kind::Echo),
        icmp_type::UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM => {
            packet.error = tunnel_error::meaning_v4(&header);
            quoted_ipv4(frame, offset + ICMP_LEN, packet)
        }
        _ => Err(Skip::Icmp),
    }
}

/// The flow that an ICMP error is about: the quoted packet went from the VIP to the client.
///
/// RFC 792 promises only 8 bytes beyond the quoted IP header, so no more than ports is asked for.
#[inline(always)]
fn quoted_ipv4<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    packet: &mut Packet,
) -> Result<Kind, Skip> {
    let quoted: Ipv4 = frame.read(offset).ok_or(Skip::Icmp)?;
    let length = ipv4_header_length(&quoted).ok_or(Skip::Icmp)?;
    if quoted.fragment.get() & Ipv4::OFFSET_MASK != 0 {
        return Err(Skip::Icmp);
    }
    let source = Address::v4(quoted.source);
    if tunnel_error::is_tunnel(quoted.protocol) && source == packet.flow.destination {
        return tunnel_error::inner(frame, offset + length, quoted.protocol, packet);
    }
    let client = Address::v4(quoted.destination);
    let ports = frame.read(offset + length).ok_or(Skip::Icmp)?;
    put_error(packet, source, client, quoted.protocol, ports)
}

#[inline(always)]
fn icmpv6<F: Frame + ?Sized>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Kind, Skip> {
    let header: Icmp = frame.read(offset).ok_or(Skip::Runt)?;
    match header.kind {
        icmpv6_type::ECHO_REQUEST if header.code == 0 => Ok(Kind::Echo),
        icmpv6_type::UNREACHABLE
        | icmpv6_type::PACKET_TOO_BIG
        | icmpv6_type::TIME_EXCEEDED
        | icmpv6_type::PARAMETER_PROBLEM => {
            packet.error = tunnel_error::meaning_v6(&header);
            quoted_ipv6(frame, offset + ICMP_LEN, packet)
        }
        _ => Err(Skip::Icmp),
    }
}

#[inline(always)]
fn quoted_ipv6<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    packet: &mut Packet,
) -> Result<Kind, Skip> {
    let quoted: Ipv6 = frame.read(offset).ok_or(Skip::Icmp)?;
    if quoted.version_class_flow.get() >> 28 != 6 {
        return Err(Skip::Icmp);
    }
    let source = Address::v6(quoted.source);
    if tunnel_error::is_tunnel(quoted.next_header) && source == packet.flow.destination {
        return tunnel_error::inner(frame, offset + IPV6_LEN, quoted.next_header, packet);
    }
    let client = Address::v6(quoted.destination);
    let ports = frame.read(offset + IPV6_LEN).ok_or(Skip::Icmp)?;
    put_error(packet, source, client, quoted.next_header, ports)
}

#[inline(always)]
fn put_error(
    packet: &mut Packet,
    source: Address,
    client: Address,
    protocol: u8,
    ports: Ports,
) -> Result<Kind, Skip> {
    // An error about our packets comes to the address that sent them.
    if source != packet.flow.destination {
        return Err(Skip::Icmp);
    }
    if protocol != ip_proto::TCP && protocol != ip_proto::UDP {
        return Err(Skip::Icmp);
    }
    packet.flow.source = client;
    packet.flow.protocol = protocol;
    Ok(put(
        packet,
        Ports {
            source: ports.destination,
            destination: ports.source,
        },
        Role::Error,
    ))
}
