//! Between changes: one of so many new flows is followed, the others are left alone.

use lb_common::control::control_flag;
use lb_common::evidence::Evidence;
use lb_common::guard::{Op, Refusal};
use lb_tests::bench::{Bench, refusal};
use lb_tests::packets::{Flags, tcp};
use lb_userspace::kernel::image::Image;

use crate::world::{client, commit, probe, shop};

const FLOWS: u16 = 640;

fn watch(bench: &Bench, on: u64, sampling: u64, within_ms: u64) -> Option<Refusal> {
    let args = [on, sampling, within_ms];
    refusal(bench.kernel.guard.call(Op::Watch, 0, &args, &[]))
}

fn counts(bench: &Bench, image: &Image) -> [Evidence; 2] {
    let shop = image.vips.iter().find(|vip| vip.name == "shop").unwrap();
    let kernel = &bench.kernel;
    kernel.maps.evidence(&kernel.node, shop.entry.vip).unwrap()
}

/// New flows, handshakes begun and complete, flows without room; in control's place.
fn seen(bench: &Bench, image: &Image) -> [u32; 4] {
    let [control, new] = counts(bench, image);
    assert_eq!((new.flows, new.untracked), (0, 0));
    [
        control.flows,
        control.started.iter().sum(),
        control.completed.iter().sum(),
        control.untracked,
    ]
}

fn handshakes(bench: &Bench, from: u16) {
    for port in from..from + FLOWS {
        let syn = probe(bench, &tcp(client(port), Flags::Syn, &[]));
        let ack = probe(bench, &tcp(client(port), Flags::Ack, &[]));
        assert!(ack.followed && ack.member == syn.member, "port {port}");
    }
}

#[test]
fn a_sample_is_followed_and_everything_is_forwarded_as_without() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2, 3]), 1);
    handshakes(&bench, 1);
    assert_eq!(seen(&bench, &image), [0; 4], "nobody watches");
    assert_eq!(watch(&bench, 1, 3, 300), None);
    handshakes(&bench, 1_001);
    let [flows, started, completed, untracked] = seen(&bench, &image);
    assert!((40..=130).contains(&flows), "80 of 640 expected: {flows}");
    assert_eq!((started, completed, untracked), (flows, flows, 0));
    assert_eq!(watch(&bench, 1, 0, 300), None);
    handshakes(&bench, 2_001);
    let all = flows + u32::from(FLOWS);
    let [flows, started, completed, untracked] = seen(&bench, &image);
    // A line of records that is full for a moment leaves a flow out.
    assert!(flows <= all && flows + 13 >= all, "{flows} of {all}");
    assert_eq!((started, completed, untracked), (flows, flows, 0));
    assert_eq!(watch(&bench, 0, 0, 0), None);
    handshakes(&bench, 3_001);
    assert_eq!(seen(&bench, &image)[0], flows, "off again");
}

#[test]
fn a_handshake_that_never_completes_is_one_that_began() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1]), 1);
    assert_eq!(watch(&bench, 1, 0, 300), None);
    for port in 1..=20 {
        // Sent again, it counts once, and nothing after it.
        for flags in [Flags::Syn, Flags::Syn, Flags::Ack] {
            probe(&bench, &tcp(client(port), flags, &[]));
        }
    }
    assert_eq!(seen(&bench, &image), [20, 20, 0, 0]);
    assert_eq!(counts(&bench, &image)[0].retried, 20);
}

/// A trial has its own counts; what was watched before it is nothing to it.
#[test]
fn it_lasts_over_trials_and_takes_no_part_in_them() {
    let bench = Bench::new();
    let old = commit(&bench, &shop(&[1]), 1);
    assert_eq!(watch(&bench, 1, 0, 250), None);
    probe(&bench, &tcp(client(1), Flags::Syn, &[]));
    let new = bench.image(&shop(&[1, 2]));
    bench.stage(&new).unwrap();
    bench.trial(2).unwrap();
    assert_eq!(watch(&bench, 1, 4, 300), Some(Refusal::TrialOn));
    probe(&bench, &tcp(client(1), Flags::Ack, &[]));
    probe(&bench, &tcp(client(2), Flags::Syn, &[]));
    assert_eq!(seen(&bench, &old), [1, 1, 0, 0]);
    bench.confirm().unwrap();
    let record = bench.record();
    assert_ne!(record.flags & control_flag::WATCH, 0);
    assert_eq!((record.watch_mask(), record.watch_within_ms()), (0, 250));
    handshakes(&bench, 1_001);
    assert!(seen(&bench, &new)[0] > 600);
    bench.revert().unwrap();
    assert_ne!(bench.record().flags & control_flag::WATCH, 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bench = Bench::new();
    assert_eq!(watch(&bench, 1, 16, 300), Some(Refusal::OutOfRange));
    assert_eq!(watch(&bench, 1, 4, 0), Some(Refusal::BadDeadline));
    assert_eq!(watch(&bench, 1, 4, 2_001), Some(Refusal::BadDeadline));
    assert_eq!(bench.record().flags & control_flag::WATCH, 0);
}
