//! The states of a change (DESIGN 5), without I/O: [`Change::step`] takes an
//! event and the time, and says what to do.
//!
//! ```text
//! draft -> validated -> staged -> tested -> canary(step)... -> baking -> confirming -> committed
//!   '----------'-----------'-> rejected / aborted   '-------------'----------'-> reverting -> reverted
//! ```
//!
//! What it promises, whatever order events come in (`traces.rs` tries):
//!
//! - committed only after checks, staging of the very digest, golden packets, an
//!   armed trial, a confirmation before the deadline, and the kernel's own word;
//! - a final state never changes;
//! - going back acts first and is journalled after; it is tried until it works,
//!   while the lease, no longer renewed, runs out in the kernel all the same;
//! - inconclusive is never a pass.

mod adopt;
mod ending;
mod reactions;
mod types;

pub use adopt::{Adoption, adopt};
pub use types::{Effect, Event, KernelView, Progress, Spec, State, Trial, Verdict};

use std::time::Duration;

use serde_json::{Value, json};

use super::Now;
use super::actor::Actor;
use super::cause::{Cause, CauseKind};
use super::journal::{Entry, Kind};
use reactions::kernel_cause;

/// One attempt to go from a generation to the next.
#[derive(Clone, Debug)]
pub struct Change {
    spec: Spec,
    state: State,
    /// The end of this step, boot-time ns: machine's and kernel's, the earlier.
    deadline_ns: u64,
    /// The end of the step that is being armed, by the machine's reckoning.
    next_deadline_ns: u64,
    /// Trial step that runs or is being armed.
    step: usize,
    /// A move to the next canary step has been asked for and not answered.
    moving: bool,
    /// The kernel has had the trial, as far as is known.
    armed: bool,
    /// The slot may hold something of this change.
    slot_used: bool,
    /// Who confirmed in time.
    confirmed_by: Option<Actor>,
    /// Who is behind the decision to go back.
    ended_by: Actor,
    /// The last verdict of this step.
    verdict: Option<Verdict>,
    /// Its numbers; null without.
    evidence: Value,
    /// Whether what was confirmed had passed; `None` before that.
    proven: Option<bool>,
    /// The final record, as long as it could not be written.
    unrecorded: Option<Entry>,
}

impl Change {
    /// A new change, and what to do first.
    pub fn new(spec: Spec, now: Now) -> (Self, Vec<Effect>) {
        let prepare = Duration::from_millis(spec.prepare_within_ms);
        let mut change = Self::at(spec, State::Draft, later(now, prepare));
        let effects = vec![
            change.journal(Kind::Draft, json!(change.spec)),
            change.emit("checking"),
            Effect::Check,
        ];
        change.slot_used = false;
        (change, effects)
    }

    fn at(spec: Spec, state: State, deadline_ns: u64) -> Self {
        Self {
            ended_by: spec.author.clone(),
            spec,
            state,
            deadline_ns,
            next_deadline_ns: deadline_ns,
            step: 0,
            moving: false,
            armed: false,
            slot_used: true,
            confirmed_by: None,
            verdict: None,
            evidence: Value::Null,
            proven: None,
            unrecorded: None,
        }
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What it is.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The trial's step, from 0 on, and how many there are.
    pub fn steps(&self) -> (usize, usize) {
        (self.step, self.spec.canary_ppm.len().saturating_add(1))
    }

    /// Boot-time ns at which the present step ends by itself.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Whether the final record still has to be written: keep ticking.
    pub fn unrecorded(&self) -> bool {
        self.unrecorded.is_some()
    }

    /// Takes what happened at `now`; returns what to do, in order.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        if self.state.is_final() {
            return self.after_the_end(event);
        }
        match event {
            Event::KernelObserved(view) => self.observed(view),
            Event::RevertRequested { by } => self.revert_requested(by),
            Event::CancelRequested => self.cancelled(),
            Event::JournalFailed(error) => self.journal_failed(error),
            Event::Tick => self.tick(now),
            Event::Evidence(numbers) => {
                self.evidence = numbers;
                Vec::new()
            }
            // Whether the kernel took it in time is for the kernel to say.
            Event::ConfirmTaken => Vec::new(),
            _ if self.state.on_trial() && self.overdue(now) => self.too_late(),
            Event::Verdict(verdict) => self.judged(verdict, now),
            Event::ConfirmRequested {
                by,
                accept_unproven,
            } => self.confirm_requested(by, accept_unproven),
            other => self.answered(other, now),
        }
    }

    /// Results of the effects, in the order in which a good change meets them.
    fn answered(&mut self, event: Event, now: Now) -> Vec<Effect> {
        use CauseKind::{Arm, Check, Digest, Golden, Guard, Host, Probe, Stage, Store};
        match (&self.state, event) {
            (State::Draft, Event::CheckPassed) => self.checked(),
            (State::Draft, Event::CheckFailed(why)) => self.reject(Cause::new(Check, why)),
            (State::Validated, Event::StageDone { digest }) if digest != self.spec.digest => {
                self.abort(Cause::new(Digest, format!("it holds {}", digest.short())))
            }
            (State::Validated, Event::StageDone { .. }) => self.staged(),
            (State::Validated, Event::StageRefused(why)) => self.reject(Cause::new(Guard, why)),
            (State::Validated, Event::StageUnfit(why)) => self.reject(Cause::new(Host, why)),
            (State::Validated, Event::StoreFailed(why)) => self.abort(Cause::new(Store, why)),
            (State::Validated, Event::StageFailed(why)) => self.abort(Cause::new(Stage, why)),
            (State::Staged, Event::GoldenPassed) => self.tested(now),
            (State::Staged, Event::GoldenFailed(why)) => self.abort(Cause::new(Golden, why)),
            (State::Staged, Event::ProbeFailed(why)) => self.abort(Cause::new(Probe, why)),
            (State::Tested, Event::Armed { deadline_ns }) => self.armed(deadline_ns),
            (State::Tested, Event::ArmRefused(why)) => self.abort(Cause::new(Guard, why)),
            (State::Canary { .. }, Event::Armed { deadline_ns }) if self.moving => {
                self.armed(deadline_ns)
            }
            (State::Canary { .. }, Event::ArmRefused(why)) if self.moving => {
                self.go_back(Cause::new(Guard, why))
            }
            (State::Tested | State::Canary { .. }, Event::ArmFailed(why)) if self.moving => {
                self.go_back(Cause::new(Arm, why))
            }
            (State::Confirming, Event::ConfirmRefused(why)) => {
                self.state = self.waiting();
                vec![self.emit(&format!("not confirmed: {why}"))]
            }
            (State::Reverting(cause), Event::RevertDone) => {
                let cause = cause.clone();
                self.end(State::Reverted(cause))
            }
            (State::Reverting(_), Event::RevertFailed(why)) => {
                vec![self.emit(&format!("going back failed and is tried again: {why}"))]
            }
            // An answer to something that is no longer asked.
            _ => Vec::new(),
        }
    }

    fn checked(&mut self) -> Vec<Effect> {
        self.state = State::Validated;
        self.slot_used = true;
        let body = json!({"forced": self.spec.forced});
        vec![
            self.journal(Kind::Validated, body),
            self.emit("writing the slot"),
            Effect::Stage,
        ]
    }

    fn staged(&mut self) -> Vec<Effect> {
        self.state = State::Staged;
        let body = json!({"digest": self.spec.digest});
        vec![
            self.journal(Kind::Staged, body),
            self.emit("running golden packets"),
            Effect::RunGolden,
        ]
    }

    fn tested(&mut self, now: Now) -> Vec<Effect> {
        self.state = State::Tested;
        let journal = self.journal(Kind::Tested, Value::Null);
        let emit = self.emit("arming the trial");
        vec![journal, emit, self.arm(0, now)]
    }

    /// Asks for trial step `step`.
    fn arm(&mut self, step: usize, now: Now) -> Effect {
        let (share_ppm, within) = self.spec.step(step);
        self.step = step;
        self.moving = true;
        self.next_deadline_ns = later(now, within);
        Effect::ArmTrial { share_ppm, within }
    }

    fn armed(&mut self, kernel_deadline_ns: u64) -> Vec<Effect> {
        self.armed = true;
        self.moving = false;
        self.verdict = None;
        self.deadline_ns = self.next_deadline_ns.min(kernel_deadline_ns);
        let (share_ppm, within) = self.spec.step(self.step);
        let canary = self.step < self.spec.canary_ppm.len();
        self.state = self.waiting();
        let body = json!({
            "share_ppm": share_ppm, "step": self.step, "deadline_ns": self.deadline_ns,
        });
        let text = if canary {
            format!("on trial with {} of new flows", percent(share_ppm))
        } else {
            let span = humantime::format_duration(within);
            format!(
                "on trial with {} of new flows: confirm within {span}",
                percent(share_ppm)
            )
        };
        vec![self.journal(Kind::Trial, body), self.emit(&text)]
    }

    /// On trial, by the step that is armed.
    fn waiting(&self) -> State {
        if self.step < self.spec.canary_ppm.len() {
            State::Canary { step: self.step }
        } else {
            State::Baking
        }
    }

    fn judged(&mut self, verdict: Verdict, now: Now) -> Vec<Effect> {
        if !self.state.on_trial() || self.moving {
            return Vec::new();
        }
        if let Verdict::Fail(why) = verdict {
            return self.go_back(Cause::new(CauseKind::Verdict, why));
        }
        let passed = verdict == Verdict::Pass;
        let first = self.verdict != Some(Verdict::Pass);
        self.verdict = Some(verdict);
        match self.state {
            State::Canary { step } if passed => {
                let mut effects = self.passed();
                effects.push(self.arm(step.saturating_add(1), now));
                effects
            }
            State::Baking if passed => {
                let mut effects = if first { self.passed() } else { Vec::new() };
                // Asked again in each round, should the guard have been busy.
                if self.spec.confirm_auto {
                    effects.extend(self.confirm_requested(self.spec.author.clone(), false));
                }
                effects
            }
            _ => Vec::new(),
        }
    }

    fn passed(&self) -> Vec<Effect> {
        let body = json!({"verdict": "pass", "step": self.step, "evidence": self.evidence});
        vec![self.journal(Kind::Verdict, body), self.emit("passed")]
    }

    fn confirm_requested(&mut self, by: Actor, accept_unproven: bool) -> Vec<Effect> {
        match self.state {
            State::Confirming | State::Reverting(_) => return Vec::new(),
            // A person may know what so little traffic cannot show.
            State::Baking | State::Canary { .. } if !self.moving => {}
            _ => return vec![self.emit("not confirmed: it is not waiting for it yet")],
        }
        let baking = self.state == State::Baking;
        let proven = baking && (!self.spec.evidence || self.verdict == Some(Verdict::Pass));
        if !proven && !accept_unproven {
            return vec![self.emit(&self.unproven())];
        }
        self.state = State::Confirming;
        self.proven = Some(proven);
        let uid = by.uid;
        let body = json!({"accept_unproven": accept_unproven, "proven": proven});
        let mut entry = self.entry(Kind::Confirmed, body);
        entry.actor = by.clone();
        self.confirmed_by = Some(by);
        vec![
            Effect::Journal(entry),
            self.emit("confirming"),
            Effect::Confirm { uid },
        ]
    }
}

impl Change {
    /// Why it is not confirmed, and how it is kept all the same.
    fn unproven(&self) -> String {
        let why = match &self.verdict {
            Some(Verdict::Inconclusive(why)) => format!(" ({why})"),
            _ => String::new(),
        };
        format!(
            "not confirmed: the evidence has not passed{why}; `lbguard confirm --accept-unproven` keeps \
             it all the same"
        )
    }
}

fn later(now: Now, span: Duration) -> u64 {
    now.boot_ns
        .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

fn percent(ppm: u32) -> String {
    match (ppm / 10_000, ppm % 10_000) {
        (whole, 0) => format!("{whole} %"),
        (whole, rest) => format!("{whole}.{rest:04} %"),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;
