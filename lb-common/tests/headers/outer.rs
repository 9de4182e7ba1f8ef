//! Outer headers, read back by etherparse.

use core::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};
use lb_common::address::Address;
use lb_common::encap::{Inner, Sources, outer_v4, outer_v6, overhead};
use proptest::prelude::*;
use zerocopy::IntoBytes;

const SOURCES: Sources = Sources {
    v4: u32::from_ne_bytes([172, 16, 0, 0]),
    v4_mask: u32::from_ne_bytes([0, 0, 255, 255]),
    v6: [u32::from_ne_bytes([0x20, 1, 0xd, 0xb8]), 0, 0, 0],
    v6_mask: u32::from_ne_bytes([0, 0xff, 0xff, 0xff]),
};

fn inner() -> impl Strategy<Value = Inner> {
    (
        20u16..65_000,
        any::<bool>(),
        any::<u8>(),
        any::<bool>(),
        any::<u16>(),
    )
        .prop_map(|(length, is_v4, tos, dont_fragment, id)| Inner {
            length,
            is_v4,
            tos,
            dont_fragment,
            id,
        })
}

proptest! {
    #[test]
    fn ipv4(inner in inner(), backend: [u8; 4], entropy: u64) {
        let header = outer_v4(&inner, Address::v4(backend), &SOURCES, entropy);
        let (read, rest) = Ipv4Header::from_slice(header.as_bytes()).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read.header_checksum, read.calc_header_checksum());
        prop_assert_eq!(read.total_len, inner.length + overhead(true));
        prop_assert_eq!(read.time_to_live, 64);
        prop_assert_eq!(read.protocol, IpNumber::IPV4);
        prop_assert_eq!(read.dscp.value() << 2 | read.ecn.value(), inner.tos);
        prop_assert_eq!(read.dont_fragment, inner.dont_fragment);
        // RFC 6864: only an atomic datagram may have any identification, such as 0.
        let id = if inner.dont_fragment { 0 } else { u16::from_be(inner.id) };
        prop_assert_eq!(read.identification, id);
        prop_assert!(!read.more_fragments && read.fragment_offset.value() == 0);
        prop_assert_eq!(read.destination, backend);
        prop_assert_eq!(&read.source[..2], &[172, 16]);
    }

    #[test]
    fn ipv6(inner in inner(), backend: [u8; 16], entropy: u64) {
        let header = outer_v6(&inner, Address::v6(backend), &SOURCES, entropy);
        let (read, rest) = Ipv6Header::from_slice(header.as_bytes()).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read.payload_length, inner.length);
        prop_assert_eq!(read.hop_limit, 64);
        prop_assert_eq!(read.traffic_class, inner.tos);
        let next = if inner.is_v4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
        prop_assert_eq!(read.next_header, next);
        prop_assert_eq!(read.destination, backend);
        prop_assert_eq!(&read.source[..13], &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        prop_assert_eq!(read.flow_label.value(), (entropy >> 32) as u32 & 0xf_ffff);
    }

    /// One flow always has the same outer source: its packets must not overtake each other.
    #[test]
    fn entropy_decides_the_source_alone(a in inner(), b in inner(), entropy: u64) {
        let backend = Address::v4([10, 0, 0, 1]);
        let source = |inner| outer_v4(inner, backend, &SOURCES, entropy).source;
        prop_assert_eq!(source(&a), source(&b));
    }
}

/// Without a mask the source is the configured address itself, whatever the flow.
#[test]
fn a_single_source_address_is_kept() {
    let address = IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let fixed = Sources {
        v4: u32::from_ne_bytes([192, 0, 2, 9]),
        v4_mask: 0,
        v6: Address::from(address).words(),
        v6_mask: 0,
    };
    let inner = Inner {
        length: 60,
        is_v4: true,
        tos: 0,
        dont_fragment: true,
        id: 0,
    };
    for entropy in [0, 1, u64::MAX, 0xdead_beef_0bad_cafe] {
        let v4 = outer_v4(&inner, Address::v4([10, 0, 0, 1]), &fixed, entropy);
        assert_eq!(v4.source, [192, 0, 2, 9]);
        let v6 = outer_v6(&inner, Address::v6([9; 16]), &fixed, entropy);
        assert_eq!(IpAddr::from(v6.source), address);
    }
}

/// Flows spread over the whole prefix: 2,000 hashes fill most of 256 values.
#[test]
fn entropy_fills_the_mask() {
    let inner = Inner {
        length: 60,
        is_v4: true,
        tos: 0,
        dont_fragment: true,
        id: 0,
    };
    let sources: std::collections::BTreeSet<[u8; 4]> = (0..2_000u64)
        .map(|n| {
            let entropy = lb_common::hash::finish(n);
            outer_v4(&inner, Address::v4([10, 0, 0, 1]), &SOURCES, entropy).source
        })
        .collect();
    assert!(sources.len() > 1_900, "{}", sources.len());
}
