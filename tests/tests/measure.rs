//! That the benchmarks measure what they say: their programs load, their packets are right, and a wrong
//! one gets no figure. Few packets, no time is looked at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::collections::HashSet;
use std::thread;

use lb_tests::measure::balancer::{Balancer, Size, USUAL};
use lb_tests::measure::live::{Mix, Street};
use lb_tests::measure::programs::Programs;
use lb_tests::measure::report::Aim;
use lb_tests::measure::rig::{LOOPBACK, Rig};
use lb_tests::measure::timing::{median, paired};
use lb_tests::measure::workload::{
    ELSEWHERE, Kind, V4_ACK_1, V4_ACK_64K, V4_OTHER, V4_SYN_NEW, V4_UDP_64K, V6_ACK_1, V6_ACK_64K,
    Workload,
};

const FLOWS: u32 = 1 << 10;
const SMALL: Size = Size {
    flows: 8_192,
    ..USUAL
};

/// The workload with few flows.
fn few(workload: Workload) -> Workload {
    Workload {
        flows: workload.flows.min(FLOWS),
        ..workload
    }
}

#[test]
fn each_program_makes_of_each_workload_what_it_should() {
    let workloads = [
        V4_ACK_1, V4_ACK_64K, V4_SYN_NEW, V4_UDP_64K, V4_OTHER, V6_ACK_1, V6_ACK_64K,
    ];
    let mut rig = Rig::empty(Programs::load(SMALL.flows));
    for workload in workloads.map(few) {
        if workload.is_v6 {
            rig.lanes.clear();
            rig.add_tx("tx", workload);
        } else {
            rig = Rig::floors(rig.programs, workload);
        }
        rig.add("lbguard", workload, Balancer::new(SMALL));
        rig.fill();
        rig.round(500);
        for lane in &rig.lanes {
            let what = format!("{}, {}", lane.name, workload.name);
            assert_eq!(lane.wrong, None, "{what}");
            assert_eq!(lane.times.len(), 1, "{what}");
        }
        if workload.flows == 0 {
            let lane = rig.lane("lbguard");
            let added = lane
                .subject
                .balancer()
                .unwrap()
                .bench
                .kernel
                .maps
                .flow_counts();
            assert_eq!(added.unwrap().added, u64::from(lane.sent));
            let (asked, found) = lane.remembered().unwrap();
            assert!(asked > 0 && found == asked, "{found} of {asked}");
        }
    }
}

#[test]
fn packets_come_from_many_vips_flows_and_parts_of_the_space() {
    let mut rig = Rig::empty(Programs::load(1));
    let many = Workload {
        flows: 1 << 20,
        vips: 64,
        ..V4_ACK_64K
    };
    rig.add_tx("tx", many);
    rig.programs.aim(rig.lanes[0].subject.program());
    let mut seen = HashSet::new();
    for place in [0, 1, 63, 64, 65_535, 1 << 19, (1 << 20) - 1] {
        rig.programs.feed(&many.traffic(ELSEWHERE, place));
        let ran = rig.programs.run(many.frame_length(), 1, LOOPBACK);
        assert_eq!(ran.packet, many.frame(many.flow(ELSEWHERE, place)));
        seen.insert(ran.packet);
    }
    assert_eq!(seen.len(), 7);
}

#[test]
fn a_program_that_does_the_wrong_thing_has_no_figure() {
    // The floors know no IPv6: they pass it.
    let mut rig = Rig::floors(Programs::load(16), few(V6_ACK_64K));
    // And a balancer whose VIPs are gone passes everything.
    rig.add("lbguard", few(V4_ACK_64K), Balancer::empty(SMALL));
    rig.fill();
    rig.round(100);
    for lane in &rig.lanes {
        let is_right = lane.name == "tx";
        assert_eq!(lane.wrong.is_none(), is_right, "{}", lane.name);
        assert_eq!(lane.times.len(), usize::from(is_right), "{}", lane.name);
    }
    let why = rig.lane("stateless").wrong.as_ref().unwrap().to_string();
    assert!(why.contains("v6-tcp-ack-64k, flow"), "{why}");
}

#[test]
fn frames_go_over_veth_and_a_mix_has_its_syns() {
    let mix = Mix { every: 20, more: 3 };
    // The thread's network namespace ends with it.
    let scene = thread::spawn(move || {
        let mut rig = Rig::floors(Programs::load(SMALL.flows), few(V4_ACK_64K));
        rig.add("lbguard", few(V4_ACK_64K), Balancer::new(SMALL));
        let mut street = Street::new(rig);
        street.rig.fill();
        for index in 0..street.rig.lanes.len() {
            let (name, wrong) = {
                let lane = &street.rig.lanes[index];
                (lane.name, lane.wrong.clone())
            };
            assert_eq!(wrong, None, "{name}");
            let rounds = [1, 2].map(|_| street.round(index, 2_000, Some(mix)));
            for round in rounds {
                assert_eq!(round.sent, 2_000, "{name}");
                // A loaded machine may lose some in the rings.
                assert!((1..=2_000).contains(&round.arrived), "{name}: {round:?}");
            }
        }
        let balancer = street.rig.lane("lbguard").subject.balancer().unwrap();
        let added = balancer.bench.kernel.maps.flow_counts().unwrap().added;
        // 200 SYNs were sent, less what was lost; ACKs from before the first SYN are flows, too.
        assert!(added > u64::from(FLOWS), "{added}");
    });
    scene.join().unwrap();
}

#[test]
fn medians_and_aims() {
    assert!(median(&[]).is_nan());
    assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    let over = paired(&[10.0, 30.0, 21.0], &[1.0, 20.0, 10.0], |a, b| a - b);
    assert!((over - 10.0).abs() < 1e-9);
    assert_eq!(Aim::AtMost(1.4).told(1.5), "aim <= 1.4: MISSED");
    assert_eq!(Aim::AtMost(1.4).told(1.4), "aim <= 1.4: met");
    assert_eq!(Aim::AtLeast(1.7).json(2.0)["met"], true);
    // No figure is no aim met.
    assert!(!Aim::AtMost(1.4).is_met(f64::NAN));
}

#[test]
fn flows_are_filled_by_what_begins_them() {
    assert_eq!(V4_ACK_64K.filled_by(), [Kind::Syn, Kind::Ack]);
    assert_eq!(V4_UDP_64K.filled_by(), [Kind::Udp]);
    assert!(V4_SYN_NEW.filled_by().is_empty());
}
