//! What goes to a backend: modes, families, protocols, ports, headers, next hops, fragments.

use lb_common::counter::Reason;
use lb_common::slot::member_state;
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, Ip, frame, ip, tcp, tcp_with, udp, udp_with};
use lb_tests::rows::{Out, Row, judge, run};
use lb_userspace::kernel::probe::{Action, Ask};

use crate::world::{addr, hop_by, set_state, tcp_in, to, udp_in, world};

fn chain(kinds: &[u8]) -> Ip {
    let extensions = kinds.iter().map(|kind| (*kind, vec![0; 6])).collect();
    Ip {
        extensions,
        ..Ip::default()
    }
}

fn modes() -> Vec<Row> {
    let (a, b) = (to("203.0.113.1:80"), to("[2001:db8::1]:80"));
    let (c, d) = (to("203.0.113.2:80"), to("[2001:db8::2]:80"));
    let e = to("203.0.113.3:80");
    let (near, near6) = (("l2-v4", "near"), ("l2-v6", "near6"));
    let (far, far6, mixed) = (("t44", "far"), ("t66", "far6"), ("t46", "far6"));
    let (v4, v6) = ("10.0.2.1", "fd00:2::1");
    let mut rows = Vec::new();
    for flags in [
        Flags::Syn,
        Flags::Ack,
        Flags::PshAck,
        Flags::FinAck,
        Flags::Rst,
        Flags::RstAck,
    ] {
        rows.extend([
            Row::sent("l2 v4", near, Out::L2, tcp(a, flags, b"data")),
            Row::sent("l2 v6", near6, Out::L2, tcp(b, flags, b"data")),
            Row::sent("4in4", far, tcp_in(c, v4), tcp(c, flags, b"data")),
            Row::sent("6in6", far6, tcp_in(d, v6), tcp(d, flags, b"data")),
            Row::sent("4in6", mixed, tcp_in(e, v6), tcp(e, flags, b"data")),
        ]);
    }
    let (c, d) = (to("203.0.113.2:53"), to("[2001:db8::2]:53"));
    rows.extend([
        Row::sent(
            "UDP 4in4",
            ("t44-udp", "far"),
            udp_in(c, v4),
            udp(c, b"question"),
        ),
        Row::sent(
            "UDP 6in6",
            ("t66-udp", "far6"),
            udp_in(d, v6),
            udp(d, b"question"),
        ),
        Row::sent("empty UDP", ("t44-udp", "far"), udp_in(c, v4), udp(c, &[])),
    ]);
    rows
}

fn ports() -> Vec<Row> {
    let any = |port| to("203.0.113.4:1").receiver_port(port);
    let any6 = to("[2001:db8::4]:9999");
    let (near, exact) = (("any", "near"), ("exact", "far"));
    let https = any(443);
    vec![
        Row::sent(
            "port 0 takes any",
            near,
            Out::L2,
            tcp(any(80), Flags::Syn, &[]),
        ),
        Row::sent(
            "the highest too",
            near,
            Out::L2,
            tcp(any(65_535), Flags::Syn, &[]),
        ),
        Row::sent("and 0 itself", near, Out::L2, tcp(any(0), Flags::Syn, &[])),
        Row::sent(
            "exact wins",
            exact,
            tcp_in(https, "10.0.2.1"),
            tcp(https, Flags::Syn, &[]),
        ),
        Row::sent(
            "port 0 v6 UDP",
            ("any-v6", "near6"),
            Out::L2,
            udp(any6, b"x"),
        ),
    ]
}

fn headers() -> Vec<Row> {
    let (a, c) = (to("203.0.113.1:80"), to("203.0.113.2:80"));
    let (d, e) = (to("[2001:db8::2]:80"), to("203.0.113.3:80"));
    let (far, far6, mixed) = (("t44", "far"), ("t66", "far6"), ("t46", "far6"));
    let (v4, v6) = ("10.0.2.1", "fd00:2::1");
    let tos = Ip {
        tos: 0xb9,
        ..Ip::default()
    };
    let loose = Ip {
        dont_fragment: false,
        id: 0xbeef,
        ..Ip::default()
    };
    let old = Ip {
        ttl: 1,
        ..Ip::default()
    };
    let options = |words: usize| Ip {
        options: vec![1; words * 4],
        ..Ip::default()
    };
    let sent = Row::sent;
    let with = |header: &Ip, talk| tcp_with(header, talk, Flags::Ack, b"data");
    let padded = |frame: Vec<u8>| [&frame[..], &[0xa5; 9]].concat();
    vec![
        sent("ToS is copied", far, tcp_in(c, v4), with(&tos, c)),
        sent(
            "traffic class is copied",
            far6,
            tcp_in(d, v6),
            with(&tos, d),
        ),
        sent(
            "ToS becomes traffic class",
            mixed,
            tcp_in(e, v6),
            with(&tos, e),
        ),
        sent(
            "without DF the id is copied",
            far,
            tcp_in(c, v4),
            with(&loose, c),
        ),
        sent("without DF, 4in6", mixed, tcp_in(e, v6), with(&loose, e)),
        sent("inner TTL stays, even 1", far, tcp_in(c, v4), with(&old, c)),
        sent(
            "inner TTL stays by l2",
            ("l2-v4", "near"),
            Out::L2,
            with(&old, a),
        ),
        sent(
            "options of 4 bytes",
            far,
            tcp_in(c, v4),
            with(&options(1), c),
        ),
        sent(
            "options of 40 bytes",
            far,
            tcp_in(c, v4),
            with(&options(10), c),
        ),
        sent(
            "options and UDP",
            ("t44-udp", "far"),
            udp_in(c.receiver_port(53), v4),
            udp_with(&options(3), c.receiver_port(53), b"x"),
        ),
        sent("hop-by-hop", far6, tcp_in(d, v6), with(&chain(&[0]), d)),
        sent(
            "routing header",
            far6,
            tcp_in(d, v6),
            with(&chain(&[43]), d),
        ),
        sent(
            "destination options",
            far6,
            tcp_in(d, v6),
            with(&chain(&[60]), d),
        ),
        sent(
            "four of them",
            far6,
            tcp_in(d, v6),
            with(&chain(&[0, 60, 43, 60]), d),
        ),
        sent(
            "padding behind the packet stays, by l2",
            ("l2-v4", "near"),
            Out::L2,
            padded(with(&tos, a)),
        ),
        sent("and in a tunnel", far, tcp_in(c, v4), padded(with(&tos, c))),
    ]
}

fn fragments() -> Vec<Row> {
    let (client, vip) = (addr("198.51.100.7"), addr("203.0.113.2"));
    let v4 = |protocol, more, offset| {
        let header = Ip {
            more,
            offset,
            dont_fragment: false,
            ..Ip::default()
        };
        frame(&ip(&header, client, vip, protocol, &[0; 64]))
    };
    let v6 = |kinds: &[u8]| tcp_with(&chain(kinds), to("[2001:db8::2]:80"), Flags::Ack, &[0; 24]);
    let drop = |about, frame| Row::drop(about, Reason::Fragment, "", frame);
    vec![
        drop("first fragment", v4(6, true, 0)),
        drop("middle fragment", v4(6, true, 8)),
        drop("last fragment", v4(6, false, 8)),
        drop("UDP fragment", v4(17, true, 0)),
        drop("ICMP fragment", v4(1, true, 0)),
        drop("IPv6 fragment", v6(&[44])),
        drop("IPv6 fragment behind another header", v6(&[0, 44])),
    ]
}

#[test]
fn packets_to_vips_reach_their_backend() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    for rows in [modes(), ports(), headers(), fragments()] {
        run(&bench, &image, &rows);
    }
}

/// The largest packet that fits and the smallest that does not; the latter's answer is in `icmp`.
#[test]
fn mtus_next_hops_and_backends_that_are_down() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    let (a, c, d) = (
        to("203.0.113.1:80"),
        to("203.0.113.2:80"),
        to("[2001:db8::2]:80"),
    );
    let segment = |talk, ip_length: usize| {
        let headers = if talk == d { 60 } else { 40 };
        tcp(talk, Flags::Ack, &vec![7; ip_length - headers])
    };
    run(
        &bench,
        &image,
        &[
            Row::sent("1500 by l2", ("l2-v4", "near"), Out::L2, segment(a, 1500)),
            Row::sent(
                "1480 in 4in4",
                ("t44", "far"),
                tcp_in(c, "10.0.2.1"),
                segment(c, 1480),
            ),
            Row::sent(
                "1460 in 6in6",
                ("t66", "far6"),
                tcp_in(d, "fd00:2::1"),
                segment(d, 1460),
            ),
        ],
    );

    hop_by(&bench, 1, 7);
    let row = Row::sent(
        "by another interface",
        ("l2-v4", "near"),
        Out::L2,
        segment(a, 100),
    );
    judge(
        &bench,
        &image,
        &Row {
            verdict: Action::Redirect,
            ..row
        },
        Ask::default(),
    );

    bench.set_hop(1, 1500, false);
    let unresolved = |about, vip, backend, talk| {
        Row::drop(about, Reason::NoNextHop, vip, segment(talk, 100)).of(vip, backend)
    };
    run(
        &bench,
        &image,
        &[
            unresolved("no next hop, l2", "l2-v4", "near", a),
            unresolved("no next hop, ipip", "t44", "far", c),
            unresolved("no next hop, v6", "t66", "far6", d),
        ],
    );

    bench.set_hop(1, 1500, true);
    set_state(&bench, &image, "far", member_state::DOWN);
    let gone = Row::drop(
        "its only backend is down",
        Reason::NoBackend,
        "t44",
        segment(c, 100),
    );
    run(&bench, &image, &[gone]);
    set_state(&bench, &image, "far", member_state::UP);
    let back = Row::sent(
        "and up again",
        ("t44", "far"),
        tcp_in(c, "10.0.2.1"),
        segment(c, 100),
    );
    run(&bench, &image, &[back]);
}
