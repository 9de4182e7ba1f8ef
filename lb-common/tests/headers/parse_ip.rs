//! IPv4 and IPv6 headers: options, lengths, fragments, extension headers.

use lb_common::packet::{Kind, Skip};

use crate::packets::{Flags, Ip, frame, inner, ip, tcp, tcp_segment, tcp_with, udp_with};
use crate::seen::{flow, key, kind, v4, v6};

/// "No operation" options: `words` of them, 4 bytes each.
fn options(words: usize) -> Ip {
    Ip {
        options: vec![1; words * 4],
        ..Ip::default()
    }
}

#[test]
fn every_header_length_with_options() {
    for words in 0..=10 {
        let seen = flow(&tcp_with(&options(words), v4(), Flags::Ack, b"data"));
        assert_eq!(seen.flow, key(v4(), 6), "{words} words");
        assert_eq!(seen.has_options, words > 0);
        assert_eq!(usize::from(seen.payload_offset), 14 + 20 + words * 4);
        assert_eq!(usize::from(seen.ip_length), 20 + words * 4 + 20 + 4);
        let datagram = flow(&udp_with(&options(words), v4(), b"data"));
        assert_eq!(datagram.flow, key(v4(), 17), "{words} words");
    }
}

#[test]
fn header_lengths_below_five_words_are_refused() {
    for words in 0..5u8 {
        let mut frame = tcp(v4(), Flags::Syn, &[]);
        frame[14] = 0x40 | words;
        assert_eq!(kind(&frame), Err(Skip::Runt), "{words} words");
    }
}

#[test]
fn another_version_than_the_ether_type_says_is_refused() {
    for version in (0..16u8).filter(|version| *version != 4) {
        let mut frame = tcp(v4(), Flags::Syn, &[]);
        frame[14] = version << 4 | 5;
        assert_eq!(kind(&frame), Err(Skip::Runt), "version {version}");
    }
    for version in (0..16u8).filter(|version| *version != 6) {
        let mut frame = tcp(v6(), Flags::Syn, &[]);
        frame[14] = version << 4;
        assert_eq!(kind(&frame), Err(Skip::Runt), "version {version}");
    }
}

#[test]
fn total_length_beyond_the_frame_or_below_the_header() {
    let good = tcp(v4(), Flags::Syn, b"abc");
    let right = good.len() - 14;
    for length in [0, 1, 19, right + 1, 65_535] {
        let mut frame = good.clone();
        frame[16..18].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        assert_eq!(kind(&frame), Err(Skip::Runt), "total length {length}");
    }
    let mut frame = tcp_with(&options(3), v4(), Flags::Syn, &[]);
    frame[16..18].copy_from_slice(&31u16.to_be_bytes());
    assert_eq!(kind(&frame), Err(Skip::Runt), "below a header with options");
}

/// What lies behind the IP packet is no part of it, however much it looks like a header.
#[test]
fn no_header_is_read_from_behind_the_ip_packet() {
    for (cut, short) in [
        (tcp(v4(), Flags::Syn, &[]), 14),
        (udp_with(&Ip::default(), v4(), &[]), 8),
    ] {
        for length in 20..20 + short {
            let mut frame = cut.clone();
            frame[16..18].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            assert_eq!(kind(&frame), Err(Skip::Runt), "total length {length}");
        }
    }
    for length in 0..14u16 {
        let mut frame = tcp(v6(), Flags::Syn, &[]);
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        assert_eq!(kind(&frame), Err(Skip::Runt), "payload length {length}");
    }
}

#[test]
fn payload_length_beyond_the_frame() {
    let good = tcp(v6(), Flags::Syn, b"abc");
    let right = good.len() - 54;
    for length in [right + 1, 65_495, 65_496, 65_535] {
        let mut frame = good.clone();
        frame[18..20].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        assert_eq!(kind(&frame), Err(Skip::Runt), "payload length {length}");
    }
}

#[test]
fn ipv4_fragments_first_middle_and_last() {
    let segment = tcp_segment(v4(), Flags::Ack, &[0; 44]);
    let (from, to) = (v4().from.ip(), v4().to.ip());
    for (more, offset) in [(true, 0), (true, 3), (false, 3), (false, 1), (true, 0x1fff)] {
        let header = Ip {
            more,
            offset,
            dont_fragment: false,
            ..Ip::default()
        };
        for protocol in [6, 17, 1, 50] {
            let frame = frame(&ip(&header, from, to, protocol, &segment));
            assert_eq!(
                kind(&frame),
                Ok(Kind::Fragment),
                "{more} {offset} {protocol}"
            );
        }
    }
    let whole = tcp_with(
        &Ip {
            dont_fragment: false,
            ..Ip::default()
        },
        v4(),
        Flags::Ack,
        &[],
    );
    assert!(!flow(&whole).dont_fragment);
}

#[test]
fn fields_of_the_ipv4_header() {
    let header = Ip {
        tos: 0xb9,
        id: 0xbeef,
        dont_fragment: false,
        ..Ip::default()
    };
    let seen = flow(&tcp_with(&header, v4(), Flags::Ack, &[]));
    assert_eq!(
        (seen.tos, seen.id.to_be(), seen.dont_fragment),
        (0xb9, 0xbeef, false)
    );
    assert!(seen.is_v4);
    assert!(flow(&tcp(v4(), Flags::Ack, &[])).dont_fragment);
}

#[test]
fn fields_of_the_ipv6_header() {
    let seen = flow(&tcp_with(
        &Ip {
            tos: 0xb9,
            ..Ip::default()
        },
        v6(),
        Flags::Ack,
        b"12345",
    ));
    assert_eq!(seen.flow, key(v6(), 6));
    assert_eq!((seen.tos, seen.id, seen.dont_fragment), (0xb9, 0, true));
    assert_eq!((seen.ip_length, seen.payload_offset), (40 + 20 + 5, 54));
    assert!(!seen.is_v4 && !seen.has_options);
}

fn chain(kinds: &[u8]) -> Ip {
    let extensions = kinds.iter().map(|kind| (*kind, vec![0; 6])).collect();
    Ip {
        extensions,
        ..Ip::default()
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

#[test]
fn each_extension_header_is_skipped() {
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION] {
        let seen = flow(&tcp_with(&chain(&[kind]), v6(), Flags::Syn, &[]));
        assert_eq!(
            (seen.flow, seen.payload_offset),
            (key(v6(), 6), 62),
            "header {kind}"
        );
        assert_eq!(
            flow(&udp_with(&chain(&[kind]), v6(), &[])).flow,
            key(v6(), 17)
        );
    }
}

#[test]
fn long_extension_headers_are_skipped_by_their_length() {
    for units in [1usize, 2, 31, 255] {
        let header = Ip {
            extensions: vec![(DESTINATION, vec![0; (units + 1) * 8 - 2])],
            ..Ip::default()
        };
        let seen = flow(&tcp_with(&header, v6(), Flags::Syn, &[]));
        assert_eq!(usize::from(seen.payload_offset), 54 + (units + 1) * 8);
    }
}

#[test]
fn chains_of_four_are_walked_and_five_are_left_alone() {
    let four = [HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION];
    let seen = flow(&tcp_with(&chain(&four), v6(), Flags::Syn, &[]));
    assert_eq!((seen.flow, seen.payload_offset), (key(v6(), 6), 54 + 32));
    let five = [HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION, DESTINATION];
    assert_eq!(
        kind(&tcp_with(&chain(&five), v6(), Flags::Syn, &[])),
        Err(Skip::Extensions)
    );
}

#[test]
fn fragment_headers_first_or_behind_others() {
    for kinds in [
        &[FRAGMENT][..],
        &[HOP_BY_HOP, FRAGMENT],
        &[HOP_BY_HOP, ROUTING, FRAGMENT],
    ] {
        let frame = tcp_with(&chain(kinds), v6(), Flags::Ack, &[0; 24]);
        assert_eq!(kind(&frame), Ok(Kind::Fragment), "{kinds:?}");
    }
}

#[test]
fn what_is_no_transport_header_is_no_flow() {
    // No next header, ESP, AH, mobility, SCTP, IP in IP; and the other family's ICMP.
    for protocol in [59, 50, 51, 135, 132, 4, 41, 1] {
        let frame = frame(&ip(
            &Ip::default(),
            v6().from.ip(),
            v6().to.ip(),
            protocol,
            &[0; 40],
        ));
        assert_eq!(kind(&frame), Err(Skip::Protocol), "v6 {protocol}");
        let behind = ip(
            &chain(&[HOP_BY_HOP]),
            v6().from.ip(),
            v6().to.ip(),
            protocol,
            &[0; 40],
        );
        assert_eq!(
            kind(&crate::packets::frame(&behind)),
            Err(Skip::Protocol),
            "v6 {protocol}"
        );
    }
    for protocol in [2, 4, 41, 47, 50, 51, 58, 132, 0, 43, 44, 60, 255] {
        let frame = frame(&ip(
            &Ip::default(),
            v4().from.ip(),
            v4().to.ip(),
            protocol,
            &[0; 40],
        ));
        assert_eq!(kind(&frame), Err(Skip::Protocol), "v4 {protocol}");
    }
}

/// An extension header that ends behind the packet is no way to read another one.
#[test]
fn extension_headers_do_not_lead_out_of_the_packet() {
    let mut frame = tcp_with(&chain(&[DESTINATION]), v6(), Flags::Syn, &[]);
    frame[55] = 200;
    assert_eq!(kind(&frame), Err(Skip::Runt));
    // Nor to a fragment header that is not there.
    let mut fragment = tcp_with(&chain(&[DESTINATION, FRAGMENT]), v6(), Flags::Syn, &[]);
    assert_eq!(kind(&fragment), Ok(Kind::Fragment));
    fragment[55] = 200;
    assert_eq!(kind(&fragment), Err(Skip::Runt));
    // The same with bytes there, behind the end that the IPv6 header tells.
    let padded = [&frame[..], inner(&tcp(v6(), Flags::Syn, &[0; 2000]))].concat();
    assert_eq!(kind(&padded), Err(Skip::Runt));
}
