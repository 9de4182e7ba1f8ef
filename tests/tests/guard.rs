//! The guard in the kernel: what it lets through, what it refuses, and in which words.

use lb_common::control::{Cause, NO_SLOT, control_flag};
use lb_common::guard::{Op, Refusal};
use lb_tests::bench::{Bench, refusal, shop};

#[test]
fn a_change_goes_through_its_slot_and_back() {
    let bench = Bench::new();
    assert_eq!((bench.record().active, bench.active()), (0, 0));

    let sealed = bench.stage(&bench.image(&shop(4))).unwrap();
    assert_eq!(
        (sealed.class, sealed.vips_added, sealed.moved_ppm),
        (2, 1, 0)
    );
    bench.trial(1).unwrap();
    assert_ne!(bench.record().flags & control_flag::TRIAL, 0);
    assert_eq!(bench.active(), 0, "on trial, ACTIVE stays");
    bench.confirm().unwrap();
    let first = bench.record();
    assert_eq!((first.active_generation, first.lkg_generation), (1, 0));
    assert_eq!(first.shadow, NO_SLOT);

    // One of four backends away: a quarter moves, and little of the rest.
    let sealed = bench.stage(&bench.image(&shop(3))).unwrap();
    assert_eq!(sealed.class, 2);
    assert!(
        (250_000..300_000).contains(&sealed.moved_ppm),
        "{}",
        sealed.moved_ppm
    );
    bench.trial(2).unwrap();
    bench.revert().unwrap();
    let back = bench.record();
    assert_eq!((back.active_generation, back.share), (1, 0));
    assert_eq!(Cause::from_code(back.cause), Cause::Revert);

    bench.commit(&shop(5));
    assert_eq!(bench.active(), 3, "numbers only rise");
    bench.revert().unwrap();
    assert_eq!(bench.active(), 1, "after a commit, back is LKG");
    assert_eq!(refusal(bench.revert()), Some(Refusal::NoLkg));
}

#[test]
fn an_unchanged_table_is_shared_and_moves_nothing() {
    let bench = Bench::new();
    let first = bench.commit(&shop(4));
    let again = bench.image(&shop(4));
    assert!(again.pools[0].table.shared);
    assert_eq!(again.pools[0].table.id, first.pools[0].table.id);
    let sealed = bench.stage(&again).unwrap();
    assert_eq!(
        (sealed.class, sealed.moved_ppm, sealed.vips_changed),
        (0, 0, 0)
    );
}

#[test]
fn commands_of_another_session_or_base_are_refused() {
    let bench = Bench::new();
    bench.commit(&shop(3));
    let image = bench.image(&shop(2));
    bench.stage(&image).unwrap();
    let guard = &bench.kernel.guard;
    assert_eq!(
        refusal(guard.call(Op::Trial, 7, &[65_536, 1, 9, 9, 1], &[])),
        Some(Refusal::StaleBase)
    );
    assert_eq!(
        refusal(guard.call(Op::Begin, 1, &[2], &[0; 32])),
        Some(Refusal::OldGeneration)
    );
    assert_eq!(
        refusal(guard.call(Op::Lease, 0, &[100], &[])),
        Some(Refusal::NoTrial)
    );
    assert_eq!(refusal(bench.confirm()), Some(Refusal::NoTrial));
    assert_eq!(refusal(bench.trial_of(0, 1, 9, 9)), Some(Refusal::BadShare));
    assert_eq!(
        refusal(bench.trial_of(9, 0, 9, 9)),
        Some(Refusal::OutOfRange)
    );
    assert_eq!(
        refusal(bench.trial_of(9, 1, 9, 0)),
        Some(Refusal::BadDeadline)
    );
    assert_eq!(
        refusal(bench.trial_of(9, 1, 9, 3_600_001)),
        Some(Refusal::BadDeadline)
    );
}

#[test]
fn recycled_numbers_wait_for_two_sweeps() {
    let bench = Bench::new();
    bench.commit(&shop(4));
    bench.commit(&shop(3));
    bench.commit(&shop(2));
    // Three commits: no slot has web-4 any more once the third was cleared for.
    bench.stage(&bench.image(&shop(2))).unwrap();
    let numbers = lb_userspace::kernel::numbers::Numbers::read(&bench.kernel.maps).unwrap();
    let idle = numbers.idle_members();
    assert!(!idle.is_empty());
    let first = u64::from(idle[0]);
    assert_eq!(
        refusal(bench.kernel.guard.call(Op::FreeMember, 0, &[first], &[])),
        Some(Refusal::Unswept)
    );
    let freed = lb_userspace::kernel::stage::recycle(&bench.kernel, &idle).unwrap();
    assert_eq!(freed, idle.len());
}

#[test]
fn a_restore_that_was_cut_short_is_begun_again() {
    let bench = Bench::new();
    let image = bench.image(&shop(2));
    for _ in 0..2 {
        // An agent that died after the seal: nothing is committed, so the number may be used again.
        lb_userspace::kernel::stage::stage(&bench.kernel, &image, 7, 0).unwrap();
    }
    bench.trial(1).unwrap();
    bench.confirm().unwrap();
    assert_eq!(bench.active(), 7);
    let again = lb_userspace::kernel::stage::stage(&bench.kernel, &image, 7, 7);
    assert_eq!(refusal(again), Some(Refusal::OldGeneration));
}
