//! ICMP: echo requests to VIPs, errors on their way to backends, errors of our own.

use etherparse::{Icmpv4Type, Icmpv6Type};
use lb_common::counter::Reason;
use lb_tests::bench::Bench;
use lb_tests::packets::{
    BALANCER_MAC, Flags, Ip, ROUTER_MAC, Talk, echo, framed, icmp, icmp_raw, inner, tcp, tcp_with,
    too_big, turned, udp,
};
use lb_tests::rows::{Out, Row, run};
use lb_userspace::kernel::probe::Action;

use crate::world::{addr, probe, tcp_in, to, udp_in, world};

/// An echo request and its whole answer, all checksums computed anew by etherparse.
fn ping(about: &'static str, header: &Ip, from: &str, to: &str, payload: &[u8]) -> Row {
    let (from, to) = (addr(from), addr(to));
    let answer = Ip {
        ttl: 64,
        ..header.clone()
    };
    Row::reply(
        about,
        Reason::EchoReply,
        echo(header, from, to, false, payload),
        turned(&echo(&answer, to, from, true, payload)),
    )
}

fn pings() -> Vec<Row> {
    let (c4, c6) = ("198.51.100.7", "2001:db8:c::7");
    let usual = Ip::default();
    let odd = Ip {
        tos: 0xb9,
        ttl: 255,
        dont_fragment: false,
        ..Ip::default()
    };
    let options = Ip {
        options: vec![1; 12],
        ..Ip::default()
    };
    let hop_by_hop = Ip {
        extensions: vec![(0, vec![0; 6])],
        ..Ip::default()
    };
    vec![
        ping("l2 VIP", &usual, c4, "203.0.113.1", b"abcdefgh"),
        ping("ipip VIP", &usual, c4, "203.0.113.2", b"abcdefgh"),
        ping("port-0 VIP", &usual, c4, "203.0.113.4", b"abcdefgh"),
        ping("v6 VIP", &usual, c6, "2001:db8::1", b"abcdefgh"),
        ping(
            "v6 VIP with UDP only",
            &usual,
            c6,
            "2001:db8::4",
            b"abcdefgh",
        ),
        ping("no payload", &usual, c4, "203.0.113.1", &[]),
        ping("no payload v6", &usual, c6, "2001:db8::1", &[]),
        ping("odd payload", &usual, c4, "203.0.113.1", b"abc"),
        ping("odd payload v6", &usual, c6, "2001:db8::1", b"abc"),
        ping("full size", &usual, c4, "203.0.113.1", &[0xff; 1472]),
        ping("full size v6", &usual, c6, "2001:db8::1", &[0xff; 1452]),
        ping("other header fields stay", &odd, c4, "203.0.113.1", b"abc"),
        ping(
            "other header fields stay, v6",
            &odd,
            c6,
            "2001:db8::1",
            b"abc",
        ),
        ping("with options", &options, c4, "203.0.113.1", b"abc"),
        ping("behind hop-by-hop", &hop_by_hop, c6, "2001:db8::1", b"abc"),
    ]
}

/// What the VIP sent to its client, cut as a router quotes it.
fn quote(talk: Talk, length: usize) -> Vec<u8> {
    inner(&tcp(talk.back(), Flags::Ack, &[7; 1200]))[..length].to_vec()
}

fn errors() -> Vec<Row> {
    let router = addr("192.0.2.99");
    let router6 = addr("2001:db8:99::1");
    let (a, b) = (to("203.0.113.1:80"), to("[2001:db8::1]:80"));
    let (c, d) = (to("203.0.113.2:80"), to("[2001:db8::2]:80"));
    let (e, any) = (to("203.0.113.3:80"), to("203.0.113.4:8443"));
    let name = to("203.0.113.2:53");
    let (v4, v6) = ("10.0.2.1", "fd00:2::1");
    let error = |about, to, out, frame| Row::sent(about, to, out, frame).because(Reason::IcmpError);
    let big = |talk: Talk, length| {
        let from = if talk.to.is_ipv4() { router } else { router6 };
        too_big(from, talk.to.ip(), 1400, &quote(talk, length))
    };
    let raw = |talk: Talk, kind, code| {
        let from = if talk.to.is_ipv4() { router } else { router6 };
        icmp_raw(from, talk.to.ip(), kind, code, &quote(talk, 68))
    };
    let datagram = inner(&udp(name.back(), &[0; 30])).to_vec();
    let (far, far6) = (("t44", "far"), ("t66", "far6"));
    vec![
        error("frag needed, l2", ("l2-v4", "near"), Out::L2, big(a, 500)),
        error("too big, l2", ("l2-v6", "near6"), Out::L2, big(b, 500)),
        error("frag needed, 4in4", far, tcp_in(c, v4), big(c, 500)),
        error("too big, 6in6", far6, tcp_in(d, v6), big(d, 500)),
        error(
            "frag needed, 4in6",
            ("t46", "far6"),
            tcp_in(e, v6),
            big(e, 500),
        ),
        error("8 bytes of TCP", far, tcp_in(c, v4), big(c, 28)),
        error("8 bytes of TCP, v6", far6, tcp_in(d, v6), big(d, 48)),
        error("4 bytes: ports alone", far, tcp_in(c, v4), big(c, 24)),
        error(
            "about the port-0 VIP",
            ("any", "near"),
            Out::L2,
            big(any, 28),
        ),
        error(
            "about UDP",
            ("t44-udp", "far"),
            udp_in(name, v4),
            too_big(router, name.to.ip(), 1400, &datagram),
        ),
        error("host unreachable", far, tcp_in(c, v4), raw(c, 3, 1)),
        error("time exceeded", far, tcp_in(c, v4), raw(c, 11, 0)),
        error("parameter problem", far, tcp_in(c, v4), raw(c, 12, 0)),
        error("unreachable v6", far6, tcp_in(d, v6), raw(d, 1, 4)),
        error("time exceeded v6", far6, tcp_in(d, v6), raw(d, 3, 0)),
        error("parameter problem v6", far6, tcp_in(d, v6), raw(d, 4, 1)),
    ]
}

/// Our answer to a packet that does not fit: RFC 792 with RFC 1191's MTU, or RFC 4443.
fn answer(frame: &[u8], talk: Talk, mtu: u16) -> Vec<u8> {
    use etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded;
    let header = Ip {
        ttl: 64,
        id: 0,
        flow_label: 0,
        ..Ip::default()
    };
    let message = icmp(
        &header,
        talk.to.ip(),
        talk.from.ip(),
        Icmpv4Type::DestinationUnreachable(FragmentationNeeded { next_hop_mtu: mtu }),
        Icmpv6Type::PacketTooBig {
            mtu: u32::from(mtu),
        },
        &inner(frame)[..504],
    );
    framed(inner(&message), BALANCER_MAC, ROUTER_MAC)
}

/// Packets of one byte too much, and their answers.
fn too_bigs(mtu: u16) -> Vec<Row> {
    let (a, b) = (to("203.0.113.1:80"), to("[2001:db8::1]:80"));
    let (c, d) = (to("203.0.113.2:80"), to("[2001:db8::2]:80"));
    let (e, name) = (to("203.0.113.3:80"), to("203.0.113.2:53"));
    let row = |about, talk: Talk, fits: u16, vip, backend| {
        let headers = if talk.to.is_ipv4() { 40 } else { 60 };
        let frame = tcp(talk, Flags::Ack, &vec![7; usize::from(fits) + 1 - headers]);
        let out = answer(&frame, talk, fits);
        Row::reply(about, Reason::TooBig, frame, out).of(vip, backend)
    };
    let loose = Ip {
        dont_fragment: false,
        tos: 0xb9,
        ..Ip::default()
    };
    let loose = tcp_with(&loose, c, Flags::Ack, &vec![7; usize::from(mtu) - 40]);
    let options = Ip {
        options: vec![1; 40],
        ..Ip::default()
    };
    let options = tcp_with(&options, c, Flags::Ack, &vec![7; usize::from(mtu) - 80]);
    let datagram = udp(name, &vec![7; usize::from(mtu) - 28]);
    let of = |about, frame: Vec<u8>, talk, vip| {
        let out = answer(&frame, talk, mtu - 20);
        Row::reply(about, Reason::TooBig, frame, out).of(vip, "far")
    };
    vec![
        row("l2 v4", a, mtu, "l2-v4", "near"),
        row("l2 v6", b, mtu, "l2-v6", "near6"),
        row("4in4", c, mtu - 20, "t44", "far"),
        row("6in6", d, mtu - 40, "t66", "far6"),
        row("4in6", e, mtu - 40, "t46", "far6"),
        of("without DF too: we do not fragment", loose, c, "t44"),
        of("with options", options, c, "t44"),
        of("UDP", datagram, name, "t44-udp"),
    ]
}

#[test]
fn echo_requests_to_vips_are_answered() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    run(&bench, &image, &pings());
}

#[test]
fn errors_go_to_the_backend_of_the_quoted_flow() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    run(&bench, &image, &errors());
}

#[test]
fn what_does_not_fit_is_answered_and_errors_are_not() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    run(&bench, &image, &too_bigs(1500));
    // No error about an error (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
    let (c, d) = (to("203.0.113.2:80"), to("[2001:db8::2]:80"));
    let long = |talk: Talk| inner(&tcp(talk.back(), Flags::Ack, &[7; 1440])).to_vec();
    let about = |talk: Talk, from| too_big(addr(from), talk.to.ip(), 1400, &long(talk)[..1460]);
    let drop = |about, vip, backend, frame| {
        Row::drop(about, Reason::TooBigError, vip, frame).of(vip, backend)
    };
    run(
        &bench,
        &image,
        &[
            drop("error of 1488 bytes", "t44", "far", about(c, "192.0.2.99")),
            drop(
                "error of 1508 bytes",
                "t66",
                "far6",
                about(d, "2001:db8:99::1"),
            ),
        ],
    );
    bench.set_hop(1, 1400, true);
    run(&bench, &image, &too_bigs(1400));
}

/// Answers are limited to a burst of 200 and 1,000 a second on each CPU; what is above is dropped
/// and counted, and never reaches the stack.
#[test]
fn answers_are_rate_limited() {
    let bench = Bench::new();
    bench.commit(&world());
    let ping = echo(
        &Ip::default(),
        addr("198.51.100.7"),
        addr("203.0.113.1"),
        false,
        b"x",
    );
    let big = tcp(to("203.0.113.1:80"), Flags::Ack, &[0; 1461]);
    for (frame, answered, limited) in [
        (ping, Reason::EchoReply, Reason::EchoLimited),
        (big, Reason::TooBig, Reason::TooBigLimited),
    ] {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let decisions: Vec<_> = (0..3000).map(|_| probe(&bench, &frame)).collect();
        let count = |reason| {
            decisions
                .iter()
                .filter(|d| d.reason == Some(reason))
                .count()
        };
        assert!(count(answered) >= 200, "{}", count(answered));
        assert!(count(limited) > 0);
        assert_eq!(count(answered) + count(limited), 3000);
        for decision in decisions.iter().filter(|d| d.reason == Some(limited)) {
            assert_eq!((decision.action, &decision.packet), (Action::Drop, &frame));
        }
    }
}
