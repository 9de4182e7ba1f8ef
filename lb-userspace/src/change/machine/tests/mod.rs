//! Scenarios, one promise each.

mod adoption;
mod clock;
mod road;
mod view;
mod with_evidence;

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
