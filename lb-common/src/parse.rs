//! Frame to [`Parsed`]: Ethernet, IPv4 with options, IPv6 with extension headers, TCP, UDP, ICMP.
//!
//! One header, one function, one bounds check. `Err(Skip)` means "not ours": the frame goes to the
//! stack untouched. The same code runs in the kernel and under `cargo test`.

use crate::address::Address;
use crate::packet::{Echo, FlowKey, Fragment, Packet, Parsed, Role, Skip};
use crate::wire::{
    ETHERNET_LEN, Ethernet, Frame, ICMP_LEN, IPV4_LEN, IPV6_LEN, Icmp, Ipv4, Ipv6, Ipv6Extension,
    Ports, TcpStart, ether_type, icmp_type, icmpv6_type, ip_proto, tcp_flags,
};

/// IPv6 extension headers that are skipped before giving up.
const MAX_EXTENSIONS: usize = 4;

/// What the IP header says, before ports are known.
#[derive(Clone, Copy)]
struct Network {
    source: Address,
    destination: Address,
    is_v4: bool,
    dont_fragment: bool,
    has_options: bool,
    fragment: bool,
    protocol: u8,
    tos: u8,
    id: u16,
    ip_offset: usize,
    payload_offset: usize,
    ip_length: u16,
}

/// Says what a frame is.
///
/// # Errors
/// [`Skip`] if the frame is not one to balance.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Parsed, Skip> {
    let ethernet: Ethernet = frame.read(0).ok_or(Skip::Runt)?;
    let network = match ethernet.ether_type.get() {
        ether_type::IPV4 => ipv4(frame, ETHERNET_LEN)?,
        ether_type::IPV6 => ipv6(frame, ETHERNET_LEN)?,
        ether_type::VLAN | ether_type::QINQ => return Err(Skip::Vlan),
        _ => return Err(Skip::NotIp),
    };
    if network.ip_offset + usize::from(network.ip_length) > frame.length() {
        return Err(Skip::Runt);
    }
    if network.fragment {
        return Ok(Parsed::Fragment(Fragment { destination: network.destination }));
    }
    match (network.protocol, network.is_v4) {
        (ip_proto::TCP, _) => tcp(frame, &network).map(Parsed::Packet),
        (ip_proto::UDP, _) => udp(frame, &network).map(Parsed::Packet),
        (ip_proto::ICMP, true) => icmp(frame, &network),
        (ip_proto::ICMPV6, false) => icmpv6(frame, &network),
        _ => Err(Skip::Protocol),
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

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Network, Skip> {
    let header: Ipv4 = frame.read(offset).ok_or(Skip::Runt)?;
    let length = ipv4_header_length(&header).ok_or(Skip::Runt)?;
    let fragment = header.fragment.get();
    Ok(Network {
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
        is_v4: true,
        dont_fragment: fragment & Ipv4::DONT_FRAGMENT != 0,
        has_options: length > IPV4_LEN,
        fragment: fragment & (Ipv4::MORE_FRAGMENTS | Ipv4::OFFSET_MASK) != 0,
        protocol: header.protocol,
        tos: header.tos,
        id: u16::from_ne_bytes(header.id),
        ip_offset: offset,
        payload_offset: offset + length,
        ip_length: header.total_length.get(),
    })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Network, Skip> {
    let header: Ipv6 = frame.read(offset).ok_or(Skip::Runt)?;
    if header.version_class_flow.get() >> 28 != 6 {
        return Err(Skip::Runt);
    }
    let mut network = Network {
        source: Address::v6(header.source),
        destination: Address::v6(header.destination),
        is_v4: false,
        dont_fragment: true,
        has_options: false,
        fragment: false,
        protocol: header.next_header,
        tos: header.traffic_class(),
        id: 0,
        ip_offset: offset,
        payload_offset: offset + IPV6_LEN,
        ip_length: header.payload_length.get().saturating_add(IPV6_LEN as u16),
    };
    match header.next_header {
        ip_proto::TCP | ip_proto::UDP | ip_proto::ICMPV6 => {}
        _ => ipv6_extensions(frame, &mut network)?,
    }
    Ok(network)
}

/// Whether a protocol number is an IPv6 extension header that is skipped.
#[inline(always)]
fn is_skipped_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        ip_proto::HOP_BY_HOP | ip_proto::ROUTING | ip_proto::DESTINATION_OPTIONS
    )
}

/// Walks extension headers to the transport header (RFC 8200, 4).
#[inline(always)]
fn ipv6_extensions<F: Frame + ?Sized>(frame: &F, network: &mut Network) -> Result<(), Skip> {
    let mut offset = network.payload_offset;
    let mut protocol = network.protocol;
    for _ in 0..MAX_EXTENSIONS {
        if protocol == ip_proto::FRAGMENT {
            network.fragment = true;
        }
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
    network.fragment |= protocol == ip_proto::FRAGMENT;
    network.protocol = protocol;
    network.payload_offset = offset;
    Ok(())
}

#[inline(always)]
fn packet(network: &Network, ports: Ports, role: Role) -> Packet {
    Packet {
        flow: FlowKey {
            source: network.source,
            destination: network.destination,
            source_port: u16::from_ne_bytes(ports.source),
            destination_port: u16::from_ne_bytes(ports.destination),
            protocol: network.protocol,
        },
        role,
        is_v4: network.is_v4,
        dont_fragment: network.dont_fragment,
        has_options: network.has_options,
        tos: network.tos,
        id: network.id,
        ip_offset: network.ip_offset as u16,
        ip_length: network.ip_length,
    }
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<Packet, Skip> {
    let header: TcpStart = frame.read(network.payload_offset).ok_or(Skip::Runt)?;
    let role = if header.flags & tcp_flags::RST != 0 {
        Role::Reset
    } else if header.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN {
        Role::Syn
    } else {
        Role::Segment
    };
    Ok(packet(network, header.ports, role))
}

#[inline(always)]
fn udp<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<Packet, Skip> {
    let ports: Ports = frame.read(network.payload_offset).ok_or(Skip::Runt)?;
    // The length and checksum must be there too, or it is no datagram.
    let _: [u8; 8] = frame.read(network.payload_offset).ok_or(Skip::Runt)?;
    Ok(packet(network, ports, Role::Datagram))
}

#[inline(always)]
fn echo(network: &Network) -> Parsed {
    Parsed::Echo(Echo {
        destination: network.destination,
        is_v4: network.is_v4,
        ip_offset: network.ip_offset as u16,
        icmp_offset: network.payload_offset as u16,
    })
}

#[inline(always)]
fn icmp<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<Parsed, Skip> {
    let header: Icmp = frame.read(network.payload_offset).ok_or(Skip::Runt)?;
    match header.kind {
        icmp_type::ECHO_REQUEST if header.code == 0 => Ok(echo(network)),
        icmp_type::UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM => {
            quoted_ipv4(frame, network).map(Parsed::Packet)
        }
        _ => Err(Skip::Icmp),
    }
}

/// The flow that an ICMP error is about: the quoted packet went from the VIP to the client.
///
/// RFC 792 promises only 8 bytes beyond the quoted IP header, so no more than ports is asked for.
#[inline(always)]
fn quoted_ipv4<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<Packet, Skip> {
    let offset = network.payload_offset + ICMP_LEN;
    let quoted: Ipv4 = frame.read(offset).ok_or(Skip::Icmp)?;
    let length = ipv4_header_length(&quoted).ok_or(Skip::Icmp)?;
    if quoted.fragment.get() & Ipv4::OFFSET_MASK != 0 {
        return Err(Skip::Icmp);
    }
    let source = Address::v4(quoted.source);
    let client = Address::v4(quoted.destination);
    let ports = frame.read(offset + length).ok_or(Skip::Icmp)?;
    error_packet(network, source, client, quoted.protocol, ports)
}

#[inline(always)]
fn icmpv6<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<Parsed, Skip> {
    let header: Icmp = frame.read(network.payload_offset).ok_or(Skip::Runt)?;
    match header.kind {
        icmpv6_type::ECHO_REQUEST if header.code == 0 => Ok(echo(network)),
        icmpv6_type::UNREACHABLE
        | icmpv6_type::PACKET_TOO_BIG
        | icmpv6_type::TIME_EXCEEDED
        | icmpv6_type::PARAMETER_PROBLEM => quoted_ipv6(frame, network).map(Parsed::Packet),
        _ => Err(Skip::Icmp),
    }
}

#[inline(always)]
fn quoted_ipv6<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<Packet, Skip> {
    let offset = network.payload_offset + ICMP_LEN;
    let quoted: Ipv6 = frame.read(offset).ok_or(Skip::Icmp)?;
    let source = Address::v6(quoted.source);
    let client = Address::v6(quoted.destination);
    let ports = frame.read(offset + IPV6_LEN).ok_or(Skip::Icmp)?;
    error_packet(network, source, client, quoted.next_header, ports)
}

#[inline(always)]
fn error_packet(
    network: &Network,
    source: Address,
    client: Address,
    protocol: u8,
    ports: Ports,
) -> Result<Packet, Skip> {
    // An error about our packets comes to the address that sent them.
    if source != network.destination {
        return Err(Skip::Icmp);
    }
    if protocol != ip_proto::TCP && protocol != ip_proto::UDP {
        return Err(Skip::Icmp);
    }
    let about = Network { source: client, destination: source, protocol, ..*network };
    let turned = Ports { source: ports.destination, destination: ports.source };
    Ok(packet(&about, turned, Role::Error))
}
