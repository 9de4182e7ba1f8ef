//! The short way does what the long way does: the same packets by both, and the same counts.
//!
//! Test runs are asked the long way; a packet without a probe goes the short way where it can.

use std::time::Duration;

use lb_common::TEST_SET;
use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::counter::{MemberCounters, VipCounters};
use lb_common::guard::{Op, TrialPut};
use lb_tests::bench::Bench;
use lb_tests::bpf::Map;
use lb_tests::bpffs::Bpffs;
use lb_tests::packets::{Flags, Ip, Talk, tcp, tcp_with, udp};
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::Ask;
use lb_userspace::lab::until;
use zerocopy::IntoBytes;

use crate::room::stay_on_this_cpu;
use crate::world::{client, commit, probe, services, trial};

const SOON: Duration = Duration::from_secs(30);

/// VIPs of both families over every mode that the short way knows.
fn both_families() -> String {
    services(
        &[
            ("tcp-4", "203.0.113.5", 80, "tcp", "tunnel-4"),
            ("udp-4", "203.0.113.5", 53, "udp", "plain"),
            ("tcp-6", "2001:db8::5", 80, "tcp", "tunnel-6"),
            ("tcp-46", "203.0.113.6", 80, "tcp", "tunnel-6"),
            ("any", "203.0.113.7", 0, "tcp", "plain"),
        ],
        &[
            (
                "tunnel-4",
                "ipip",
                &[("a", "10.0.5.1", ""), ("b", "10.0.5.2", "")],
            ),
            (
                "tunnel-6",
                "ipip",
                &[("a", "fd00::1", ""), ("b", "fd00::2", "")],
            ),
            (
                "plain",
                "l2",
                &[("a", "10.0.5.1", ""), ("b", "10.0.5.2", "")],
            ),
        ],
    )
}

const TALKS: [(&str, &str); 6] = [
    ("198.51.100.7", "203.0.113.5:80"),
    ("[2001:db8:c::7]", "[2001:db8::5]:80"),
    ("198.51.100.7", "203.0.113.6:80"),
    ("198.51.100.7", "203.0.113.7:8080"),
    // No VIPs: another port, another address.
    ("198.51.100.7", "203.0.113.5:81"),
    ("198.51.100.7", "203.0.113.99:80"),
];

fn talk((from, to): (&str, &str), port: u16) -> Talk {
    Talk::new(&format!("{from}:1"), to).sender_port(port)
}

/// The life of a TCP connection, as its client sends it.
const LIFE: [Flags; 6] = [
    Flags::Syn,
    Flags::Ack,
    Flags::PshAck,
    Flags::FinAck,
    Flags::Ack,
    Flags::Rst,
];

/// One frame both ways; both must do the same with it.
fn same(bench: &Bench, frame: &[u8], about: &str) {
    let (action, out) = bench.kernel.prober.run_unmarked(frame).unwrap();
    let long = bench.kernel.prober.run(frame, Ask::default()).unwrap();
    assert_eq!(action, long.action, "{about}");
    assert_eq!(out, long.packet, "{about}");
}

#[test]
fn both_ways_do_the_same_with_every_packet_and_count_it_alike() {
    let bench = Bench::new();
    let image = commit(&bench, &both_families(), 1);
    for port in 1..=100 {
        for ends in TALKS {
            for (step, flags) in LIFE.into_iter().enumerate() {
                let payload = vec![0x5a; step * 97];
                let frame = tcp(talk(ends, port), flags, &payload);
                same(&bench, &frame, &format!("{ends:?} port {port} {flags:?}"));
            }
        }
    }
    assert_eq!(counts(&bench, &image, 0), counts(&bench, &image, TEST_SET));
}

/// Sends a frame that has no probe; whether it goes the long way. `parsed` is where that writes what it
/// has parsed.
fn goes_long(bench: &Bench, parsed: &Map, frame: &[u8]) -> bool {
    // The first of two elements is that of packets without a probe.
    let at_hand = || parsed.content()[..parsed.value_size()].to_vec();
    // Another packet that is known to go the long way, on every CPU that this may run on.
    let options = Ip {
        options: vec![1; 4],
        ..Ip::default()
    };
    let other = tcp_with(&options, talk(TALKS[4], 999), Flags::Ack, &[]);
    bench.kernel.prober.run_unmarked(&other).unwrap();
    let before = at_hand();
    bench.kernel.prober.run_unmarked(frame).unwrap();
    at_hand() != before
}

/// Which frames go the short way and which the long one. The long way writes what it has parsed into a
/// map, for its own use; the short way does not.
#[test]
fn plain_packets_go_the_short_way_and_others_do_not() {
    let bpffs = Bpffs::new();
    let bench = Bench::pinned(&bpffs.pins());
    commit(&bench, &both_families(), 1);
    let parsed = Map::pinned(&bpffs.pins().map("PACKETS"));
    let is_long = |frame: &[u8]| goes_long(&bench, &parsed, frame);
    // The short way is closed while the timer has been silent, as it may be on a busy machine.
    let comes_short = |frame: &[u8], about: &str| {
        until(about, SOON, || (!is_long(frame)).then_some(())).unwrap();
    };
    stay_on_this_cpu();
    // TCP to VIPs with a port, tunnelled 4in4, 6in6 and 4in6, and to an address that no VIP has.
    for ends in [TALKS[0], TALKS[1], TALKS[2], TALKS[5]] {
        for flags in LIFE {
            let frame = tcp(talk(ends, 1), flags, b"data");
            comes_short(&frame, &format!("{ends:?} {flags:?} goes the short way"));
        }
    }
    // UDP from its second datagram on.
    let ends = ("198.51.100.7", "203.0.113.5:53");
    let datagram = udp(talk(ends, 1), b"a longer query");
    assert!(is_long(&datagram));
    comes_short(&datagram, "a second datagram goes the short way");
    // VIPs for any port, a VIP's address without that port, and what is not plain.
    let options = Ip {
        options: vec![1; 8],
        ..Ip::default()
    };
    for frame in [
        tcp(talk(TALKS[3], 1), Flags::Ack, &[]),
        tcp(talk(TALKS[4], 1), Flags::Ack, &[]),
        tcp_with(&options, talk(TALKS[0], 1), Flags::Ack, &[]),
        tcp(talk(TALKS[0], 1), Flags::Ack, &[7; 1_460]),
    ] {
        assert!(is_long(&frame), "{frame:x?}");
    }
}

/// What is not plain: odd lengths, header fields, sizes around the MTU.
#[test]
fn both_ways_do_the_same_with_odd_packets() {
    let bench = Bench::new();
    commit(&bench, &both_families(), 1);
    let headers = [
        Ip {
            tos: 0xb9,
            ..Ip::default()
        },
        Ip {
            dont_fragment: false,
            id: 0x1234,
            ..Ip::default()
        },
        Ip {
            options: vec![1; 8],
            ..Ip::default()
        },
        Ip {
            more: true,
            ..Ip::default()
        },
        Ip {
            offset: 64,
            ..Ip::default()
        },
    ];
    for ends in TALKS {
        let frame = tcp(talk(ends, 1), Flags::Syn, &[]);
        same(&bench, &frame, "a SYN first");
        for length in [
            0, 1, 5, 6, 7, 1_300, 1_419, 1_420, 1_421, 1_439, 1_440, 1_441, 1_460,
        ] {
            let frame = tcp(talk(ends, 1), Flags::Ack, &vec![7; length]);
            same(&bench, &frame, &format!("{ends:?}: {length} bytes"));
        }
        if ends.0.starts_with('[') {
            continue;
        }
        for header in &headers {
            let frame = tcp_with(header, talk(ends, 1), Flags::Ack, b"abc");
            same(&bench, &frame, &format!("{ends:?}: {header:?}"));
        }
    }
    // Frames that end early, and ones with bytes behind the packet.
    let whole = tcp(talk(TALKS[0], 1), Flags::Ack, &[]);
    for length in 14..whole.len() {
        same(&bench, &whole[..length], &format!("cut to {length}"));
    }
    same(&bench, &[whole.as_slice(), &[0; 6]].concat(), "padded");
    // As long as the short way wants it, and shorter.
    for (port, data) in [(1, &b"a longer query"[..]), (2, b"query"), (3, b"")] {
        let frame = udp(
            Talk::new("198.51.100.7:1", "203.0.113.5:53").sender_port(port),
            data,
        );
        // The first datagram of a flow goes the long way both times.
        same(&bench, &frame, "first");
        same(&bench, &frame, "second");
    }
}

/// During a trial: whoever was there before stays where he is, whoever comes is in an arm.
#[test]
fn both_ways_do_the_same_during_a_trial() {
    let bench = Bench::new();
    commit(&bench, &crate::world::shop(&[1, 2, 3]), 1);
    for port in 1..=100 {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
    }
    trial(&bench, &crate::world::shop(&[1, 2, 3, 4, 5, 6]), 2);
    for port in 1..=200 {
        for flags in LIFE {
            let frame = tcp(client(port), flags, b"data");
            same(&bench, &frame, &format!("port {port} {flags:?}"));
        }
    }
}

/// A flow that a trial follows goes the short way, and what is counted of it is the same.
#[test]
fn followed_flows_are_counted_alike_both_ways() {
    const FLOWS: u16 = 200;
    let bpffs = Bpffs::new();
    let bench = Bench::pinned(&bpffs.pins());
    commit(&bench, &crate::world::shop(&[1]), 1);
    let parsed = Map::pinned(&bpffs.pins().map("PACKETS"));
    let image = bench.image(&crate::world::shop(&[2]));
    bench.stage(&image).unwrap();
    let put = TrialPut {
        breaker: Breaker::default(),
        within_ms: 2_000,
        pace: 0,
    };
    let args = [u64::from(SHARE_ALL) / 2, 0x5eed, 60_000, 60_000, 2];
    let guard = &bench.kernel.guard;
    guard.call(Op::Trial, 1, &args, put.as_bytes()).unwrap();
    stay_on_this_cpu();
    let mut seen = [Counted::default(), Counted::default()];
    for (way, seen) in seen.iter_mut().enumerate() {
        let before = counted(&bench, &image);
        for n in 0..FLOWS {
            let port = 1 + n + 1_000 * u16::try_from(way).unwrap();
            for flags in [Flags::Syn, Flags::Ack, Flags::PshAck, Flags::FinAck] {
                let data: &[u8] = if flags == Flags::PshAck { b"data" } else { b"" };
                let frame = tcp(client(port), flags, data);
                if way == 0 {
                    bench.kernel.prober.run(&frame, Ask::default()).unwrap();
                } else {
                    bench.kernel.prober.run_unmarked(&frame).unwrap();
                }
            }
        }
        *seen = counted(&bench, &image).since(&before);
    }
    let [long, short] = seen;
    assert_eq!((long.flows, long.completed), (FLOWS.into(), FLOWS.into()));
    assert_eq!(long, short);
    let (mut port, mut in_new, mut in_control) = (5_000, 0, None);
    for _ in 0..20 {
        until("a handshake goes the short way", SOON, || {
            port += 1;
            let [syn, ack] = [Flags::Syn, Flags::Ack].map(|flags| tcp(client(port), flags, b""));
            let syn_long = goes_long(&bench, &parsed, &syn);
            // Pins the flow, if the new arm has it.
            let ack_long = goes_long(&bench, &parsed, &ack);
            (!syn_long && !ack_long).then_some(())
        })
        .unwrap();
        let pinned = probe(&bench, &tcp(client(port), Flags::Ack, b""));
        assert!(pinned.followed, "port {port}");
        if pinned.slot == bench.record().active {
            in_control = Some(port);
        } else {
            in_new += 1;
        }
        let data = tcp(client(port), Flags::PshAck, b"data");
        until("a followed flow goes the short way", SOON, || {
            (!goes_long(&bench, &parsed, &data)).then_some(())
        })
        .unwrap();
    }
    assert!((1..20).contains(&in_new), "{in_new} of 20 in the new arm");
    bench.revert().unwrap();
    let data = tcp(client(in_control.unwrap()), Flags::PshAck, b"data");
    until(
        "a flow of a trial that is over goes the short way",
        SOON,
        || (!goes_long(&bench, &parsed, &data)).then_some(()),
    )
    .unwrap();
}

/// What is counted of followed flows, both arms together: which arm a flow is in is drawn.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    flows: u32,
    completed: u32,
    ends: Vec<u32>,
    responses: Vec<u32>,
    resent: Vec<u32>,
}

impl Counted {
    fn since(&self, before: &Self) -> Self {
        let less = |now: &[u32], before: &[u32]| {
            let pairs = now.iter().zip(before);
            pairs.map(|(now, before)| now - before).collect()
        };
        Self {
            flows: self.flows - before.flows,
            completed: self.completed - before.completed,
            ends: less(&self.ends, &before.ends),
            responses: less(&self.responses, &before.responses),
            resent: less(&self.resent, &before.resent),
        }
    }
}

fn counted(bench: &Bench, image: &Image) -> Counted {
    let kernel = &bench.kernel;
    let shop = image.vips.iter().find(|vip| vip.name == "shop").unwrap();
    let [control, new] = kernel.maps.evidence(&kernel.node, shop.entry.vip).unwrap();
    let both = |one: &[u32], other: &[u32]| one.iter().zip(other).map(|(a, b)| a + b).collect();
    Counted {
        flows: control.flows + new.flows,
        // However long it took: that depends on the machine.
        completed: control.latency.iter().chain(&new.latency).sum(),
        ends: both(&control.end, &new.end),
        responses: both(&control.response, &new.response),
        resent: both(&control.resent, &new.resent),
    }
}

/// All counters of a set.
fn counts(
    bench: &Bench,
    image: &Image,
    set: u32,
) -> (Vec<VipCounters>, Vec<MemberCounters>, Vec<u64>) {
    let (maps, node) = (&bench.kernel.maps, &bench.kernel.node);
    let set = if set == TEST_SET {
        set
    } else {
        u32::from(bench.record().active)
    };
    (
        image
            .vips
            .iter()
            .map(|vip| maps.vip_counters(node, set, vip.entry.vip).unwrap())
            .collect(),
        image
            .members()
            .map(|member| maps.member_counters(node, set, member.id).unwrap())
            .collect(),
        maps.reasons(set).unwrap().packets.to_vec(),
    )
}
