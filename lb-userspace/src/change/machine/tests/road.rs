//! The straight road and every way off it, without evidence.

use super::*;

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
            vec![Event::CheckPassed, Event::StageUnfit("no next hop".into())],
            CauseKind::Host,
            ExitCode::Refused,
        ),
        (
            vec![Event::CheckPassed, Event::StoreFailed("full".into())],
            CauseKind::Store,
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
            ExitCode::Refused,
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
