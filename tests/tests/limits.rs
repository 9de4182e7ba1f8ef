//! What the guard holds every change to: velocity (K6), the breaker and its latch (K8), freeze (K9),
//! health churn (K10), and the policy itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::time::Duration;

use lb_common::control::{Cause, control_flag};
use lb_common::guard::trial_flag::{REMOVES, RESTORES};
use lb_common::guard::{Op, Refusal};
use lb_common::slot::member_state;
use lb_tests::bench::{Bench, LIMITS, refusal, shop};
use lb_tests::packets::{Flags, Talk, tcp};
use lb_userspace::kernel::object::Limits;
use lb_userspace::lab::until;
use zerocopy::IntoBytes;

const SOON: Duration = Duration::from_secs(5);

/// SYNs to the shop's VIP from `count` clients, one each, as an interface would bring them.
fn syns(bench: &Bench, count: u8) {
    for client in 1..=count {
        let talk = Talk::new(&format!("198.51.100.{client}:40000"), "203.0.113.10:80");
        bench
            .kernel
            .prober
            .run_unmarked(&tcp(talk, Flags::Syn, &[]))
            .unwrap();
    }
}

fn ended(bench: &Bench) -> Option<Cause> {
    let record = bench.record();
    (record.flags & control_flag::TRIAL == 0).then(|| Cause::from_code(record.cause))
}

#[test]
fn trials_are_spent_from_a_bucket_and_going_back_is_free() {
    let bench = Bench::with(Limits {
        flips: 2,
        flip_every_ms: 60_000,
        ..LIMITS
    });
    bench.commit(&shop(2));
    bench.commit(&shop(3));
    bench.stage(&bench.image(&shop(4))).unwrap();
    let outcome = bench.trial(3);
    assert_eq!(refusal(outcome), Some(Refusal::Velocity));
    bench.revert().unwrap();
    assert_eq!(bench.active(), 1);
}

#[test]
fn freezing_stops_forward_and_never_back() {
    let bench = Bench::new();
    bench.commit(&shop(2));
    bench.commit(&shop(3));
    bench.stage(&bench.image(&shop(4))).unwrap();
    bench.trial(3).unwrap();
    bench.kernel.guard.call(Op::Freeze, 0, &[1], &[]).unwrap();
    assert_eq!(refusal(bench.confirm()), Some(Refusal::Frozen));
    bench.revert().unwrap();
    bench.stage(&bench.image(&shop(4))).unwrap();
    assert_eq!(refusal(bench.trial(4)), Some(Refusal::Frozen));
    bench.revert().unwrap();
    assert_eq!(bench.active(), 1);
    assert_ne!(
        bench.record().flags & control_flag::FROZEN,
        0,
        "going back thaws nothing"
    );
    bench.kernel.guard.call(Op::Freeze, 0, &[0], &[]).unwrap();
    bench.commit(&shop(4));
}

/// Freezes and latches.
fn stop(bench: &Bench) {
    bench.kernel.guard.call(Op::Freeze, 0, &[1], &[]).unwrap();
    bench.kernel.guard.call(Op::Ack, 0, &[1], &[]).unwrap();
}

fn restore(bench: &Bench, change: u64) -> Option<Refusal> {
    refusal(bench.trial_of(65_536, change | RESTORES, 60_000, 60_000))
}

fn confirm(bench: &Bench, restores: u64) -> Option<Refusal> {
    let args = [0, restores];
    let guard = &bench.kernel.guard;
    refusal(guard.call(Op::Confirm, bench.active(), &args, &[]))
}

#[test]
fn freeze_and_latch_hold_from_before_the_restoring_flip_on() {
    let bench = Bench::with(Limits {
        flips: 1,
        flip_every_ms: 60_000,
        ..LIMITS
    });
    stop(&bench);
    for attempt in 1..=2 {
        bench.stage(&bench.image(&shop(2))).unwrap();
        assert_eq!(refusal(bench.trial(1)), Some(Refusal::Frozen));
        assert_eq!(restore(&bench, attempt), None, "as often as it takes");
        assert_eq!(confirm(&bench, 0), Some(Refusal::Frozen));
        if attempt == 1 {
            bench.revert().unwrap();
        }
    }
    assert_eq!(confirm(&bench, 1), None);
    let flags = bench.record().flags;
    assert_ne!(flags & control_flag::FROZEN, 0);
    assert_ne!(flags & control_flag::LATCHED, 0);

    // The second flip is none that restores, whatever it says.
    bench.stage(&bench.image(&shop(3))).unwrap();
    assert_eq!(restore(&bench, 2), Some(Refusal::Frozen));
    bench.kernel.guard.call(Op::Freeze, 0, &[0], &[]).unwrap();
    assert_eq!(restore(&bench, 2), Some(Refusal::Latched));
    bench.kernel.guard.call(Op::Ack, 0, &[0], &[]).unwrap();
    assert_eq!(restore(&bench, 2), None);
    bench.kernel.guard.call(Op::Freeze, 0, &[1], &[]).unwrap();
    assert_eq!(confirm(&bench, 1), Some(Refusal::Frozen));
}

#[test]
fn a_hard_event_from_three_sources_ends_the_trial_and_latches() {
    let bench = Bench::new();
    bench.commit(&shop(2));
    // A VIP that is gone: packets for it are tombstones.
    let other = shop(2).replace("203.0.113.10", "203.0.113.11");
    bench.stage(&bench.image(&other)).unwrap();
    bench.trial(2).unwrap();
    syns(&bench, 2);
    let early = bench
        .kernel
        .maps
        .hard_events(bench.record().shadow)
        .unwrap();
    // One of 64 bits each, under a random key: two may share one.
    assert_eq!(early.events, 2);
    assert!((1..=2).contains(&early.sources.count_ones()));
    assert_eq!(ended(&bench), None, "two are not enough");
    syns(&bench, 20);
    let cause = until("the breaker", SOON, || ended(&bench)).unwrap();
    assert_eq!(cause, Cause::Breaker);
    assert_eq!(bench.active(), 1);

    bench.stage(&bench.image(&shop(3))).unwrap();
    assert_eq!(refusal(bench.trial(3)), Some(Refusal::Latched));
    bench.kernel.guard.call(Op::Ack, 0, &[0], &[]).unwrap();
    bench.trial(3).unwrap();
}

#[test]
fn removals_that_the_plan_names_never_trip() {
    let bench = Bench::new();
    bench.commit(&shop(2));
    let other = shop(2).replace("203.0.113.10", "203.0.113.11");
    bench.stage(&bench.image(&other)).unwrap();
    bench.trial_of(65_536, 2 | REMOVES, 60_000, 60_000).unwrap();
    syns(&bench, 50);
    let ticks = bench.kernel.maps.control().unwrap().ticks;
    until("three ticks", SOON, || {
        (bench.kernel.maps.control().unwrap().ticks > ticks + 3).then_some(())
    })
    .unwrap();
    assert_eq!(ended(&bench), None);
    assert_eq!(
        bench
            .kernel
            .maps
            .hard_events(bench.record().shadow)
            .unwrap()
            .events,
        0
    );
}

#[test]
fn health_takes_one_out_at_once_and_then_no_more_than_its_share() {
    let bench = Bench::with(Limits {
        ejected_ppm: 500_000,
        ..LIMITS
    });
    let image = bench.commit(&shop(4));
    let down = |index: usize| {
        let id = u64::from(image.pools[0].members[index].id);
        let args = [id, u64::from(member_state::DOWN), 1];
        refusal(bench.kernel.guard.call(Op::SetMember, 0, &args, &[]))
    };
    assert_eq!(down(0), None);
    assert_eq!(down(1), None);
    assert_eq!(down(1), None, "what is down stays down");
    assert_eq!(down(2), Some(Refusal::TooManyDown));
    let one = Bench::with(Limits {
        ejected_ppm: 0,
        ..LIMITS
    });
    let image = one.commit(&shop(2));
    let id = u64::from(image.pools[0].members[0].id);
    let args = [id, u64::from(member_state::DOWN), 1];
    one.kernel.guard.call(Op::SetMember, 0, &args, &[]).unwrap();
}

#[test]
fn a_policy_is_taken_only_with_no_trial_on() {
    let bench = Bench::new();
    bench.stage(&bench.image(&shop(2))).unwrap();
    bench.trial(1).unwrap();
    let other = Limits {
        digest: [7; 32],
        max_deadline_ms: 1,
        ..LIMITS
    };
    let set = |limits: &Limits| {
        bench
            .kernel
            .guard
            .call(Op::SetPolicy, 0, &[], limits.as_bytes())
    };
    assert_eq!(refusal(set(&other)), Some(Refusal::TrialOn));
    assert_eq!(bench.kernel.maps.policy().unwrap().digest, [0; 32]);
    bench.revert().unwrap();
    set(&other).unwrap();
    assert_eq!(bench.kernel.maps.policy().unwrap().digest, [7; 32]);
    let wrong = Limits {
        r1_ppm: 2,
        r2_ppm: 1,
        ..LIMITS
    };
    assert_eq!(refusal(set(&wrong)), Some(Refusal::OutOfRange));
}

#[test]
fn what_has_ended_is_not_tried_again() {
    let bench = Bench::new();
    bench.stage(&bench.image(&shop(2))).unwrap();
    bench.trial(1).unwrap();
    bench.revert().unwrap();
    assert_eq!(refusal(bench.trial(1)), Some(Refusal::SlotState));
}
