//! Trials that must not begin, and what must not happen during one.

use lb_common::control::{NO_SLOT, SHARE_ALL};
use lb_common::guard::{Op, Refusal};
use lb_tests::bench::refusal;
use lb_tests::draft::{Draft, Said};

use crate::{Running, base, change, refused};

/// Arguments of a trial: share, salt, lease, deadline, change.
fn trial(draft: &Draft<'_>, lease: u64, deadline: u64) -> Said {
    let share = u64::from(SHARE_ALL);
    draft.call(Op::Trial, &[share, 1, lease, deadline, 3], &[])
}

#[test]
fn trials_that_must_not_begin() {
    let running = Running::new();
    running.refuses("SHADOW is not sealed", |draft| {
        draft.compared().expect("compared");
        (
            trial(draft, 1_000, 1_000),
            refused(Refusal::SlotState, &[1]),
        )
    });
    running.refuses("R3 without a lease", |draft| {
        // Laid out anew, so that no gap hides another VIP.
        draft.config.vips.retain(|vip| vip.name != "metal");
        draft.image = draft.bench.image_of(&draft.config);
        let sealed = draft.sealed().expect("sealed");
        assert_eq!((sealed[0], sealed[3]), (3, 1), "a VIP less is R3");
        (trial(draft, 0, 1_000), refused(Refusal::NeedsDeadmen, &[3]))
    });
    running.refuses("no deadline", |draft| {
        draft.sealed().expect("sealed");
        let longest = u64::from(draft.bench.kernel.maps.policy().unwrap().max_deadline_ms);
        (
            trial(draft, 1_000, 0),
            refused(Refusal::BadDeadline, &[0, longest]),
        )
    });
    running.refuses("a deadline beyond the policy", |draft| {
        draft.sealed().expect("sealed");
        let longest = u64::from(draft.bench.kernel.maps.policy().unwrap().max_deadline_ms);
        let numbers = [longest + 1, longest];
        (
            trial(draft, 1_000, longest + 1),
            refused(Refusal::BadDeadline, &numbers),
        )
    });
    running.refuses("a lease beyond the policy", |draft| {
        draft.sealed().expect("sealed");
        let longest = u64::from(draft.bench.kernel.maps.policy().unwrap().max_deadline_ms);
        let numbers = [longest + 1, longest];
        (
            trial(draft, longest + 1, 1_000),
            refused(Refusal::BadDeadline, &numbers),
        )
    });
    running.refuses("a share of nothing", |draft| {
        draft.sealed().expect("sealed");
        let said = draft.call(Op::Trial, &[0, 1, 9, 9, 3], &[]);
        (said, refused(Refusal::BadShare, &[]))
    });
    running.refuses("a share of more than all", |draft| {
        draft.sealed().expect("sealed");
        let above = u64::from(SHARE_ALL) + 1;
        let said = draft.call(Op::Trial, &[above, 1, 9, 9, 3], &[]);
        (said, refused(Refusal::BadShare, &[]))
    });
    running.refuses("a change id beyond those of flows", |draft| {
        draft.sealed().expect("sealed");
        let above = u64::from(lb_common::flow::MAX_CHANGE) + 1;
        let said = draft.call(Op::Trial, &[9, 1, 9, 9, above], &[]);
        (said, refused(Refusal::OutOfRange, &[above]))
    });
    running.refuses("a commit without a trial", |draft| {
        draft.sealed().expect("sealed");
        (
            draft.call(Op::Confirm, &[0], &[]),
            refused(Refusal::NoTrial, &[1]),
        )
    });
}

#[test]
fn during_a_trial_nothing_is_written_and_no_other_begins() {
    let running = Running::new();
    let draft = Draft::of(&running.bench, &change());
    draft.sealed().expect("sealed");
    trial(&draft, 60_000, 60_000).expect("trial");
    let pool = draft.image.pools[0].clone();
    let before = running.kept();
    let attempts = [
        ("begin", draft.begin()),
        ("trial", trial(&draft, 60_000, 60_000)),
        ("clear", draft.call(Op::Clear, &[], &[])),
        ("pool", draft.pool(&pool)),
        ("members", draft.members(&pool.members)),
        ("open", draft.open(pool.number, &pool.table)),
        ("write", draft.write(&pool.table)),
        ("seal table", draft.seal_table(&pool.table)),
        ("vips", draft.vips(&draft.image.vips)),
        ("walk", draft.walk(&pool)),
        ("compare", draft.compare(&draft.image.vips[0])),
        ("seal", draft.seal(draft.totals())),
        ("abandon", draft.call(Op::Abandon, &[], &[])),
    ];
    for (what, said) in attempts {
        assert_eq!(refusal(said), Some(Refusal::TrialOn), "{what}");
    }
    assert_eq!(running.kept(), before);
    running.bench.confirm().expect("confirm");
}

#[test]
fn a_caller_without_the_session_may_only_go_back_and_read_the_clock() {
    let running = Running::new();
    let mut other =
        lb_userspace::kernel::guard::Guard::open(&running.bpffs.pins().program("guard"))
            .expect("the pinned guard");
    for session in [0, 4711] {
        other.set_session(session);
        let before = running.kept();
        for op in Op::ALL {
            let free = matches!(op, Op::Start | Op::Revert | Op::Clock);
            if !free {
                // To freeze is free, too; to thaw is not.
                let first = u64::from(*op != Op::Freeze);
                let said = other.call(*op, running.bench.active(), &[first, 1, 1, 1, 1], &[0; 128]);
                assert_eq!(refusal(said), Some(Refusal::Session), "{op:?}");
            }
        }
        other.call(Op::Clock, 0, &[], &[]).expect("clock");
        assert_eq!(running.kept(), before);
    }
    let (active, lkg) = (
        running.bench.active(),
        running.bench.record().lkg_generation,
    );
    let gone = other.call(Op::Revert, 0, &[7], &[]).expect("revert");
    assert_eq!(gone[..2], [active, lkg]);
    assert_eq!(running.bench.active(), lkg);
}

#[test]
fn going_back_leaves_room_for_the_next_change() {
    let running = Running::new();
    let bench = &running.bench;
    bench.revert().expect("revert");
    assert_eq!(bench.record().lkg, NO_SLOT);
    bench.commit(&change());
    bench.commit(&base(2));
    bench.revert().expect("revert");
    bench.stage(&bench.image(&base(1))).expect("stage");
}
