//! What is counted, and in which set: a slot's for traffic, one of their own for test runs.

use lb_common::TEST_SET;
use lb_common::counter::{MemberCounters, Reason, VipCounters};
use lb_common::slot::member_state;
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, Ip, inner, tcp, tcp_with, too_big, udp};
use lb_userspace::kernel::image::Image;

use crate::world::{addr, asker, client, commit, probe, set_state, shop, trial};

/// All counters of one set: of the shop, its name server, each backend, each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    shop: VipCounters,
    dns: VipCounters,
    members: Vec<MemberCounters>,
    reasons: Vec<(Reason, u64)>,
}

fn counts(bench: &Bench, image: &Image, set: u32) -> Counts {
    let maps = &bench.kernel.maps;
    let vip = |name: &str| {
        let number = image
            .vips
            .iter()
            .find(|vip| vip.name == name)
            .unwrap()
            .entry
            .vip;
        maps.vip_counters(&bench.kernel.node, set, number).unwrap()
    };
    let member = |id| maps.member_counters(&bench.kernel.node, set, id).unwrap();
    let packets = maps.reasons(set).unwrap().packets;
    Counts {
        shop: vip("shop"),
        dns: vip("dns"),
        members: image.members().map(|image| member(image.id)).collect(),
        reasons: Reason::ALL
            .iter()
            .map(|reason| (*reason, packets[*reason as usize]))
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

const NOTHING: VipCounters = VipCounters {
    packets: 0,
    bytes: 0,
    syns: 0,
    followed: 0,
    remembered: 0,
    too_big: 0,
    options: 0,
    dropped: 0,
};

/// Ten packets of every kind, with lengths that add up to no other sum.
fn traffic() -> Vec<Vec<u8>> {
    let options = Ip {
        options: vec![1; 4],
        ..Ip::default()
    };
    let quote = inner(&tcp(client(1).back(), Flags::Ack, &[])).to_vec();
    vec![
        tcp(client(1), Flags::Syn, &[]),
        tcp(client(1), Flags::Ack, &[0; 100]),
        tcp_with(&options, client(1), Flags::Ack, &[0; 200]),
        tcp(client(1), Flags::Ack, &[0; 1460]),
        too_big(addr("192.0.2.99"), addr("203.0.113.5"), 1400, &quote),
        tcp(client(2), Flags::Rst, &[]),
        udp(asker(1), &[0; 50]),
        udp(asker(1), &[0; 60]),
        tcp(client(1).receiver_port(81), Flags::Syn, &[]),
        vec![0; 60],
    ]
}

#[test]
fn traffic_counts_in_its_slot_s_set_and_test_runs_in_their_own() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1]), 1);
    let active = u32::from(bench.record().active);
    let before: Vec<_> = (0..=TEST_SET)
        .map(|set| counts(&bench, &image, set))
        .collect();
    for frame in traffic() {
        bench.kernel.prober.run_unmarked(&frame).unwrap();
    }
    let after = counts(&bench, &image, active);
    let shop = VipCounters {
        packets: 5,
        bytes: 40 + 140 + 244 + 68 + 40,
        syns: 1,
        followed: 3,
        remembered: 1,
        too_big: 1,
        options: 1,
        dropped: 0,
    };
    let dns = VipCounters {
        packets: 2,
        bytes: 78 + 88,
        followed: 1,
        remembered: 1,
        ..NOTHING
    };
    assert_eq!((after.shop, after.dns), (shop, dns));
    let member = MemberCounters {
        packets: 7,
        bytes: shop.bytes + dns.bytes,
    };
    assert_eq!(after.members, [member]);
    let seen = [
        (Reason::Forwarded, 6),
        (Reason::IcmpError, 1),
        (Reason::TooBig, 1),
        (Reason::NotVip, 1),
    ];
    // What is no IP packet belongs to no slot; set 0 counts it.
    assert_eq!(
        after
            .reasons
            .iter()
            .filter(|(reason, _)| *reason != Reason::NotIp)
            .copied()
            .collect::<Vec<_>>(),
        seen
    );
    let not_ip: u64 = (0..=TEST_SET)
        .map(|set| bench.kernel.maps.reasons(set).unwrap().packets[Reason::NotIp as usize])
        .sum();
    assert_eq!(not_ip, 1);
    assert_eq!(
        counts(&bench, &image, TEST_SET),
        before[TEST_SET as usize],
        "no test run yet"
    );

    for frame in traffic() {
        probe(&bench, &frame);
    }
    assert_eq!(
        counts(&bench, &image, active),
        after,
        "test runs do not count as traffic"
    );
    let tests = counts(&bench, &image, TEST_SET);
    // The flow of the RST is none, those of the rest are known by now.
    let known = VipCounters {
        followed: 3,
        remembered: 1,
        ..shop
    };
    assert_eq!(tests.shop, known);
    assert_eq!(tests.members, [member]);
}

#[test]
fn each_arm_counts_in_its_own_set() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1]), 1);
    let active = u32::from(bench.record().active);
    let (image, slot) = trial(&bench, &shop(&[2]), 2);
    for port in 1..=3 {
        bench
            .kernel
            .prober
            .run_unmarked(&tcp(client(port), Flags::Syn, &[]))
            .unwrap();
    }
    bench
        .kernel
        .prober
        .run_unmarked(&tcp(client(9), Flags::Ack, &[]))
        .unwrap();
    let new = counts(&bench, &image, u32::from(slot));
    let old = counts(&bench, &image, active);
    assert_eq!(
        (new.shop.packets, new.shop.syns, new.shop.remembered),
        (3, 3, 3)
    );
    assert_eq!((old.shop.packets, old.shop.syns), (1, 0));
    assert_eq!(new.members[0].packets, 3);
    assert_eq!(old.members[0].packets, 0, "web-2 is not in the old arm");
}

#[test]
fn drops_count_at_the_vip_and_never_at_a_backend() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1]), 1);
    let active = u32::from(bench.record().active);
    bench.set_hop(1, 1500, false);
    bench
        .kernel
        .prober
        .run_unmarked(&tcp(client(1), Flags::Syn, &[]))
        .unwrap();
    bench.set_hop(1, 1500, true);
    set_state(&bench, &image, "web-1", member_state::DOWN);
    bench
        .kernel
        .prober
        .run_unmarked(&tcp(client(2), Flags::Syn, &[]))
        .unwrap();
    let counts = counts(&bench, &image, active);
    assert_eq!(
        counts.shop,
        VipCounters {
            dropped: 2,
            ..NOTHING
        }
    );
    assert_eq!(counts.members, [MemberCounters::default()]);
    assert_eq!(
        counts.reasons,
        [(Reason::NoBackend, 1), (Reason::NoNextHop, 1)]
    );
}
