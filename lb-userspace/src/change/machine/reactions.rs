//! What comes from outside the straight road: the kernel's word, a person's
//! wish, the clock, a failing journal.

use lb_common::control;
use serde_json::Value;

use super::{Change, Effect, KernelView, State, Trial, Verdict};
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::cause::{Cause, CauseKind};

/// How long the answer to a confirmation is awaited past the deadline. Nothing
/// depends on it: the kernel has refused or flipped by then.
const GRACE_NS: u64 = 1_000_000_000;

impl Change {
    /// The kernel's word decides what is in force.
    pub(super) fn observed(&mut self, view: KernelView) -> Vec<Effect> {
        let mine = self.spec.generation;
        match view.trial {
            _ if view.active == mine => self.flipped(),
            _ if self.before_arming() => Vec::new(),
            Trial::Live { generation, .. } if generation == mine => {
                self.armed = true;
                Vec::new()
            }
            Trial::Over {
                generation,
                cause,
                by,
            } if generation == mine => {
                self.armed = true;
                self.over(kernel_cause(cause, by), by)
            }
            _ => match &self.state {
                State::Reverting(cause) if self.armed => {
                    let cause = cause.clone();
                    self.end(State::Reverted(cause))
                }
                State::Reverting(cause) => {
                    let cause = cause.clone();
                    self.end(State::Aborted(cause))
                }
                state if state.on_trial() => {
                    self.end(State::Reverted(Cause::new(CauseKind::Lost, "")))
                }
                _ => Vec::new(),
            },
        }
    }

    /// The kernel forwards this generation as committed.
    fn flipped(&mut self) -> Vec<Effect> {
        self.armed = true;
        match &self.state {
            // Decided against it for a better reason than lateness.
            State::Reverting(cause) if !cause.is_lateness() => vec![self.revert(false)],
            _ if self.confirmed_by.is_some() => self.end(State::Committed),
            _ => {
                let cause = Cause::new(CauseKind::Unasked, "");
                let text = format!("going back: {cause}");
                self.state = State::Reverting(cause);
                vec![self.revert(false), self.emit(&text)]
            }
        }
    }

    /// The kernel has ended the trial.
    pub(super) fn over(&mut self, cause: Cause, by: u32) -> Vec<Effect> {
        if let State::Reverting(own) = &self.state {
            let own = own.clone();
            return self.end(State::Reverted(own));
        }
        self.ended_by = Actor::by_uid(by);
        let mut cause = self.lateness_or(cause);
        if cause.kind == CauseKind::Breaker
            && let Some(about) = self.evidence.get("breaker").and_then(Value::as_str)
        {
            about.clone_into(&mut cause.detail);
        }
        self.end(State::Reverted(cause))
    }

    pub(super) fn revert_requested(&mut self, by: Actor) -> Vec<Effect> {
        let cause = Cause::new(CauseKind::Operator, by.user.clone());
        self.ended_by = by;
        match &mut self.state {
            State::Draft | State::Validated | State::Staged => self.abort(cause),
            // A person's wish outranks lateness: it undoes a commit as well.
            State::Reverting(own) if own.is_lateness() => {
                *own = cause;
                vec![self.revert(true)]
            }
            State::Reverting(_) => Vec::new(),
            _ => self.go_back(cause),
        }
    }

    pub(super) fn cancelled(&mut self) -> Vec<Effect> {
        let cause = Cause::new(CauseKind::ClientGone, "");
        match self.state {
            State::Draft | State::Validated | State::Staged => self.abort(cause),
            State::Tested => self.go_back(cause),
            // On trial it goes on: the deadline stands, and anybody may confirm.
            _ => Vec::new(),
        }
    }

    pub(super) fn journal_failed(&mut self, error: String) -> Vec<Effect> {
        let cause = Cause::new(CauseKind::Journal, error);
        match self.state {
            State::Draft | State::Validated | State::Staged => self.abort(cause),
            State::Confirming => {
                self.state = self.waiting();
                self.confirmed_by = None;
                vec![self.emit(&format!("not confirmed: {cause}"))]
            }
            State::Reverting(_) => Vec::new(),
            _ => self.go_back(cause),
        }
    }

    pub(super) fn tick(&mut self, now: Now) -> Vec<Effect> {
        let overdue = self.overdue(now);
        match self.state {
            State::Draft | State::Validated | State::Staged if overdue => {
                self.abort(Cause::new(CauseKind::Slow, ""))
            }
            State::Tested if overdue => self.go_back(Cause::new(CauseKind::Slow, "")),
            // The answer to a confirmation may be on its way.
            State::Confirming if overdue && self.within_grace(now) => Vec::new(),
            State::Canary { .. } | State::Baking | State::Confirming if overdue => self.too_late(),
            State::Canary { .. } | State::Baking | State::Confirming => vec![Effect::RenewLease],
            State::Reverting(_) => vec![self.revert(true)],
            _ => Vec::new(),
        }
    }

    fn before_arming(&self) -> bool {
        matches!(self.state, State::Draft | State::Validated | State::Staged)
    }

    fn within_grace(&self, now: Now) -> bool {
        now.boot_ns < self.deadline_ns.saturating_add(GRACE_NS)
    }

    pub(super) fn overdue(&self, now: Now) -> bool {
        now.boot_ns >= self.deadline_ns
    }

    pub(super) fn too_late(&mut self) -> Vec<Effect> {
        let cause = self.lateness_or(Cause::new(CauseKind::Deadline, ""));
        self.ended_by = Actor::kernel();
        self.go_back(cause)
    }

    /// Running out of time with evidence that never passed is inconclusive.
    fn lateness_or(&self, cause: Cause) -> Cause {
        let passed = self.verdict == Some(Verdict::Pass);
        if cause.kind != CauseKind::Deadline || !self.spec.evidence || passed {
            return cause;
        }
        let why = match &self.verdict {
            Some(Verdict::Inconclusive(why)) => why.clone(),
            _ => "no verdict in time".to_owned(),
        };
        Cause::new(CauseKind::Inconclusive, why)
    }

    /// Acts first; the record follows when the kernel has gone back.
    pub(super) fn go_back(&mut self, cause: Cause) -> Vec<Effect> {
        let text = format!("going back: {cause}");
        self.state = State::Reverting(cause);
        vec![self.revert(true), self.emit(&text)]
    }

    /// A trial is ended without looking further. A commit is undone only when it
    /// has just been seen: a blind second try would go one generation too far.
    fn revert(&self, trial_only: bool) -> Effect {
        let cause = self.state.cause().cloned();
        let cause = cause.unwrap_or_else(|| Cause::new(CauseKind::Lost, ""));
        Effect::Revert {
            generation: self.spec.generation,
            cause,
            trial_only,
        }
    }
}

/// The kernel's reason in the journal's words.
pub(super) fn kernel_cause(cause: control::Cause, by: u32) -> Cause {
    let kind = match cause {
        control::Cause::Deadline => CauseKind::Deadline,
        control::Cause::Lease => CauseKind::Lease,
        control::Cause::Breaker => CauseKind::Breaker,
        control::Cause::Agent => CauseKind::Verdict,
        control::Cause::Revert => {
            return Cause::new(CauseKind::Operator, Actor::by_uid(by).user);
        }
        control::Cause::None | control::Cause::Confirmed => CauseKind::Lost,
    };
    Cause::new(kind, "")
}
