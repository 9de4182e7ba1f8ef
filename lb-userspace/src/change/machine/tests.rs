use lb_common::control::Cause as Ended;
use serde_json::Value;

use super::testing::{SECOND, now_at, operator, spec, spec_with_evidence};
use super::*;
use crate::exit::ExitCode;

/// A change with what it last asked for.
struct Run {
    change: Change,
    effects: Vec<Effect>,
}

impl Run {
    fn of(spec: Spec) -> Self {
        let (change, effects) = Change::new(spec, now_at(0));
        Self { change, effects }
    }

    fn at(mut self, second: u64, event: Event) -> Self {
        self.effects = self.change.step(event, now_at(second));
        self
    }

    fn prepared(spec: Spec) -> Self {
        let digest = spec.digest;
        Self::of(spec)
            .at(1, Event::CheckPassed)
            .at(1, Event::StageDone { digest })
            .at(1, Event::GoldenPassed)
    }

    /// On trial since second 1; the kernel's deadline is 121 s.
    fn baking() -> Self {
        Self::prepared(spec()).at(
            1,
            Event::Armed {
                deadline_ns: 121 * SECOND,
            },
        )
    }

    fn confirming() -> Self {
        Self::baking().at(100, confirm())
    }

    fn kinds(&self) -> Vec<&str> {
        let journal = |effect: &Effect| match effect {
            Effect::Journal(entry) => Some(Kind::as_str(&entry.kind).to_owned()),
            _ => None,
        };
        let kinds: Vec<String> = self.effects.iter().filter_map(journal).collect();
        kinds
            .iter()
            .map(|kind| {
                Kind::ALL
                    .iter()
                    .find(|k| k.as_str() == kind)
                    .unwrap()
                    .as_str()
            })
            .collect()
    }

    fn exit(&self) -> Option<ExitCode> {
        self.change.state().exit_code()
    }

    fn cause(&self) -> CauseKind {
        self.change.state().cause().unwrap().kind
    }

    fn last_text(&self) -> String {
        let text = |effect: &Effect| match effect {
            Effect::Emit(progress) => Some(progress.text.clone()),
            _ => None,
        };
        self.effects.iter().rev().find_map(text).unwrap_or_default()
    }
}

fn confirm() -> Event {
    Event::ConfirmRequested {
        by: operator(),
        accept_unproven: false,
    }
}

fn view(active: u64, trial: Trial) -> Event {
    Event::KernelObserved(KernelView { active, trial })
}

fn live() -> Event {
    view(
        6,
        Trial::Live {
            generation: 7,
            deadline_ns: 121 * SECOND,
        },
    )
}

fn over(cause: Ended) -> Event {
    view(
        6,
        Trial::Over {
            generation: 7,
            cause,
            by: u32::MAX,
        },
    )
}

#[test]
fn a_good_change_commits_when_the_kernel_says_so_and_not_before() {
    let run = Run::confirming();
    assert_eq!(run.kinds(), ["confirmed"]);
    assert!(matches!(
        run.effects.last(),
        Some(Effect::Confirm { uid: 1000 })
    ));
    let run = run.at(100, Event::ConfirmTaken);
    assert_eq!(run.change.state(), &State::Confirming);
    let run = run.at(100, view(7, Trial::None));
    assert_eq!(
        (run.change.state(), run.exit()),
        (&State::Committed, Some(ExitCode::Done))
    );
    assert_eq!(run.kinds(), ["committed"]);
}

#[test]
fn every_stage_asks_for_the_next_and_is_journalled_first() {
    let run = Run::of(spec());
    assert!(matches!(
        run.effects[..],
        [Effect::Journal(_), Effect::Emit(_), Effect::Check]
    ));
    let run = run.at(1, Event::CheckPassed);
    assert!(matches!(
        run.effects[..],
        [Effect::Journal(_), Effect::Emit(_), Effect::Stage]
    ));
    let run = run.at(
        1,
        Event::StageDone {
            digest: spec().digest,
        },
    );
    assert!(matches!(
        run.effects[..],
        [Effect::Journal(_), Effect::Emit(_), Effect::RunGolden]
    ));
    let run = run.at(1, Event::GoldenPassed);
    let within = Duration::from_mins(2);
    assert_eq!(
        run.effects.last(),
        Some(&Effect::ArmTrial {
            share_ppm: 1_000_000,
            within
        })
    );
    let run = run.at(
        2,
        Event::Armed {
            deadline_ns: 121 * SECOND,
        },
    );
    assert_eq!(
        (run.kinds(), run.change.state()),
        (vec!["trial"], &State::Baking)
    );
    assert_eq!(
        run.last_text(),
        "on trial with 100 % of new flows: confirm within 2m"
    );
    assert_eq!(run.at(3, Event::Tick).effects, [Effect::RenewLease]);
}

#[test]
fn what_fails_before_traffic_is_refused_or_aborted_and_gives_the_slot_back() {
    let wrong = crate::config::Digest::of(b"other");
    let cases = [
        (
            vec![Event::CheckFailed("x".into())],
            CauseKind::Check,
            ExitCode::Refused,
        ),
        (
            vec![Event::CheckPassed, Event::StageRefused("K5".into())],
            CauseKind::Guard,
            ExitCode::Refused,
        ),
        (
            vec![Event::CheckPassed, Event::StageFailed("x".into())],
            CauseKind::Stage,
            ExitCode::Internal,
        ),
        (
            vec![Event::CheckPassed, Event::StageDone { digest: wrong }],
            CauseKind::Digest,
            ExitCode::Internal,
        ),
        (
            vec![Event::CheckPassed, Event::CancelRequested],
            CauseKind::ClientGone,
            ExitCode::Internal,
        ),
        (
            vec![Event::CheckPassed, Event::JournalFailed("full".into())],
            CauseKind::Journal,
            ExitCode::Internal,
        ),
        (
            vec![Event::RevertRequested { by: operator() }],
            CauseKind::Operator,
            ExitCode::Refused,
        ),
    ];
    for (events, cause, exit) in cases {
        let staged = events.len() > 1;
        let run = events
            .into_iter()
            .fold(Run::of(spec()), |run, event| run.at(1, event));
        assert_eq!((run.cause(), run.exit()), (cause, Some(exit)), "{cause:?}");
        assert_eq!(
            run.effects.contains(&Effect::ReleaseSlot),
            staged,
            "{cause:?}"
        );
    }
    let run = Run::prepared(spec()).at(1, Event::ArmRefused("StaleBase".into()));
    assert_eq!(
        (run.exit(), run.kinds()),
        (Some(ExitCode::Refused), vec!["aborted"])
    );
}

#[test]
fn unconfirmed_at_the_deadline_goes_back_and_exits_4() {
    let run = Run::baking().at(120, Event::Tick);
    assert_eq!(run.effects, [Effect::RenewLease]);
    let run = run.at(121, Event::Tick);
    assert!(matches!(
        run.effects[0],
        Effect::Revert {
            trial_only: true,
            ..
        }
    ));
    assert_eq!(
        run.kinds(),
        Vec::<&str>::new(),
        "acts first, journals after"
    );
    let run = run.at(121, Event::RevertDone);
    assert_eq!(
        (run.kinds(), run.exit()),
        (vec!["reverted"], Some(ExitCode::Reverted))
    );
    assert_eq!(run.cause(), CauseKind::Deadline);
}

#[test]
fn a_confirmation_at_the_deadline_is_too_late() {
    let run = Run::baking().at(121, confirm());
    assert!(matches!(run.change.state(), State::Reverting(_)));
    assert!(matches!(run.effects[0], Effect::Revert { .. }));
}

#[test]
fn the_earlier_of_both_deadlines_counts() {
    let run = Run::prepared(spec()).at(
        1,
        Event::Armed {
            deadline_ns: 50 * SECOND,
        },
    );
    assert!(matches!(
        run.at(50, confirm()).change.state(),
        State::Reverting(_)
    ));
    let run = Run::prepared(spec()).at(
        1,
        Event::Armed {
            deadline_ns: u64::MAX,
        },
    );
    assert!(matches!(
        run.at(121, confirm()).change.state(),
        State::Reverting(_)
    ));
}

#[test]
fn what_the_kernel_ends_is_journalled_with_its_cause() {
    for (ended, cause) in [
        (Ended::Deadline, CauseKind::Deadline),
        (Ended::Lease, CauseKind::Lease),
        (Ended::Breaker, CauseKind::Breaker),
        (Ended::Revert, CauseKind::Operator),
    ] {
        for run in [Run::baking(), Run::confirming()] {
            let run = run.at(101, over(ended));
            assert_eq!((run.cause(), run.exit()), (cause, Some(ExitCode::Reverted)));
        }
    }
    let run = Run::baking().at(9, view(6, Trial::None));
    assert_eq!(run.cause(), CauseKind::Lost);
}

#[test]
fn a_failed_revert_is_tried_again_and_the_lease_is_not_renewed() {
    let run = Run::baking()
        .at(5, Event::RevertRequested { by: operator() })
        .at(5, Event::RevertFailed("EBUSY".into()));
    assert!(run.last_text().contains("EBUSY"), "{}", run.last_text());
    let run = run.at(6, Event::Tick);
    assert!(matches!(
        run.effects[..],
        [Effect::Revert {
            trial_only: true,
            ..
        }]
    ));
    let run = run.at(8, over(Ended::Lease));
    assert_eq!(
        run.cause(),
        CauseKind::Operator,
        "the decision, not what carried it out"
    );
}

#[test]
fn a_revert_that_meets_a_commit_undoes_exactly_that_commit() {
    let run = Run::confirming().at(100, Event::RevertRequested { by: operator() });
    assert!(matches!(
        run.effects[0],
        Effect::Revert {
            trial_only: true,
            ..
        }
    ));
    let run = run
        .at(100, Event::RevertFailed("NoTrial".into()))
        .at(100, view(7, Trial::None));
    assert!(matches!(
        run.effects[..],
        [Effect::Revert {
            trial_only: false,
            generation: 7,
            ..
        }]
    ));
    let run = run
        .at(100, Event::RevertFailed("lost".into()))
        .at(101, Event::Tick);
    assert!(
        matches!(
            run.effects[0],
            Effect::Revert {
                trial_only: true,
                ..
            }
        ),
        "never blindly"
    );
    let run = run.at(101, over(Ended::Revert));
    assert_eq!(run.exit(), Some(ExitCode::Reverted));
}

#[test]
fn lateness_does_not_undo_a_confirmation_that_the_kernel_took_in_time() {
    let run = Run::confirming().at(121, Event::Tick);
    assert_eq!(run.effects, [], "the answer may be on its way");
    let run = run.at(123, Event::Tick);
    assert!(matches!(
        run.effects[0],
        Effect::Revert {
            trial_only: true,
            ..
        }
    ));
    let run = run.at(123, view(7, Trial::None));
    assert_eq!(run.change.state(), &State::Committed);
}

#[test]
fn a_commit_that_nobody_asked_for_is_undone() {
    let run = Run::baking().at(5, view(7, Trial::None));
    assert!(matches!(
        run.effects[0],
        Effect::Revert {
            trial_only: false,
            ..
        }
    ));
    assert_eq!(run.at(5, Event::RevertDone).cause(), CauseKind::Unasked);
}

#[test]
fn a_refused_confirmation_can_be_repeated_until_the_deadline() {
    let run = Run::confirming().at(101, Event::ConfirmRefused("Frozen".into()));
    assert_eq!(run.change.state(), &State::Baking);
    assert!(run.last_text().contains("Frozen"));
    let run = run.at(102, confirm());
    assert_eq!(run.change.state(), &State::Confirming);
}

#[test]
fn nothing_goes_forward_unrecorded() {
    let full = || Event::JournalFailed("disk full".into());
    let run = Run::confirming().at(100, full());
    assert_eq!(run.change.state(), &State::Baking);
    let run = Run::baking().at(2, full());
    assert!(matches!(run.effects[0], Effect::Revert { .. }));
}

#[test]
fn a_final_record_is_written_as_soon_as_the_disk_takes_it() {
    let run = Run::confirming().at(100, view(7, Trial::None));
    let run = run.at(100, Event::JournalFailed("disk full".into()));
    assert_eq!(
        run.last_text(),
        "committed, but not yet recorded: disk full"
    );
    assert!(run.change.unrecorded());
    let run = run.at(101, Event::Tick);
    assert_eq!(run.kinds(), ["committed"]);
    assert!(!run.change.unrecorded());
}

#[test]
fn a_client_that_goes_away_ends_it_before_traffic_only() {
    assert!(
        Run::of(spec())
            .at(1, Event::CancelRequested)
            .change
            .state()
            .is_final()
    );
    let run = Run::baking().at(2, Event::CancelRequested);
    assert_eq!(run.change.state(), &State::Baking);
}

#[test]
fn stages_that_hang_are_given_up() {
    let run = Run::of(spec()).at(600, Event::Tick);
    assert_eq!(run.cause(), CauseKind::Slow);
    let run = Run::prepared(spec()).at(600, Event::Tick);
    assert!(
        matches!(run.effects[0], Effect::Revert { .. }),
        "it may have been armed"
    );
    assert_eq!(
        run.at(121, view(6, Trial::None)).exit(),
        Some(ExitCode::Internal)
    );
}

mod with_evidence {
    use super::*;

    fn canary() -> Run {
        Run::prepared(spec_with_evidence()).at(
            1,
            Event::Armed {
                deadline_ns: 601 * SECOND,
            },
        )
    }

    fn pass() -> Event {
        Event::Verdict(Verdict::Pass)
    }

    fn baking() -> Run {
        let far = Event::Armed {
            deadline_ns: u64::MAX,
        };
        let run = canary()
            .at(10, pass())
            .at(10, far.clone())
            .at(20, pass())
            .at(20, far);
        assert_eq!(run.change.state(), &State::Baking);
        run
    }

    #[test]
    fn each_step_needs_its_own_pass() {
        let run = canary();
        assert_eq!(run.change.state(), &State::Canary { step: 0 });
        let run = run.at(10, pass());
        let asked = run.effects.last().cloned();
        assert!(
            matches!(
                asked,
                Some(Effect::ArmTrial {
                    share_ppm: 500_000,
                    ..
                })
            ),
            "{asked:?}"
        );
        let run = run.at(10, pass());
        assert_eq!(run.effects, [], "the step has not begun yet");
        assert!(
            run.at(10, confirm())
                .last_text()
                .starts_with("not confirmed")
        );
    }

    #[test]
    fn unproven_is_not_confirmed_unless_somebody_accepts_it() {
        let run = baking().at(30, confirm());
        assert_eq!(run.change.state(), &State::Baking);
        let accept = Event::ConfirmRequested {
            by: operator(),
            accept_unproven: true,
        };
        assert_eq!(run.at(31, accept).change.state(), &State::Confirming);
        assert_eq!(
            baking().at(30, pass()).at(31, confirm()).change.state(),
            &State::Confirming
        );
    }

    #[test]
    fn inconclusive_holds_then_goes_back_with_5() {
        let thin = Event::Verdict(Verdict::Inconclusive("3 flows".into()));
        let run = canary().at(10, thin);
        assert_eq!(run.change.state(), &State::Canary { step: 0 });
        let run = run.at(601, Event::Tick).at(601, Event::RevertDone);
        assert_eq!(run.exit(), Some(ExitCode::Inconclusive));
    }

    #[test]
    fn a_failed_verdict_goes_back_at_once_even_while_confirming() {
        for run in [canary(), baking().at(30, pass()).at(30, confirm())] {
            let run = run.at(31, Event::Verdict(Verdict::Fail("S1".into())));
            assert!(matches!(run.effects[0], Effect::Revert { .. }));
            assert_eq!(run.cause(), CauseKind::Verdict);
        }
    }
}

mod adoption {
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
        let adoption = adopt(&ledger(kinds), KernelView { active, trial }, now_at(second));
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
        let adoption = adopt(&done, KernelView { active: 6, trial }, now_at(1));
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
            now_at(1),
        );
        assert_eq!(same.effects, []);
        let empty = adopt(
            &done,
            KernelView {
                active: 0,
                trial: Trial::None,
            },
            now_at(1),
        );
        assert_eq!(
            empty.effects,
            [],
            "a fresh kernel side is loaded, not journalled"
        );
    }
}
