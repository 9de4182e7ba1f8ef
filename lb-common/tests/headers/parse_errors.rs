//! ICMP errors: which flow they are about.

use lb_common::evidence::IcmpError;
use lb_common::packet::{Kind, Role, Skip};

use crate::packets::{Flags, Ip, Talk, icmp_raw, inner, ip, tcp, tcp_segment, too_big, udp};
use crate::seen::{addr, flow, key, kind, parse, v4, v6};

/// What a router sends to the VIP about a packet that the VIP sent to its client.
fn about(talk: Talk, quote: &[u8]) -> Vec<u8> {
    let router = if talk.to.is_ipv4() {
        addr("192.0.2.99")
    } else {
        addr("2001:db8:99::1")
    };
    too_big(router, talk.to.ip(), 1400, quote)
}

/// The packet that the VIP sent.
fn sent(talk: Talk, payload: &[u8]) -> Vec<u8> {
    inner(&tcp(talk.back(), Flags::Ack, payload)).to_vec()
}

#[test]
fn an_error_is_about_the_client_s_flow() {
    for talk in [v4(), v6()] {
        let seen = flow(&about(talk, &sent(talk, &[0; 500])));
        assert_eq!((seen.flow, seen.role), (key(talk, 6), Role::Error));
        let datagram = inner(&udp(talk.back(), &[0; 500])).to_vec();
        assert_eq!(flow(&about(talk, &datagram)).flow, key(talk, 17));
    }
}

/// Regression test of the anchor's defect 1: RFC 792 promises the quoted IP header and 8 bytes of
/// what follows, so 8 bytes of TCP must do. Dropping these makes a PMTU black hole.
#[test]
fn defect_1_eight_bytes_of_tcp_are_enough() {
    let quote = &sent(v4(), &[0; 500])[..20 + 8];
    assert_eq!(flow(&about(v4(), quote)).flow, key(v4(), 6));
    let quote = &sent(v6(), &[0; 500])[..40 + 8];
    assert_eq!(flow(&about(v6(), quote)).flow, key(v6(), 6));
}

#[test]
fn a_quote_that_ends_before_the_ports_says_nothing() {
    for length in 0..20 + 4 {
        let quote = &sent(v4(), &[])[..length];
        assert_eq!(kind(&about(v4(), quote)), Err(Skip::Icmp), "{length} bytes");
    }
    for length in 0..40 + 4 {
        let quote = &sent(v6(), &[])[..length];
        assert_eq!(kind(&about(v6(), quote)), Err(Skip::Icmp), "{length} bytes");
    }
}

/// Bytes behind the packet are no part of its quote.
#[test]
fn no_port_is_read_from_behind_the_error() {
    let frame = about(v4(), &sent(v4(), &[])[..20 + 3]);
    assert_eq!(kind(&[&frame[..], &[0; 40]].concat()), Err(Skip::Icmp));
    let frame = about(v6(), &sent(v6(), &[])[..40 + 3]);
    assert_eq!(kind(&[&frame[..], &[0; 40]].concat()), Err(Skip::Icmp));
}

#[test]
fn quotes_with_options() {
    let segment = tcp_segment(v4().back(), Flags::Ack, &[]);
    for words in 1..=10 {
        let header = Ip {
            options: vec![1; words * 4],
            ..Ip::default()
        };
        let quote = ip(&header, v4().to.ip(), v4().from.ip(), 6, &segment);
        let cut = &quote[..20 + words * 4 + 8];
        assert_eq!(flow(&about(v4(), cut)).flow, key(v4(), 6), "{words} words");
    }
}

#[test]
fn a_quoted_first_fragment_has_ports_and_a_later_one_has_none() {
    let segment = tcp_segment(v4().back(), Flags::Ack, &[0; 44]);
    let quote = |more, offset| {
        let header = Ip {
            more,
            offset,
            dont_fragment: false,
            ..Ip::default()
        };
        ip(&header, v4().to.ip(), v4().from.ip(), 6, &segment)
    };
    assert_eq!(flow(&about(v4(), &quote(true, 0))).flow, key(v4(), 6));
    assert_eq!(kind(&about(v4(), &quote(true, 5))), Err(Skip::Icmp));
    assert_eq!(kind(&about(v4(), &quote(false, 5))), Err(Skip::Icmp));
    // In IPv6 the fragment header stands where the ports would be.
    let header = Ip {
        extensions: vec![(44, vec![0; 6])],
        ..Ip::default()
    };
    let quote = ip(
        &header,
        v6().to.ip(),
        v6().from.ip(),
        6,
        &tcp_segment(v6(), Flags::Ack, &[]),
    );
    assert_eq!(kind(&about(v6(), &quote)), Err(Skip::Icmp));
}

/// Whoever quotes a packet that the addressed host has not sent errs or lies.
#[test]
fn a_foreign_quote_is_left_to_the_stack() {
    for (talk, other) in [
        (v4(), Talk::new("198.51.100.7:40000", "203.0.113.11:80")),
        (
            v6(),
            Talk::new("[2001:db8:c::7]:40000", "[2001:db8::11]:80"),
        ),
    ] {
        assert_eq!(kind(&about(talk, &sent(other, &[]))), Err(Skip::Icmp));
        // The direction matters too: this one the client sent.
        assert_eq!(kind(&about(talk, &sent(talk.back(), &[]))), Err(Skip::Icmp));
    }
}

#[test]
fn errors_about_what_is_not_balanced() {
    for protocol in [1, 50, 132, 4] {
        let quote = ip(
            &Ip::default(),
            v4().to.ip(),
            v4().from.ip(),
            protocol,
            &[0; 40],
        );
        assert_eq!(kind(&about(v4(), &quote)), Err(Skip::Icmp), "{protocol}");
    }
    for protocol in [58, 50, 132, 41] {
        let quote = ip(
            &Ip::default(),
            v6().to.ip(),
            v6().from.ip(),
            protocol,
            &[0; 40],
        );
        assert_eq!(kind(&about(v6(), &quote)), Err(Skip::Icmp), "{protocol}");
    }
}

#[test]
fn a_quote_of_another_version_is_refused() {
    let mut quote = sent(v4(), &[]);
    quote[0] = 0x55;
    assert_eq!(kind(&about(v4(), &quote)), Err(Skip::Icmp));
    let mut quote = sent(v4(), &[]);
    quote[0] = 0x44;
    assert_eq!(kind(&about(v4(), &quote)), Err(Skip::Icmp));
    let mut quote = sent(v6(), &[]);
    quote[0] = 0x40;
    assert_eq!(kind(&about(v6(), &quote)), Err(Skip::Icmp));
}

#[test]
fn every_type_of_error_and_every_code() {
    let router = addr("192.0.2.99");
    for number in [3, 11, 12] {
        for code in 0..=16 {
            let frame = icmp_raw(router, v4().to.ip(), number, code, &sent(v4(), &[]));
            assert_eq!(flow(&frame).flow, key(v4(), 6), "type {number} code {code}");
        }
    }
    let router = addr("2001:db8:99::1");
    for number in 1..=4 {
        for code in 0..=8 {
            let frame = icmp_raw(router, v6().to.ip(), number, code, &sent(v6(), &[]));
            assert_eq!(flow(&frame).flow, key(v6(), 6), "type {number} code {code}");
        }
    }
}

/// What we tunnelled to a backend comes back in an error to the tunnel's source.
#[test]
fn an_error_about_a_tunnelled_packet_is_about_the_client_s_flow() {
    let (ours, theirs) = (
        [addr("192.0.2.1"), addr("2001:db8:f::1")],
        [addr("10.0.2.1"), addr("fd00:2::1")],
    );
    // (inner, tunnel protocol, outer family): 4in4, 6in6, 4in6.
    for (talk, protocol, outer) in [(v4(), 4, 0), (v6(), 41, 1), (v4(), 4, 1)] {
        let client = inner(&tcp(talk, Flags::Syn, &[])).to_vec();
        let sent = ip(
            &Ip::default(),
            ours[outer],
            theirs[outer],
            protocol,
            &client,
        );
        for (kinds, error) in [
            ([(3, 2), (4, 1)], IcmpError::Protocol),
            ([(3, 3), (1, 4)], IcmpError::Port),
            ([(3, 1), (1, 3)], IcmpError::Host),
            ([(3, 4), (2, 0)], IcmpError::TooBig),
            ([(11, 0), (3, 0)], IcmpError::Host),
        ] {
            let (kind, code) = kinds[outer];
            let frame = icmp_raw(theirs[outer], ours[outer], kind, code, &sent);
            let (kind, packet) = parse(&frame).unwrap();
            assert_eq!(kind, Kind::TunnelError);
            assert_eq!((packet.flow, packet.error), (key(talk, 6), error));
        }
        // Eight bytes of the client's packet name no flow; another's packets are not ours.
        let short = &sent[..sent.len() - client.len() + 8];
        let frame = icmp_raw(theirs[outer], ours[outer], 3, 2, short);
        assert_eq!(kind(&frame), Err(Skip::Icmp));
        let foreign = ip(
            &Ip::default(),
            theirs[outer],
            ours[outer],
            protocol,
            &client,
        );
        let frame = icmp_raw(theirs[outer], ours[outer], 3, 2, &foreign);
        assert_eq!(kind(&frame), Err(Skip::Icmp));
    }
}
