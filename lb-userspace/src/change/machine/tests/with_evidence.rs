//! Canary steps and verdicts.

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
            .starts_with("not confirmed: it is not waiting")
    );
}

#[test]
fn in_a_canary_step_only_a_person_who_says_so_confirms_and_that_proves_nothing() {
    let thin = Event::Verdict(Verdict::Inconclusive("3 of 207 flows".into()));
    let run = canary().at(10, thin).at(11, confirm());
    assert_eq!(run.change.state(), &State::Canary { step: 0 });
    let text = run.last_text();
    assert!(text.contains("3 of 207 flows"), "{text}");
    assert!(text.contains("--accept-unproven"), "{text}");
    let accept = Event::ConfirmRequested {
        by: operator(),
        accept_unproven: true,
    };
    let run = canary().at(12, accept);
    assert_eq!(run.change.state(), &State::Confirming);
    let Some(Effect::Journal(confirmed)) = run.effects.first() else {
        panic!("{:?}", run.effects);
    };
    assert_eq!(confirmed.body["proven"], false);
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
