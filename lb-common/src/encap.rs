//! Outer headers: pure functions from what is known to bytes.
//!
//! IPv4 outer per RFC 2003, IPv6 outer per RFC 2473: TTL 64, ToS copied, "don't fragment" as the
//! inner packet has it, source with entropy from the flow's hash so that receivers spread tunnels
//! over their queues.

use crate::address::Address;
use crate::checksum;
use crate::slot::forward_mode;
use crate::wire::{IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, UDP_LEN, ip_proto};
use zerocopy::network_endian::{U16, U32};

/// TTL and hop limit of outer headers and of answers.
pub const TTL: u8 = 64;

/// Outer source addresses: fixed bits, and a mask of those that entropy fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// IPv4 address, network order as loaded.
    pub v4: u32,
    /// IPv4 bits that are filled from the hash, network order as loaded.
    pub v4_mask: u32,
    /// IPv6 address, network order as loaded.
    pub v6: [u32; 4],
    /// Bits of the last word that are filled from the hash, network order as loaded.
    pub v6_mask: u32,
}

/// What the outer header needs to know of the packet.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Bytes of the IP packet.
    pub length: u16,
    /// Whether it is IPv4.
    pub is_v4: bool,
    /// Its type of service or traffic class.
    pub tos: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
    /// Its IPv4 identification as loaded.
    pub id: u16,
}

/// Outer IPv4 header around an IP packet.
#[inline(always)]
pub fn outer_v4(inner: &Inner, backend: Address, sources: &Sources, entropy: u64) -> Ipv4 {
    ipv4(inner, backend, sources, entropy, ip_proto::IPIP, 0)
}

/// Outer IPv4 header; `between` bytes lie between it and the packet, and are of `protocol`.
#[inline(always)]
pub fn ipv4(
    inner: &Inner,
    backend: Address,
    sources: &Sources,
    entropy: u64,
    protocol: u8,
    between: u16,
) -> Ipv4 {
    let source = sources.v4 ^ ((entropy as u32) & sources.v4_mask);
    let total = inner
        .length
        .wrapping_add(between)
        .wrapping_add(IPV4_LEN as u16);
    let (flags, id) = if inner.dont_fragment {
        (Ipv4::DONT_FRAGMENT, 0)
    } else {
        (0, inner.id)
    };
    let destination = backend.words()[3];
    let [length_high, length_low] = total.to_be_bytes();
    let [flags_high, flags_low] = flags.to_be_bytes();
    let sum = u64::from(u16::from_ne_bytes([0x45, inner.tos]))
        + u64::from(u16::from_ne_bytes([length_high, length_low]))
        + u64::from(id)
        + u64::from(u16::from_ne_bytes([flags_high, flags_low]))
        + u64::from(u16::from_ne_bytes([TTL, protocol]))
        + checksum::word(source)
        + checksum::word(destination);
    Ipv4 {
        version_ihl: 0x45,
        tos: inner.tos,
        total_length: U16::new(total),
        id: id.to_ne_bytes(),
        fragment: U16::new(flags),
        ttl: TTL,
        protocol,
        checksum: checksum::fold(sum).to_ne_bytes(),
        source: source.to_ne_bytes(),
        destination: destination.to_ne_bytes(),
    }
}

/// Outer IPv6 header around an IP packet.
#[inline(always)]
pub fn outer_v6(inner: &Inner, backend: Address, sources: &Sources, entropy: u64) -> Ipv6 {
    let protocol = if inner.is_v4 {
        ip_proto::IPIP
    } else {
        ip_proto::IPV6
    };
    ipv6(inner, backend, sources, entropy, protocol, 0)
}

/// Outer IPv6 header; `between` bytes lie between it and the packet, and are of `protocol`.
#[inline(always)]
pub fn ipv6(
    inner: &Inner,
    backend: Address,
    sources: &Sources,
    entropy: u64,
    protocol: u8,
    between: u16,
) -> Ipv6 {
    let [a, b, c, d] = sources.v6;
    let source = Address::from_words([a, b, c, d ^ ((entropy as u32) & sources.v6_mask)]);
    let flow_label = (entropy >> 32) as u32 & 0x000f_ffff;
    Ipv6 {
        version_class_flow: U32::new(0x6000_0000 | u32::from(inner.tos) << 20 | flow_label),
        payload_length: U16::new(inner.length.wrapping_add(between)),
        next_header: protocol,
        hop_limit: TTL,
        source: source.v6_bytes(),
        destination: backend.v6_bytes(),
    }
}

/// Bytes that encap adds for a backend of this family.
#[inline(always)]
pub const fn overhead(backend_is_v4: bool) -> u16 {
    if backend_is_v4 {
        IPV4_LEN as u16
    } else {
        IPV6_LEN as u16
    }
}

/// Bytes that a forwarding mode adds for a backend of this family.
#[inline(always)]
pub const fn added(forward: u8, backend_is_v4: bool) -> u16 {
    match forward {
        forward_mode::IPIP => overhead(backend_is_v4),
        forward_mode::GUE => overhead(backend_is_v4) + UDP_LEN as u16,
        _ => 0,
    }
}
