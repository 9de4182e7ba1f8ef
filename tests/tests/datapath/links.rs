//! What stands around a packet makes no difference to it: VLAN tags, and being a jumbo frame.

use std::net::IpAddr;

use lb_common::counter::Reason;
use lb_common::guard::Op;
use lb_common::slot::{NextHop, next_hop_flag};
use lb_tests::bench::{Bench, HOP, OWN};
use lb_tests::expect::{ipip, key};
use lb_tests::packets::{Flags, echo_request, icmp_raw, inner, tcp, turned, udp};
use lb_userspace::kernel::probe::{Action, Ask};
use zerocopy::{FromZeros, IntoBytes};

use crate::world::{addr, commit, to, world};

/// One tag, two of 802.1ad, two of 802.1Q.
const TAGS: [&[u8]; 3] = [
    &[0x81, 0, 0x20, 5],
    &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6],
    &[0x81, 0, 0, 5, 0x81, 0, 0, 6],
];

fn loaded() -> Bench {
    let bench = Bench::new();
    commit(&bench, &world(), 1);
    bench
}

/// The only next hop of the bench.
pub fn hop(bench: &Bench, vlan: u16, mtu: u16) {
    let hop = NextHop {
        destination: HOP,
        source: OWN,
        interface: 1,
        mtu,
        flags: next_hop_flag::RESOLVED,
        vlan,
        ..NextHop::new_zeroed()
    };
    let guard = &bench.kernel.guard;
    guard
        .call(Op::PutNextHops, 0, &[1, 1], hop.as_bytes())
        .unwrap();
}

pub fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

/// Verdict, reason and packet of a frame that nobody remembers.
fn outcome(bench: &Bench, frame: &[u8]) -> (Action, Option<Reason>, Vec<u8>) {
    let ask = Ask {
        no_flows: true,
        ..Ask::default()
    };
    let seen = bench.kernel.prober.run(frame, ask).unwrap();
    (seen.action, seen.reason, seen.packet)
}

/// Packets of each mode and family that are sent on.
fn forwarded() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for vip in [
        "203.0.113.1:80",
        "[2001:db8::1]:80",
        "203.0.113.2:80",
        "[2001:db8::2]:80",
        "203.0.113.3:80",
    ] {
        for flags in [Flags::Syn, Flags::Ack, Flags::Rst] {
            frames.push(tcp(to(vip), flags, b"some data"));
        }
    }
    frames.push(udp(to("203.0.113.2:53"), b"question"));
    frames.push(udp(to("[2001:db8::2]:53"), b"question"));
    // A router's error about an answer.
    let answer = tcp(to("203.0.113.2:80").back(), Flags::Ack, &[]);
    let (router, vip) = (addr("192.0.2.1"), addr("203.0.113.2"));
    frames.push(icmp_raw(router, vip, 11, 0, &inner(&answer)[..28]));
    frames
}

/// Packets that are answered.
fn answered() -> Vec<Vec<u8>> {
    let long = [7; 1_480];
    vec![
        echo_request("198.51.100.7", "203.0.113.2", b"ping"),
        echo_request("2001:db8:c::7", "2001:db8::2", b"ping"),
        tcp(to("203.0.113.2:80"), Flags::Ack, &long),
        tcp(to("[2001:db8::2]:80"), Flags::Ack, &long),
    ]
}

#[test]
fn tags_are_taken_off_and_the_next_hop_s_is_put_on() {
    let bench = loaded();
    for vlan in [0, 100] {
        hop(&bench, 0, 1500);
        let plain: Vec<_> = forwarded()
            .iter()
            .map(|frame| outcome(&bench, frame))
            .collect();
        hop(&bench, vlan, 1500);
        let [high, low] = vlan.to_be_bytes();
        for (frame, (verdict, reason, out)) in forwarded().iter().zip(plain) {
            let out = match vlan {
                0 => out,
                _ => tagged(&out, &[0x81, 0, high, low]),
            };
            for tags in TAGS.into_iter().chain([&[][..]]) {
                let seen = outcome(&bench, &tagged(frame, tags));
                assert_eq!((seen.0, seen.1), (verdict, reason), "{tags:x?}");
                assert_eq!(seen.0, Action::Tx);
                assert_eq!(seen.2, out, "{tags:x?}, to VLAN {vlan}");
            }
        }
    }
}

#[test]
fn answers_keep_the_tags_of_what_they_answer() {
    let bench = loaded();
    hop(&bench, 100, 1500);
    for frame in answered() {
        let (verdict, reason, out) = outcome(&bench, &frame);
        assert_eq!(verdict, Action::Tx);
        assert!(matches!(reason, Some(Reason::EchoReply | Reason::TooBig)));
        assert_eq!(out[..12], turned(&frame)[..12]);
        for tags in TAGS {
            let seen = outcome(&bench, &tagged(&frame, tags));
            assert_eq!((seen.0, seen.1), (verdict, reason));
            assert_eq!(seen.2, tagged(&out, tags), "{reason:?} {tags:x?}");
        }
    }
}

#[test]
fn tagged_frames_for_others_are_left_as_they_are() {
    let bench = loaded();
    let foreign = tcp(to("203.0.113.99:80"), Flags::Syn, &[]);
    for tags in TAGS {
        let frame = tagged(&foreign, tags);
        let pass = (Action::Pass, Some(Reason::NotVip), frame.clone());
        assert_eq!(outcome(&bench, &frame), pass);
    }
    let vip = tcp(to("203.0.113.2:80"), Flags::Syn, &[]);
    let three = tagged(&vip, &[TAGS[0], TAGS[1]].concat());
    let pass = (Action::Pass, Some(Reason::Vlan), three.clone());
    assert_eq!(outcome(&bench, &three), pass);
}

/// 9,000 bytes do not lie in one piece.
#[test]
fn jumbo_frames_are_forwarded_whole() {
    let bench = loaded();
    hop(&bench, 0, 9_100);
    let data: Vec<u8> = (0..=255).cycle().take(8_900).collect();
    for (vip, backend) in [
        ("203.0.113.2:80", "10.0.2.1"),
        ("[2001:db8::2]:80", "fd00:2::1"),
        ("203.0.113.3:80", "fd00:2::1"),
    ] {
        let frame = tcp(to(vip), Flags::Ack, &data);
        let (verdict, out) = bench.kernel.prober.run_unmarked(&frame).unwrap();
        let backend: IpAddr = backend.parse().unwrap();
        assert_eq!(verdict, Action::Tx, "{vip}");
        let expected = ipip(&bench.kernel.node, &frame, &key(to(vip), 6), backend);
        assert_eq!(out, expected, "{vip}");
    }
    hop(&bench, 0, 1500);
    for vip in ["203.0.113.2:80", "[2001:db8::2]:80"] {
        let frame = tcp(to(vip), Flags::Ack, &data);
        let (verdict, out) = bench.kernel.prober.run_unmarked(&frame).unwrap();
        let short = tcp(to(vip), Flags::Ack, &data[..1_480]);
        let (_, of_short) = bench.kernel.prober.run_unmarked(&short).unwrap();
        assert_eq!((verdict, out.len()), (Action::Tx, of_short.len()), "{vip}");
    }
    // Cut short it is no packet.
    let frame = tcp(to("203.0.113.2:80"), Flags::Ack, &data);
    let cut = &frame[..8_000];
    let (verdict, out) = bench.kernel.prober.run_unmarked(cut).unwrap();
    assert_eq!((verdict, out), (Action::Pass, cut.to_vec()));
}
