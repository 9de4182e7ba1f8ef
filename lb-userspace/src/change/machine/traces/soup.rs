//! Any event at any time, watched by a witness.

use lb_common::control::Cause as Ended;

use super::super::testing::{SECOND, now_at, operator, spec};
use super::*;
use crate::config::Digest;
use crate::exit::ExitCode;

fn any_event(rng: &mut Rng, now_ns: u64) -> Event {
    let text = || "x".to_owned();
    match rng.below(27) {
        0 => Event::CheckPassed,
        1 => Event::CheckFailed(text()),
        2 => Event::StageDone {
            digest: spec().digest,
        },
        3 => Event::StageDone {
            digest: Digest::of(b"other"),
        },
        4 => Event::StageRefused(text()),
        5 => Event::StageFailed(text()),
        6 => Event::GoldenPassed,
        7 => Event::GoldenFailed(text()),
        26 => Event::ProbeFailed(text()),
        8 => Event::Armed {
            deadline_ns: now_ns + rng.below(200) * SECOND,
        },
        9 => Event::ArmRefused(text()),
        10 => Event::ArmFailed(text()),
        11 | 12 => Event::KernelObserved(any_view(rng)),
        13 => Event::ConfirmRequested {
            by: operator(),
            accept_unproven: rng.one_in(2),
        },
        14 => Event::ConfirmTaken,
        15 => Event::ConfirmRefused(text()),
        16 => Event::RevertRequested { by: operator() },
        17 => Event::RevertDone,
        18 => Event::RevertFailed(text()),
        19 => Event::JournalFailed(text()),
        20 => Event::Verdict(Verdict::Pass),
        21 => Event::Verdict(Verdict::Inconclusive(text())),
        22 => Event::CancelRequested,
        23 => Event::StageUnfit(text()),
        24 => Event::StoreFailed(text()),
        _ => Event::Tick,
    }
}

fn any_view(rng: &mut Rng) -> KernelView {
    let generation = if rng.one_in(4) { BASE } else { MINE };
    let trial = match rng.below(4) {
        0 => Trial::None,
        1 | 2 => Trial::Live {
            generation,
            deadline_ns: u64::MAX,
        },
        _ => Trial::Over {
            generation,
            cause: Ended::Lease,
            by: u32::MAX,
        },
    };
    KernelView {
        active: if rng.one_in(8) { MINE } else { BASE },
        trial,
    }
}

/// What a good change would meet next.
fn natural(change: &Change, now_ns: u64, rng: &mut Rng) -> Event {
    match change.state() {
        State::Draft => Event::CheckPassed,
        State::Validated => Event::StageDone {
            digest: change.spec().digest,
        },
        State::Staged => Event::GoldenPassed,
        State::Tested => Event::Armed {
            deadline_ns: now_ns + 120 * SECOND,
        },
        State::Canary { .. } if rng.one_in(2) => Event::Armed {
            deadline_ns: u64::MAX,
        },
        State::Canary { .. } => Event::Verdict(Verdict::Pass),
        State::Baking if change.spec().evidence && rng.one_in(2) => Event::Verdict(Verdict::Pass),
        State::Baking => Event::ConfirmRequested {
            by: operator(),
            accept_unproven: false,
        },
        State::Confirming => Event::KernelObserved(KernelView {
            active: MINE,
            trial: Trial::None,
        }),
        _ => Event::RevertDone,
    }
}

/// Sees events, effects and states; remembers what was proven.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a promise")]
struct Witness {
    checked: bool,
    staged: bool,
    golden: bool,
    arm_bound: u64,
    armed: bool,
    deadline: u64,
    passed: bool,
    confirmed: bool,
    flipped: bool,
    ended: bool,
    went_back: bool,
    last_final: Option<Entry>,
}

impl Witness {
    fn sees(&mut self, before: &State, event: &Event, now: Now, spec: &Spec) {
        match (before, event) {
            (State::Draft, Event::CheckPassed) => self.checked = true,
            (State::Validated, Event::StageDone { digest }) if *digest == spec.digest => {
                self.staged = self.checked;
            }
            (State::Staged, Event::GoldenPassed) => self.golden = self.staged,
            (State::Tested | State::Canary { .. }, Event::Armed { deadline_ns })
                if self.arm_bound > 0 =>
            {
                self.armed = self.golden;
                self.deadline = self.arm_bound.min(*deadline_ns);
                self.arm_bound = 0;
                self.passed = false;
            }
            (s, Event::Verdict(verdict)) if s.on_trial() && now.boot_ns < self.deadline => {
                self.passed = *verdict == Verdict::Pass;
                let bakes = *s == State::Baking;
                self.confirmed |= self.armed && self.passed && bakes && spec.confirm_auto;
            }
            (
                State::Baking,
                Event::ConfirmRequested {
                    accept_unproven, ..
                },
            ) => {
                let proven = !spec.evidence || self.passed || *accept_unproven;
                self.confirmed |= self.armed && proven && now.boot_ns < self.deadline;
            }
            (
                State::Canary { .. },
                Event::ConfirmRequested {
                    accept_unproven: true,
                    ..
                },
            ) => self.confirmed |= self.armed && now.boot_ns < self.deadline,
            (_, Event::KernelObserved(view)) => {
                self.flipped = view.active == MINE;
                self.ended |= !matches!(
                    view.trial,
                    Trial::Live {
                        generation: MINE,
                        ..
                    }
                );
            }
            _ => {}
        }
    }

    fn checks(&mut self, event: &Event, effects: &[Effect], after: &State, now: Now) {
        for (place, effect) in effects.iter().enumerate() {
            match effect {
                Effect::ArmTrial { within, .. } => {
                    assert!(self.golden, "armed untested");
                    self.arm_bound = later(now, *within);
                }
                Effect::Confirm { .. } => {
                    assert!(
                        self.confirmed && now.boot_ns < self.deadline,
                        "confirmed late"
                    );
                    assert!(matches!(effects[0], Effect::Journal(_)), "unrecorded");
                }
                Effect::RenewLease => {
                    assert!(
                        after.on_trial() && now.boot_ns < self.deadline,
                        "lease too long"
                    );
                    assert_eq!(place + 1, effects.len(), "not the last act");
                }
                Effect::Revert { trial_only, .. } => {
                    self.went_back = true;
                    assert_eq!(place, 0, "going back comes first");
                    assert!(
                        *trial_only || self.sees_flip(event),
                        "blind second step back"
                    );
                }
                Effect::Journal(entry) if entry.kind.is_final() => {
                    self.last_final = Some(entry.clone());
                }
                _ => {}
            }
        }
    }

    fn sees_flip(&self, event: &Event) -> bool {
        self.flipped && matches!(event, Event::KernelObserved(_))
    }

    fn judges_the_end(&self, state: &State) {
        let entry = self.last_final.as_ref().unwrap();
        assert_eq!(
            entry.kind.as_str(),
            state.name(),
            "journal and state disagree"
        );
        assert_eq!(
            state.exit_code(),
            exit_by_journal(entry),
            "journal and exit code disagree"
        );
        match state {
            State::Committed => {
                assert!(
                    self.checked && self.staged && self.golden && self.armed,
                    "unproven"
                );
                assert!(self.confirmed && self.flipped, "unconfirmed");
            }
            _ if self.armed => assert!(self.went_back || self.ended, "left on trial"),
            _ => {}
        }
    }
}

/// The exit code as somebody would derive it from the journal alone.
fn exit_by_journal(entry: &Entry) -> Option<ExitCode> {
    let cause = Cause::from_body(&entry.body);
    match (&entry.kind, cause) {
        (Kind::Committed, None) => Some(ExitCode::Done),
        (Kind::Rejected, Some(_)) => Some(ExitCode::Refused),
        (Kind::Aborted, Some(cause)) => Some(cause.exit_before_traffic()),
        (Kind::Reverted, Some(cause)) => match cause.kind {
            CauseKind::Inconclusive => Some(ExitCode::Inconclusive),
            _ => Some(ExitCode::Reverted),
        },
        _ => None,
    }
}

/// Runs one trace; returns the state it ended in.
fn soup(seed: u64) -> State {
    let mut rng = Rng(seed);
    let mut seconds = 0;
    let (mut change, effects) = Change::new(any_spec(&mut rng), now_at(0));
    let mut witness = Witness::default();
    witness.checks(&Event::Tick, &effects, change.state(), now_at(0));
    for _ in 0..40 {
        seconds += if rng.one_in(40) { 130 } else { rng.below(4) };
        let now = now_at(seconds);
        let straight = !rng.one_in(5);
        let event = if straight {
            natural(&change, now.boot_ns, &mut rng)
        } else {
            any_event(&mut rng, now.boot_ns)
        };
        let before = change.state().clone();
        witness.sees(&before, &event, now, change.spec());
        let effects = change.step(event.clone(), now);
        if before.is_final() {
            assert_eq!(change.state(), &before, "a final state changed");
            for effect in &effects {
                assert!(
                    matches!(effect, Effect::Journal(_) | Effect::Emit(_)),
                    "{effect:?}"
                );
            }
        }
        witness.checks(&event, &effects, change.state(), now);
        if change.state().is_final() && !before.is_final() {
            witness.judges_the_end(change.state());
        }
    }
    change.state().clone()
}

#[test]
fn no_soup_of_events_breaks_a_promise() {
    let mut ends = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..traces() {
        *ends.entry(seeded("soup", seed, soup).name()).or_default() += 1;
    }
    for name in ["committed", "rejected", "aborted", "reverted"] {
        let count = ends.get(name).copied().unwrap_or_default();
        assert!(
            count * 100 > traces(),
            "{name} only {count} times: the traces prove nothing"
        );
    }
}
