//! Laws of the control record.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;
use zerocopy::FromZeros;

fn record() -> ControlRecord {
    ControlRecord {
        number: 9,
        active: 1,
        lkg: 0,
        shadow: 2,
        change: 3,
        flags: control_flag::TRIAL | control_flag::FROZEN,
        share: SHARE_ALL,
        lease_ns: 100,
        deadline_ns: 200,
        active_generation: 5,
        lkg_generation: 4,
        shadow_generation: 6,
        ..ControlRecord::new_zeroed()
    }
}

#[test]
fn deadmen_fire_at_their_time_and_not_before() {
    let r = record();
    assert!(r.trial_lives(99));
    assert_eq!(r.overdue(99), Cause::None);
    assert_eq!(r.overdue(100), Cause::Lease);
    assert_eq!(r.overdue(200), Cause::Deadline);
    assert!(!r.trial_lives(100));
    let unarmed = ControlRecord {
        lease_ns: 0,
        deadline_ns: 0,
        ..r
    };
    assert!(unarmed.trial_lives(u64::MAX));
    assert_eq!((r.trial_due_ns(), unarmed.trial_due_ns()), (100, u64::MAX));
    let leased = ControlRecord { lease_ns: 0, ..r };
    assert_eq!(leased.trial_due_ns(), 200);
    let over = leased.trial_over(Cause::Deadline, 0, 201);
    assert_eq!(over.trial_due_ns(), 0);
}

#[test]
fn ends_touch_only_what_they_must() {
    let over = record().trial_over(Cause::Deadline, u32::MAX, 7);
    assert_eq!(
        (over.active, over.lkg, over.shadow, over.share),
        (1, 0, 2, 0)
    );
    assert_eq!(over.flags, control_flag::FROZEN, "freeze outlives a trial");
    assert_eq!((over.ended_generation, over.ended_ns), (6, 7));

    let flipped = record().flipped(0, 8);
    assert_eq!(
        (flipped.active, flipped.lkg, flipped.shadow),
        (2, 1, NO_SLOT)
    );
    assert_eq!((flipped.active_generation, flipped.lkg_generation), (6, 5));
    assert_eq!(flipped.ended_generation, 6);

    let back = flipped.gone_back(0, 9);
    assert_eq!(
        (back.active, back.lkg, back.active_generation),
        (1, NO_SLOT, 5)
    );
    assert_eq!(back.ended_generation, 6);
}

#[test]
fn watching_outlives_trials_and_commits() {
    let watched = record().watching(4, 300);
    for after in [
        watched,
        watched.trial_over(Cause::Deadline, 0, 7),
        watched.flipped(0, 8),
        watched.gone_back(0, 9),
    ] {
        assert_ne!(after.flags & control_flag::WATCH, 0);
        assert_eq!((after.watch_mask(), after.watch_within_ms()), (15, 300));
    }
    assert_eq!(watched.unwatched(), record());
    let most = record().watching(MOST_SAMPLING, 2_000);
    assert_eq!((most.watch_mask(), most.watch_within_ms()), (32_767, 2_000));
}

/// What happens to a node, as its owner sees it.
#[derive(Clone, Copy, Debug)]
enum Event {
    Trial,
    Over(bool),
    Commit,
    Back,
}

/// Committed generations, newest last, as far back as one can go: a stack of two.
#[derive(Debug, Default)]
struct Model {
    committed: Vec<u64>,
    trial: bool,
    newest: u64,
}

/// Applies an event to both; events that the guard would refuse change neither.
fn apply(model: &mut Model, record: ControlRecord, event: Event, now: u64) -> ControlRecord {
    match event {
        Event::Trial if !model.trial => {
            model.newest += 1;
            model.trial = true;
            let slot = (0..3).find(|slot| *slot != record.active && *slot != record.lkg);
            ControlRecord {
                shadow: slot.unwrap(),
                shadow_generation: model.newest,
                flags: record.flags | control_flag::TRIAL,
                share: SHARE_ALL,
                deadline_ns: now + 5,
                ..record
            }
        }
        Event::Over(deadline) if model.trial => {
            model.trial = false;
            let cause = if deadline {
                Cause::Deadline
            } else {
                Cause::Agent
            };
            record.trial_over(cause, 0, now)
        }
        Event::Commit if model.trial => {
            model.trial = false;
            // Generation 0 forwards nothing: it is no last known good.
            model.committed.retain(|generation| *generation != 0);
            model.committed.push(model.newest);
            record.flipped(0, now)
        }
        Event::Back if !model.trial && record.lkg != NO_SLOT => {
            model.committed.pop();
            // LKG is one generation deep: what was before it is no longer kept.
            let kept = model
                .committed
                .split_off(model.committed.len().saturating_sub(1));
            model.committed = kept;
            record.gone_back(0, now)
        }
        _ => record,
    }
}

fn holds(model: &Model, record: &ControlRecord) {
    let generations: Vec<u64> = model.committed.iter().rev().take(2).copied().collect();
    assert_eq!(record.active_generation, *generations.first().unwrap_or(&0));
    assert_eq!(record.lkg_generation, *generations.get(1).unwrap_or(&0));
    assert_eq!(record.lkg == NO_SLOT, generations.len() < 2);
    assert_ne!(record.active, record.lkg, "K5");
    assert_eq!(record.flags & control_flag::TRIAL != 0, model.trial);
    assert_eq!(record.share != 0, model.trial);
    assert_eq!(record.deadline_ns != 0, model.trial);
    if record.shadow != NO_SLOT && model.trial {
        assert!(
            record.shadow != record.active && record.shadow != record.lkg,
            "K5"
        );
    }
}

proptest! {
    #[test]
    fn the_record_is_a_stack_of_two_generations(
        events in proptest::collection::vec(prop_oneof![
            Just(Event::Trial), Just(Event::Trial), any::<bool>().prop_map(Event::Over),
            Just(Event::Commit), Just(Event::Commit), Just(Event::Back),
        ], 0..60),
    ) {
        let mut model = Model { committed: vec![0], ..Model::default() };
        let mut record = ControlRecord {
            lkg: NO_SLOT,
            shadow: NO_SLOT,
            ..ControlRecord::new_zeroed()
        };
        for (event, now) in events.into_iter().zip(1..) {
            record = apply(&mut model, record, event, now);
            holds(&model, &record);
        }
    }

    #[test]
    fn a_trial_lives_until_the_earlier_of_its_deadmen(
        lease in 0u64..20, deadline in 0u64..20, now in 0u64..20,
    ) {
        let trial = ControlRecord { lease_ns: lease, deadline_ns: deadline, ..record() };
        let due = [lease, deadline].into_iter().filter(|at| *at != 0).min();
        prop_assert_eq!(trial.trial_lives(now), due.is_none_or(|at| now < at));
        let ended = trial.trial_over(Cause::Lease, 0, now);
        prop_assert!(!ended.trial_lives(now) && !ended.trial_lives(0));
    }

    #[test]
    fn records_in_a_row_lie_apart(number in any::<u64>(), distance in 1u64..RECORDS as u64) {
        let (a, b) = (place(number), place(number.wrapping_add(distance)));
        prop_assert!(a != b && (a as usize) < RECORDS && (b as usize) < RECORDS);
    }
}
