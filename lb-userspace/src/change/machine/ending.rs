//! Final states, and what is written and told about a change.

use serde_json::{Value, json};

use super::{Change, Effect, Event, Progress, State};
use crate::change::cause::Cause;
use crate::change::journal::{Entry, Kind};

impl Change {
    pub(super) fn reject(&mut self, cause: Cause) -> Vec<Effect> {
        self.end(State::Rejected(cause))
    }

    pub(super) fn abort(&mut self, cause: Cause) -> Vec<Effect> {
        self.end(State::Aborted(cause))
    }

    /// Enters a final state.
    pub(super) fn end(&mut self, state: State) -> Vec<Effect> {
        let (kind, text) = match &state {
            State::Committed => (Kind::Committed, "committed".to_owned()),
            State::Rejected(cause) => (Kind::Rejected, format!("refused: {cause}")),
            State::Aborted(cause) => (Kind::Aborted, format!("given up before traffic: {cause}")),
            other => {
                let cause = other.cause().map(ToString::to_string).unwrap_or_default();
                (Kind::Reverted, format!("put back: {cause}"))
            }
        };
        let release = self.slot_used && state != State::Committed;
        self.state = state;
        let entry = self.final_entry(kind);
        let mut effects = Vec::new();
        if release {
            effects.push(Effect::ReleaseSlot);
        }
        effects.extend([Effect::Journal(entry), self.emit(&text)]);
        effects
    }

    fn final_entry(&self, kind: Kind) -> Entry {
        let mut body = match self.state.cause() {
            Some(cause) => cause.body(),
            None => json!({"digest": self.spec.digest, "base": self.spec.base}),
        };
        if self.spec.evidence && self.armed {
            body["evidence"] = self.evidence.clone();
            body["proven"] = json!(kind == Kind::Committed && self.proven == Some(true));
        }
        let mut entry = self.entry(kind, body);
        entry.actor = match (&self.state, &self.confirmed_by) {
            (State::Committed, Some(by)) => by.clone(),
            _ => self.ended_by.clone(),
        };
        entry
    }

    /// Final states are final; only their record may still have to be written.
    pub(super) fn after_the_end(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::JournalFailed(error) => {
                let kind = Kind::from(self.state.name());
                self.unrecorded = Some(self.final_entry(kind));
                vec![self.emit(&format!(
                    "{}, but not yet recorded: {error}",
                    self.state.name()
                ))]
            }
            Event::Tick => self
                .unrecorded
                .take()
                .map(Effect::Journal)
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn entry(&self, kind: Kind, body: Value) -> Entry {
        Entry {
            kind,
            change: Some(self.spec.change),
            generation: Some(self.spec.generation),
            actor: self.spec.author.clone(),
            why: Some(self.spec.why.clone()),
            body,
        }
    }

    pub(super) fn journal(&self, kind: Kind, body: Value) -> Effect {
        Effect::Journal(self.entry(kind, body))
    }

    pub(super) fn emit(&self, text: &str) -> Effect {
        let on_trial = self.state.on_trial();
        Effect::Emit(Progress {
            change: self.spec.change,
            generation: self.spec.generation,
            state: self.state.name().to_owned(),
            text: text.to_owned(),
            share_ppm: match self.state {
                State::Committed => 1_000_000,
                _ if on_trial => self.spec.step(self.step).0,
                _ => 0,
            },
            deadline_ns: on_trial.then_some(self.deadline_ns),
            cause: self.state.cause().cloned(),
            exit: self.state.exit_code().map(crate::exit::ExitCode::code),
        })
    }
}
