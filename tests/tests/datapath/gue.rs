//! GUE: outer headers, the checksum of what lies in them, its MTU, and errors about it.

use lb_common::counter::Reason;

use lb_tests::bench::Bench;
use lb_tests::expect::{self, key};
use lb_tests::packets::{Flags, Ip, Talk, icmp_raw, inner, tcp, tcp_with, too_big, udp};
use lb_tests::rows::{Out, Row, run};
use lb_userspace::change::golden;
use lb_userspace::kernel::probe::Action;

use crate::links::{hop, tagged};
use crate::world::{addr, probe, services, to, trial};

const V4: &str = "10.0.2.1";
const V6: &str = "fd00:2::1";

fn world() -> String {
    services(
        &[
            ("g44", "203.0.113.2", 80, "tcp", "p4"),
            ("g44-udp", "203.0.113.2", 53, "udp", "p4"),
            ("g46", "203.0.113.3", 80, "tcp", "p6"),
            ("g46-udp", "203.0.113.3", 53, "udp", "p6"),
            ("g66", "2001:db8::2", 80, "tcp", "p6"),
            ("g66-udp", "2001:db8::2", 53, "udp", "p6"),
        ],
        &[
            ("p4", "gue", &[("far", V4, "")]),
            ("p6", "gue", &[("far6", V6, "")]),
        ],
    )
}

fn sent(name: &'static str, talk: Talk, protocol: u8, bytes: Vec<u8>) -> Row {
    let (member, backend) = if name.contains("44") {
        ("far", V4)
    } else {
        ("far6", V6)
    };
    let out = Out::Gue(key(talk, protocol), addr(backend));
    Row::sent(name, (name, member), out, bytes)
}

/// UDP over IPv4 may have no checksum; over IPv6 tunnels may send none, too (RFC 6935).
fn without_checksum(talk: Talk, data: &[u8]) -> Vec<u8> {
    let mut bytes = udp(talk, data);
    let place = bytes.len() - data.len() - 2;
    bytes[place..].first_chunk_mut::<2>().unwrap().fill(0);
    bytes
}

/// Whatever is inside, the outer checksum is that over all of it, as an independent library has it.
#[test]
fn gue_packets_are_as_an_independent_library_builds_them() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    let (a, b, c) = (
        to("203.0.113.2:80"),
        to("203.0.113.3:80"),
        to("[2001:db8::2]:80"),
    );
    let options = Ip {
        options: vec![1, 1, 1, 0],
        tos: 0xb9,
        ..Ip::default()
    };
    let chain = Ip {
        extensions: vec![(60, vec![0; 6]), (0, vec![0; 6])],
        ..Ip::default()
    };
    let mut rows = Vec::new();
    for data in [&b""[..], b"x", b"odd", &[0xa5; 999], &[0xff; 1300]] {
        rows.push(sent("g44", a, 6, tcp(a, Flags::Ack, data)));
        rows.push(sent("g46", b, 6, tcp(b, Flags::Ack, data)));
        rows.push(sent("g66", c, 6, tcp(c, Flags::Syn, data)));
        rows.push(sent("g44", a, 6, tcp_with(&options, a, Flags::Ack, data)));
        rows.push(sent("g66", c, 6, tcp_with(&chain, c, Flags::Ack, data)));
        for (name, talk) in [("g44-udp", a), ("g46-udp", b), ("g66-udp", c)] {
            let talk = talk.receiver_port(53);
            rows.push(sent(name, talk, 17, udp(talk, data)));
            rows.push(sent(name, talk, 17, without_checksum(talk, data)));
        }
    }
    run(&bench, &image, &rows);
}

/// VIP, backend, protocol, and a packet to the VIP with this much in it: with a checksum of its own, without
/// one, and with headers behind which none is looked for.
fn full(length: usize) -> Vec<(Talk, &'static str, u8, Vec<u8>)> {
    let data: Vec<u8> = (1..=255).cycle().take(length).collect();
    let extensions = Ip {
        extensions: vec![(60, vec![0; 6])],
        ..Ip::default()
    };
    let mut all = Vec::new();
    for (vip, backend) in [
        ("203.0.113.2:80", V4),
        ("203.0.113.3:80", V6),
        ("[2001:db8::2]:80", V6),
    ] {
        let (talk, asks) = (to(vip), to(vip).receiver_port(53));
        all.push((talk, backend, 6, tcp(talk, Flags::Ack, &data)));
        all.push((asks, backend, 17, udp(asks, &data)));
        all.push((asks, backend, 17, without_checksum(asks, &data)));
        if talk.to.is_ipv6() {
            let frame = tcp_with(&extensions, talk, Flags::Ack, &data);
            all.push((talk, backend, 6, frame));
        }
    }
    all
}

/// 9,000 bytes do not lie in one piece, and a checksum over them is summed in many.
#[test]
fn jumbo_frames_have_the_right_checksum() {
    let bench = Bench::new();
    bench.commit(&world());
    hop(&bench, 0, 9_300);
    for length in [8_000, 8_900, 8_901, 8_959, 9_100] {
        for (talk, backend, protocol, frame) in full(length) {
            let (verdict, out) = bench.kernel.prober.run_unmarked(&frame).unwrap();
            assert_eq!(verdict, Action::Tx, "{talk:?} {protocol} {length}");
            let key = key(talk, protocol);
            let expected = expect::gue(&bench.kernel.node, &frame, &key, addr(backend));
            assert!(out == expected, "{talk:?} {protocol} {length}");
        }
    }
}

/// What is too long to be summed is sent without a checksum, which tunnels may do (RFC 768, RFC 6935): a
/// wrong one would be dropped where it arrives.
#[test]
fn packets_too_long_to_be_summed_have_no_checksum_rather_than_a_wrong_one() {
    let bench = Bench::new();
    bench.commit(&world());
    hop(&bench, 0, 20_000);
    let mut without = 0;
    for length in [9_217, 12_000, 16_000] {
        for (talk, backend, protocol, frame) in full(length) {
            let (verdict, out) = bench.kernel.prober.run_unmarked(&frame).unwrap();
            assert_eq!(verdict, Action::Tx, "{talk:?} {protocol} {length}");
            let key = key(talk, protocol);
            let mut expected = expect::gue(&bench.kernel.node, &frame, &key, addr(backend));
            let at = if backend == V4 { 40 } else { 60 };
            if out[at..at + 2] == [0, 0] {
                without += 1;
                expected[at..at + 2].fill(0);
            }
            assert!(out == expected, "{talk:?} {protocol} {length}");
        }
    }
    // Datagrams without a checksum, and what has extension headers.
    assert_eq!(without, 3 * 4);
}

/// A next hop in a VLAN, and tags that packets came with.
#[test]
fn a_next_hop_in_a_vlan_has_gue_packets_tagged() {
    let bench = Bench::new();
    bench.commit(&world());
    let (old, new) = ([0x81, 0, 0x20, 5], [0x81, 0, 0, 100]);
    for length in [10, 1_300] {
        for (talk, backend, protocol, frame) in full(length) {
            let key = key(talk, protocol);
            let plain = expect::gue(&bench.kernel.node, &frame, &key, addr(backend));
            for (vlan, wanted) in [(0, plain.clone()), (100, tagged(&plain, &new))] {
                hop(&bench, vlan, 1500);
                for came in [frame.clone(), tagged(&frame, &old)] {
                    let (verdict, out) = bench.kernel.prober.run_unmarked(&came).unwrap();
                    assert_eq!(verdict, Action::Tx, "{talk:?} {protocol} {length}");
                    assert!(out == wanted, "{talk:?} {protocol} {length} to VLAN {vlan}");
                }
            }
        }
    }
}

/// ICMP has no pseudo-header in IPv4: another balancer took one off all the same.
#[test]
fn defect_2_the_outer_checksum_of_icmp_and_of_datagrams_without_one() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    let mut rows = Vec::new();
    for (name, talk, router) in [
        ("g44", to("203.0.113.2:80"), "192.0.2.99"),
        ("g46", to("203.0.113.3:80"), "192.0.2.99"),
        ("g66", to("[2001:db8::2]:80"), "2001:db8:99::1"),
    ] {
        for length in [28, 48, 120, 200] {
            let quote = inner(&tcp(talk.back(), Flags::Ack, &[0x5a; 1200]))
                [..length.max(if talk.to.is_ipv6() { 48 } else { 28 })]
                .to_vec();
            let error = too_big(addr(router), talk.to.ip(), 1400, &quote);
            rows.push(sent(name, talk, 6, error).because(Reason::IcmpError));
        }
    }
    let talk = to("203.0.113.2:53");
    rows.push(sent(
        "g44-udp",
        talk,
        17,
        without_checksum(talk, b"question"),
    ));
    run(&bench, &image, &rows);
}

/// A flow's datagrams come from one port, flows from many, all of them dynamic ones.
#[test]
fn the_source_port_carries_entropy() {
    let bench = Bench::new();
    bench.commit(&world());
    let port = |client: u16| {
        let talk = to("203.0.113.2:80").sender_port(client);
        let first = probe(&bench, &tcp(talk, Flags::Syn, &[])).packet;
        let next = probe(&bench, &tcp(talk, Flags::Ack, b"data")).packet;
        assert_eq!(first[34..36], next[34..36]);
        u16::from_be_bytes([first[34], first[35]])
    };
    let ports: std::collections::BTreeSet<u16> = (1..=200).map(port).collect();
    assert!(
        ports.len() > 150 && ports.iter().all(|port| *port >= 49_152),
        "{ports:?}"
    );
}

#[test]
fn the_mtu_counts_ip_and_udp() {
    let bench = Bench::new();
    bench.commit(&world());
    for (talk, fits) in [
        (to("203.0.113.2:80"), 1472),
        (to("203.0.113.3:80"), 1452),
        (to("[2001:db8::2]:80"), 1452),
    ] {
        let head = if talk.to.is_ipv4() { 40 } else { 60 };
        let of = |length: usize| probe(&bench, &tcp(talk, Flags::Ack, &vec![1; length - head]));
        assert_eq!(of(fits).reason, Some(Reason::Forwarded), "{talk:?}");
        let answer = of(fits + 1);
        assert_eq!(answer.reason, Some(Reason::TooBig), "{talk:?}");
        let at = if talk.to.is_ipv4() { 40 } else { 60 };
        let said = u16::from_be_bytes([answer.packet[at], answer.packet[at + 1]]);
        assert_eq!(usize::from(said), fits);
    }
}

/// Errors about the tunnel come to its source and are the host's; errors of clients whose port is
/// GUE's are about their flows.
#[test]
fn errors_about_the_tunnel_are_told_from_errors_about_flows() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    let talk = to("203.0.113.2:80");
    let out = expect::gue(
        &bench.kernel.node,
        &tcp(talk, Flags::Ack, b"data"),
        &key(talk, 6),
        addr(V4),
    );
    let quoted = inner(&out);
    let outer_source: [u8; 4] = quoted[12..16].try_into().unwrap();
    let error = |code, quote: &[u8]| icmp_raw(addr(V4), outer_source.into(), 3, code, quote);
    for (code, length) in [(3, quoted.len()), (2, 60), (4, 68), (3, 28)] {
        let decision = probe(&bench, &error(code, &quoted[..length]));
        assert_eq!(decision.reason, Some(Reason::TunnelError), "code {code}");
    }
    // A client's answer port may be 6080.
    let talk = to("203.0.113.2:53").sender_port(6080);
    let quote = inner(&udp(talk.back(), &[7; 64]))[..28].to_vec();
    let error = too_big(addr("192.0.2.99"), talk.to.ip(), 1400, &quote);
    run(
        &bench,
        &image,
        &[sent("g44-udp", talk, 17, error).because(Reason::IcmpError)],
    );
}

#[test]
fn golden_packets_know_gue() {
    let bench = Bench::new();
    let (image, slot) = trial(&bench, &world(), 1);
    let report = golden::run(&bench.kernel, &image, slot).unwrap();
    assert!(report.passed(), "{:#?}", report.failed);
}
