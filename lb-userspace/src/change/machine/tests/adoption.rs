//! What a started agent makes of journal and kernel.

use super::*;
use crate::change::journal::{Chain, Record};
use crate::change::ledger::Ledger;

fn ledger(kinds: &[Kind]) -> Ledger {
    let mut chain = Chain::default();
    let records: Vec<Record> = kinds
        .iter()
        .map(|kind| {
            let body = if *kind == Kind::Draft {
                json!(spec())
            } else {
                Value::Null
            };
            let entry = Entry {
                kind: kind.clone(),
                change: Some(3),
                generation: Some(7),
                actor: operator(),
                why: None,
                body,
            };
            let (record, _) = chain.extend(entry, now_at(50)).unwrap();
            chain.advance(&record);
            record
        })
        .collect();
    Ledger::of(&records)
}

fn adopted(kinds: &[Kind], active: u64, trial: Trial, second: u64) -> Run {
    let adoption = adopt(
        &ledger(kinds),
        KernelView { active, trial },
        Value::Null,
        now_at(second),
    );
    Run {
        change: adoption.change.unwrap(),
        effects: adoption.effects,
    }
}

#[test]
fn the_kernel_wins_and_the_journal_is_completed() {
    use Kind::{Confirmed, Draft, Staged, Tested, Trial as Armed};
    let gone = Trial::Over {
        generation: 7,
        cause: Ended::Lease,
        by: u32::MAX,
    };
    for (kinds, active, trial, second, written, cause) in [
        (
            vec![Draft, Armed, Confirmed],
            7,
            Trial::None,
            60,
            "committed",
            None,
        ),
        (vec![Draft, Armed], 7, Trial::None, 60, "committed", None),
        (
            vec![Draft, Tested],
            6,
            gone,
            60,
            "reverted",
            Some(CauseKind::Lease),
        ),
        (
            vec![Draft, Armed, Confirmed],
            6,
            gone,
            60,
            "reverted",
            Some(CauseKind::Lease),
        ),
        (
            vec![Draft, Armed],
            6,
            Trial::None,
            60,
            "reverted",
            Some(CauseKind::Lost),
        ),
        (
            vec![Draft, Armed],
            0,
            Trial::None,
            60,
            "reverted",
            Some(CauseKind::HostRestart),
        ),
        (
            vec![Draft, Armed],
            6,
            Trial::None,
            9,
            "reverted",
            Some(CauseKind::HostRestart),
        ),
        (
            vec![Draft, Staged],
            6,
            Trial::None,
            60,
            "aborted",
            Some(CauseKind::AgentRestart),
        ),
        (
            vec![Draft],
            6,
            Trial::None,
            60,
            "aborted",
            Some(CauseKind::AgentRestart),
        ),
    ] {
        let run = adopted(&kinds, active, trial, second);
        let found = run.change.state().cause().map(|cause| cause.kind);
        assert_eq!((run.kinds(), found), (vec![written], cause), "{kinds:?}");
    }
}

#[test]
fn a_live_trial_goes_on_under_the_deadline_that_the_kernel_has() {
    let trial = Trial::Live {
        generation: 7,
        deadline_ns: 121 * SECOND,
    };
    let run = adopted(&[Kind::Draft, Kind::Trial], 6, trial, 60);
    assert_eq!(
        (run.change.state(), run.kinds()),
        (&State::Baking, vec!["adopted"])
    );
    let run = run
        .at(61, live())
        .at(70, confirm())
        .at(70, view(7, Trial::None));
    assert_eq!(run.exit(), Some(ExitCode::Done));
    let run = adopted(&[Kind::Draft, Kind::Trial], 6, trial, 60).at(121, Event::Tick);
    assert!(matches!(run.effects[0], Effect::Revert { .. }));
}

#[test]
fn a_trial_that_the_journal_does_not_know_is_ended() {
    let trial = Trial::Live {
        generation: 9,
        deadline_ns: 1,
    };
    let adoption = adopt(
        &Ledger::default(),
        KernelView { active: 6, trial },
        Value::Null,
        now_at(1),
    );
    assert!(adoption.change.is_none());
    let first = &adoption.effects[0];
    assert!(matches!(
        first,
        Effect::Revert {
            generation: 9,
            trial_only: true,
            ..
        }
    ));
}

#[test]
fn what_made_the_breaker_trip_with_no_agent_there_is_written_down() {
    let trial = Trial::Over {
        generation: 7,
        cause: Ended::Breaker,
        by: u32::MAX,
    };
    let adoption = adopt(
        &ledger(&[Kind::Draft, Kind::Trial]),
        KernelView { active: 6, trial },
        json!({"breaker": "handshakes of shop-v4 fail"}),
        now_at(1),
    );
    let state = adoption.change.unwrap().state().clone();
    let cause = Cause::new(CauseKind::Breaker, "handshakes of shop-v4 fail");
    assert_eq!(state, State::Reverted(cause));
}

#[test]
fn a_revert_that_no_agent_saw_is_written_down() {
    let done = Ledger {
        committed: Some(7),
        ..Ledger::default()
    };
    let trial = Trial::Over {
        generation: 7,
        cause: Ended::Revert,
        by: 1000,
    };
    let adoption = adopt(
        &done,
        KernelView { active: 6, trial },
        Value::Null,
        now_at(1),
    );
    let [Effect::Journal(entry)] = &adoption.effects[..] else {
        panic!()
    };
    assert_eq!(
        (&entry.kind, entry.generation),
        (&Kind::RolledBack, Some(6))
    );
    assert_eq!(entry.actor.uid, 1000);
    let same = adopt(
        &done,
        KernelView {
            active: 7,
            trial: Trial::None,
        },
        Value::Null,
        now_at(1),
    );
    assert_eq!(same.effects, []);
    let empty = adopt(
        &done,
        KernelView {
            active: 0,
            trial: Trial::None,
        },
        Value::Null,
        now_at(1),
    );
    assert_eq!(
        empty.effects,
        [],
        "a fresh kernel side is loaded, not journalled"
    );
}
