//! What holds for any bytes and any packet.

use core::net::{IpAddr, SocketAddr};

use lb_common::packet::Role;
use lb_common::wire::Frame;
use proptest::prelude::*;
use zerocopy::{FromBytes, Unaligned};

use crate::packets::{Flags, Ip, Talk, inner, tcp_with, too_big, udp_with};
use crate::seen::{flow, key, parse};

/// A frame that watches what is read of it.
struct Watched<'a> {
    bytes: &'a [u8],
    furthest: core::cell::Cell<usize>,
}

impl Frame for Watched<'_> {
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        let value = self.bytes.read(offset);
        if value.is_some() {
            self.furthest
                .set(self.furthest.get().max(offset + size_of::<T>()));
        }
        value
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }
}

/// Addresses of one family, ports, and a protocol's choice.
fn talk() -> impl Strategy<Value = Talk> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    // The first bit keeps generated addresses from being IPv4-mapped ones, which no host sends.
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(mut a, mut b)| {
        (a[0], b[0]) = (a[0] | 0x80, b[0] | 0x80);
        (IpAddr::from(a), IpAddr::from(b))
    });
    (prop_oneof![v4, v6], any::<u16>(), any::<u16>()).prop_map(|((from, to), source, port)| Talk {
        from: SocketAddr::new(from, source),
        to: SocketAddr::new(to, port),
    })
}

fn header() -> impl Strategy<Value = Ip> {
    let extension = (prop_oneof![Just(0u8), Just(43), Just(60)], 0usize..4)
        .prop_map(|(kind, units)| (kind, vec![0; units * 8 + 6]));
    (
        any::<u8>(),
        any::<u8>(),
        any::<u16>(),
        any::<bool>(),
        0usize..=10,
        prop::collection::vec(extension, 0..=4),
    )
        .prop_map(|(tos, ttl, id, dont_fragment, words, extensions)| Ip {
            tos,
            ttl,
            id,
            dont_fragment,
            options: vec![1; words * 4],
            extensions,
            ..Ip::default()
        })
}

fn flags() -> impl Strategy<Value = (Flags, Role)> {
    prop_oneof![
        Just((Flags::Syn, Role::Syn)),
        Just((Flags::SynAck, Role::Segment)),
        Just((Flags::Ack, Role::Segment)),
        Just((Flags::FinAck, Role::Segment)),
        Just((Flags::Rst, Role::Reset)),
    ]
}

/// Bytes that look like a frame up to a point, so that they lead the parser somewhere.
fn nearly_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(vec![0x08, 0x00, 0x45]),
        Just(vec![0x08, 0x00, 0x4f]),
        Just(vec![0x86, 0xdd, 0x60]),
        Just(vec![]),
    ];
    let protocol = prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 58, 60]);
    let rest = prop::collection::vec(any::<u8>(), 0..300);
    (start, protocol, rest).prop_map(|(start, protocol, rest)| {
        let mut frame = vec![2; 12];
        frame.extend(start);
        frame.extend(rest);
        // Where IPv4 has protocol and fragment offset, and IPv6 the next header.
        let at = if frame.get(12) == Some(&0x08) { 23 } else { 20 };
        if frame.len() > at {
            frame[at] = protocol;
            frame[20] &= if at == 23 { 0 } else { 0xff };
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_survived(frame in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&frame);
    }

    /// Nothing is read behind the end of the IP packet, and what is found lies within it.
    #[test]
    fn nothing_is_read_outside_the_packet(frame in nearly_a_frame(), length: u16, fit: bool) {
        let mut frame = frame;
        if fit {
            // Make the length field one that fits: else nearly all would end there.
            let at = if frame.get(12) == Some(&0x08) { 16 } else { 18 };
            let most = frame.len().saturating_sub(if at == 16 { 14 } else { 54 });
            let length = u16::try_from(usize::from(length) % (most + 1)).unwrap();
            if frame.len() > at + 2 {
                frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
        }
        let watched = Watched { bytes: &frame, furthest: 0.into() };
        let mut packet = lb_common::packet::Packet::EMPTY;
        if lb_common::parse::parse(&watched, &mut packet).is_ok() {
            let end = 14 + usize::from(packet.ip_length);
            prop_assert!(end <= frame.len());
            prop_assert!(watched.furthest.get() <= end);
            prop_assert!(usize::from(packet.payload_offset) <= end);
        }
    }

    #[test]
    fn a_built_packet_is_parsed_as_built(talk in talk(), header in header(), (flags, role) in flags(), payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let seen = flow(&tcp_with(&header, talk, flags, &payload));
        let v4 = talk.to.is_ipv4();
        prop_assert_eq!(seen.flow, key(talk, 6));
        prop_assert_eq!((seen.role, seen.is_v4, seen.tos), (role, v4, header.tos));
        prop_assert_eq!(seen.dont_fragment, !v4 || header.dont_fragment);
        prop_assert_eq!(seen.has_options, v4 && !header.options.is_empty());
        prop_assert_eq!(seen.id, if v4 { header.id.to_be() } else { 0 });
        let datagram = udp_with(&header, talk, &payload);
        let seen = flow(&datagram);
        prop_assert_eq!((seen.flow, seen.role), (key(talk, 17), Role::Datagram));
        prop_assert_eq!(usize::from(seen.ip_length), datagram.len() - 14);
        prop_assert_eq!(usize::from(seen.payload_offset), datagram.len() - payload.len() - 8);
    }

    /// Whatever a flow's packets look like, an error about the answers belongs to the same flow,
    /// with only the 8 bytes that RFC 792 promises.
    #[test]
    fn an_error_yields_the_key_of_the_client_s_own_packet(talk in talk(), mut header in header(), (flags, _) in flags(), tcp: bool, router: u16) {
        header.extensions.clear();
        let client = if tcp {
            tcp_with(&header, talk, flags, &[])
        } else {
            udp_with(&header, talk, &[])
        };
        let answer = if tcp {
            tcp_with(&header, talk.back(), Flags::Ack, &[0; 64])
        } else {
            udp_with(&header, talk.back(), &[0; 64])
        };
        let ip_header = if talk.to.is_ipv4() { 20 + header.options.len() } else { 40 };
        let quote = &inner(&answer)[..ip_header + 8];
        let [a, b] = router.to_be_bytes();
        let router = if talk.to.is_ipv4() {
            IpAddr::from([192, 0, a, b])
        } else {
            IpAddr::from([0x20, 1, a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        };
        let error = flow(&too_big(router, talk.to.ip(), 1400, quote));
        prop_assert_eq!(error.role, Role::Error);
        prop_assert_eq!(error.flow, flow(&client).flow);
    }
}
