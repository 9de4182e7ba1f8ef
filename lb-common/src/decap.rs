//! The backend's side of a tunnel: what an outer header is, and what removing it does to the inner
//! one (RFC 2003 and 2473 for the formats, RFC 6040 for ECN).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Address;
use crate::checksum;
use crate::gue;
use crate::wire::{
    ETHERNET_LEN, Ethernet, Frame, IPV6_LEN, Ipv4, Ipv6, UDP_LEN, Udp, ether_type, ip_proto,
};

/// What the decap program is told, the only element of its map `SETTINGS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// 1: only tunnels to an address in the map `DESTINATIONS`; 0: to any.
    pub check_destination: u32,
    /// 1: only tunnels from a prefix in the map `SOURCES`; 0: from any.
    pub check_source: u32,
}

const _: () = assert!(size_of::<Settings>() == 8);

#[cfg(feature = "user")]
// SAFETY: two words without padding; every bit pattern is valid.
unsafe impl aya::Pod for Settings {}

/// What became of a packet at the decap program; the number is the index of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// The outer header was removed.
    Decapped = 0,
    /// No tunnel, or not one to this host: left alone.
    Passed = 1,
    /// From a source that may not tunnel to this host: dropped.
    Refused = 2,
    /// A fragment of an outer packet: left to the stack.
    Fragment = 3,
    /// Ends within a header, or holds another version than it says: dropped.
    Malformed = 4,
    /// Marked for congestion on the way, but the inner sender does not know ECN: dropped
    /// (RFC 6040, 4.2).
    Congestion = 5,
}

/// Number of [`Outcome`]s.
pub const OUTCOMES: usize = 6;

/// Their names, by number.
pub const OUTCOME_NAMES: [&str; OUTCOMES] = [
    "decapped",
    "passed",
    "refused",
    "fragment",
    "malformed",
    "congestion",
];

/// An outer header with the packet that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Outer source.
    pub source: Address,
    /// Outer destination.
    pub destination: Address,
    /// ECN bits of the outer header.
    pub ecn: u8,
    /// Bytes of the outer headers: 20 to 196.
    pub length: usize,
    /// EtherType of what it carries.
    pub inner: u16,
}

/// Reads the outer header of an Ethernet frame.
///
/// # Errors
/// What becomes of a packet that is no tunnel that can be opened: IPv6 in IPv4 is not opened, nor
/// are VLAN tags and IPv6 extension headers between the two.
#[inline(always)]
pub fn tunnel<F: Frame + ?Sized>(frame: &F) -> Result<Tunnel, Outcome> {
    let ethernet: Ethernet = frame.read(0).ok_or(Outcome::Passed)?;
    match ethernet.ether_type.get() {
        ether_type::IPV4 => tunnel_v4(frame),
        ether_type::IPV6 => tunnel_v6(frame),
        _ => Err(Outcome::Passed),
    }
}

#[inline(always)]
fn tunnel_v4<F: Frame + ?Sized>(frame: &F) -> Result<Tunnel, Outcome> {
    let outer: Ipv4 = frame.read(ETHERNET_LEN).ok_or(Outcome::Passed)?;
    if !matches!(outer.protocol, ip_proto::IPIP | ip_proto::UDP) {
        return Err(Outcome::Passed);
    }
    let length = usize::from(outer.version_ihl & 0x0f) << 2;
    if length < size_of::<Ipv4>() || outer.version_ihl >> 4 != 4 {
        return Err(Outcome::Malformed);
    }
    if outer.fragment.get() & (Ipv4::MORE_FRAGMENTS | Ipv4::OFFSET_MASK) != 0 {
        // Any datagram may be fragmented: it is nothing to count.
        let tunnel = outer.protocol == ip_proto::IPIP;
        return Err(if tunnel {
            Outcome::Fragment
        } else {
            Outcome::Passed
        });
    }
    let (length, inner) = match outer.protocol {
        ip_proto::UDP => gue(frame, length)?,
        _ => (length, ether_type::IPV4),
    };
    Ok(Tunnel {
        source: Address::v4(outer.source),
        destination: Address::v4(outer.destination),
        ecn: outer.tos & 3,
        length,
        inner,
    })
}

#[inline(always)]
fn tunnel_v6<F: Frame + ?Sized>(frame: &F) -> Result<Tunnel, Outcome> {
    let outer: Ipv6 = frame.read(ETHERNET_LEN).ok_or(Outcome::Passed)?;
    let (length, inner) = match outer.next_header {
        ip_proto::IPIP => (IPV6_LEN, ether_type::IPV4),
        ip_proto::IPV6 => (IPV6_LEN, ether_type::IPV6),
        ip_proto::UDP => gue(frame, IPV6_LEN)?,
        ip_proto::FRAGMENT => return Err(Outcome::Fragment),
        _ => return Err(Outcome::Passed),
    };
    Ok(Tunnel {
        source: Address::v6(outer.source),
        destination: Address::v6(outer.destination),
        ecn: outer.traffic_class() & 3,
        length,
        inner,
    })
}

/// Bytes of a GUE header of variant 0 without fields.
const GUE_LEN: usize = 4;
/// Its bit for control messages, and the bits of its length in 4-byte units.
const GUE_CONTROL: u8 = 0x20;
const GUE_FIELDS: u8 = 0x1f;

/// Bytes of all headers up to the packet in a GUE packet whose IP header has `length`, and its
/// EtherType. Variant 0 has a header of its own, variant 1 none; both are opened. The UDP checksum is
/// not looked at: zero is right too (RFC 6935), and the packet inside has its own.
#[inline(always)]
fn gue<F: Frame + ?Sized>(frame: &F, length: usize) -> Result<(usize, u16), Outcome> {
    let offset = ETHERNET_LEN + length;
    let udp: Udp = frame.read(offset).ok_or(Outcome::Passed)?;
    if udp.ports.destination != gue::PORT.to_be_bytes() {
        return Err(Outcome::Passed);
    }
    let head: [u8; GUE_LEN] = frame.read(offset + UDP_LEN).ok_or(Outcome::Malformed)?;
    let length = length + UDP_LEN;
    match head[0] >> 4 {
        4 => return Ok((length, ether_type::IPV4)),
        6 => return Ok((length, ether_type::IPV6)),
        0..=3 => {}
        _ => return Err(Outcome::Malformed),
    }
    let length = length + GUE_LEN + usize::from(head[0] & GUE_FIELDS) * 4;
    match head[1] {
        _ if head[0] & GUE_CONTROL != 0 => Err(Outcome::Passed),
        ip_proto::IPIP => Ok((length, ether_type::IPV4)),
        ip_proto::IPV6 => Ok((length, ether_type::IPV6)),
        _ => Err(Outcome::Passed),
    }
}

/// ECN code points (RFC 3168).
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const CE: u8 = 3;

/// The inner header's ECN bits after the outer ones are gone (RFC 6040, figure 4), or `None`: drop.
#[inline(always)]
pub const fn ecn(outer: u8, inner: u8) -> Option<u8> {
    match (outer & 3, inner & 3) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, inner) if inner != NOT_ECT && inner != CE => Some(ECT_1),
        (_, inner) => Some(inner),
    }
}

/// An inner IPv4 header with other ECN bits, and the checksum for it.
#[inline(always)]
pub fn mark_v4(mut header: Ipv4, ecn: u8) -> Ipv4 {
    let old = u16::from_ne_bytes([header.version_ihl, header.tos]);
    header.tos = (header.tos & !3) | ecn;
    let new = u16::from_ne_bytes([header.version_ihl, header.tos]);
    let sum = checksum::update(u16::from_ne_bytes(header.checksum), old, new);
    header.checksum = sum.to_ne_bytes();
    header
}

/// An inner IPv6 header with other ECN bits.
#[inline(always)]
pub fn mark_v6(mut header: Ipv6, ecn: u8) -> Ipv6 {
    let word = header.version_class_flow.get() & !(3 << 20);
    header.version_class_flow.set(word | (u32::from(ecn) << 20));
    header
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::PacketBuilder;
    use zerocopy::FromBytes as _;

    use super::*;

    fn udp_v4(ttl: u8) -> Vec<u8> {
        let builder = PacketBuilder::ipv4([192, 0, 2, 1], [203, 0, 113, 10], ttl).udp(1, 2);
        let mut packet = Vec::new();
        builder.write(&mut packet, b"hello").unwrap();
        packet
    }

    fn in_ethernet(ether_type: u16, parts: &[&[u8]]) -> Vec<u8> {
        let mut frame = std::vec![0; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(parts.concat());
        frame
    }

    fn outer_v4(protocol: u8, tos: u8) -> Vec<u8> {
        let mut header = std::vec![0x45, tos, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        header.extend([10, 0, 1, 2, 10, 0, 1, 11]);
        header
    }

    #[test]
    fn finds_four_in_four_with_and_without_options() {
        let mut outer = outer_v4(4, 1);
        let frame = in_ethernet(0x0800, &[&outer, &udp_v4(9)]);
        let found = tunnel(frame.as_slice()).unwrap();
        assert_eq!((found.length, found.inner, found.ecn), (20, 0x0800, 1));
        assert_eq!(found.destination, Address::v4([10, 0, 1, 11]));
        outer[0] = 0x46;
        outer.extend([1, 1, 1, 1]);
        let frame = in_ethernet(0x0800, &[&outer, &udp_v4(9)]);
        assert_eq!(tunnel(frame.as_slice()).unwrap().length, 24);
    }

    #[test]
    fn finds_what_is_in_gue() {
        type Case<'a> = (&'a [&'a [u8]], Result<(usize, u16), Outcome>);
        let inner = udp_v4(9);
        let six = [&[0x60_u8; 1][..], &[0; 39]].concat();
        let udp = |port: u16| [&[0xc0, 1][..], &port.to_be_bytes(), &[0, 99, 0, 0]].concat();
        let zero = |first: u8, protocol: u8| [&[first, protocol, 0, 0][..], &[7; 8]].concat();
        // (behind the UDP header, what is found: bytes of headers, EtherType)
        let cases: [Case<'_>; 8] = [
            (&[&inner], Ok((28, 0x0800))),
            (&[&six], Ok((28, 0x86dd))),
            (&[&zero(2, 4), &inner], Ok((40, 0x0800))),
            (&[&zero(0, 41)[..4], &six], Ok((32, 0x86dd))),
            (&[&zero(0x20, 4), &inner], Err(Outcome::Passed)),
            (&[&zero(0, 17), &inner], Err(Outcome::Passed)),
            (&[&[0x80; 40]], Err(Outcome::Malformed)),
            (&[&[0x45]], Err(Outcome::Malformed)),
        ];
        for (parts, wanted) in cases {
            let (ip, udp) = (outer_v4(17, 0), udp(6080));
            let parts = [&[&ip[..], &udp], parts].concat();
            let frame = in_ethernet(0x0800, &parts);
            let found = tunnel(frame.as_slice()).map(|found| (found.length, found.inner));
            assert_eq!(found, wanted, "{parts:x?}");
        }
        let other = in_ethernet(0x0800, &[&outer_v4(17, 0), &udp(53), &inner]);
        assert_eq!(tunnel(other.as_slice()), Err(Outcome::Passed));
    }

    #[test]
    fn leaves_everything_else() {
        let plain = in_ethernet(0x0800, &[&udp_v4(9)]);
        let six_in_four = in_ethernet(0x0800, &[&outer_v4(41, 0), &[0x60; 40]]);
        let arp = in_ethernet(0x0806, &[&[0; 28]]);
        for frame in [&plain[..], &six_in_four, &arp, &[0; 5]] {
            assert_eq!(tunnel(frame), Err(Outcome::Passed));
        }
        let mut fragment = outer_v4(4, 0);
        fragment[6] = 0x20;
        let fragment = in_ethernet(0x0800, &[&fragment, &udp_v4(9)]);
        assert_eq!(tunnel(fragment.as_slice()), Err(Outcome::Fragment));
        let mut short = outer_v4(4, 0);
        short[0] = 0x44;
        let short = in_ethernet(0x0800, &[&short, &udp_v4(9)]);
        assert_eq!(tunnel(short.as_slice()), Err(Outcome::Malformed));
    }

    /// RFC 6040, figure 4: rows are the inner, columns the outer code point, both in the order
    /// Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn ecn_is_the_table_of_rfc_6040() {
        const ORDER: [u8; 4] = [0, 2, 1, 3];
        let table = [
            [Some(0), Some(0), Some(0), None],
            [Some(2), Some(2), Some(1), Some(3)],
            [Some(1), Some(1), Some(1), Some(3)],
            [Some(3), Some(3), Some(3), Some(3)],
        ];
        for (row, inner) in table.iter().zip(ORDER) {
            for (expected, outer) in row.iter().zip(ORDER) {
                assert_eq!(ecn(outer, inner), *expected, "inner {inner} outer {outer}");
            }
        }
    }

    #[test]
    fn a_marked_header_has_a_right_checksum() {
        for ttl in 0..=255 {
            let (header, _) = Ipv4::read_from_prefix(&udp_v4(ttl)).unwrap();
            let marked = mark_v4(header, 3);
            assert_eq!(marked.tos & 3, 3);
            assert_eq!(checksum::fold(checksum::bytes(marked.as_bytes())), 0);
        }
    }
}
