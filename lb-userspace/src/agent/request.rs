//! What the engine is asked, and the short answers: confirm, freeze, acknowledge, status.

use lb_common::control::control_flag;
use lb_common::guard::Op;
use tokio::sync::{mpsc, oneshot};

use super::engine::Engine;
use super::wire::{AgentStatus, Answer, Apply, ApplyEvent, Drain, Drained, Switch};
use crate::change::actor::Actor;
use crate::change::journal::{Entry, Kind};
use crate::change::machine::{Event, State};
use crate::evidence::proof::Seen;
use crate::exit::ExitCode;

/// What the engine is asked.
pub enum Request {
    /// Begin a change.
    Apply {
        /// What is asked.
        apply: Apply,
        /// The file.
        bytes: Vec<u8>,
        /// By whom.
        by: Actor,
        /// Where progress goes.
        events: mpsc::UnboundedSender<ApplyEvent>,
    },
    /// Confirm the trial.
    Confirm {
        /// By whom.
        by: Actor,
        /// Even if unproven.
        accept_unproven: bool,
        /// The answer.
        reply: oneshot::Sender<Answer>,
    },
    /// Set what stops changes.
    Switch {
        /// What.
        switch: Switch,
        /// By whom.
        by: Actor,
        /// The answer.
        reply: oneshot::Sender<Answer>,
    },
    /// Drain a backend, or take it back.
    Drain {
        /// Which.
        drain: Drain,
        /// By whom.
        by: Actor,
        /// The answer.
        reply: oneshot::Sender<Drained>,
    },
    /// Say how things are.
    Status(oneshot::Sender<AgentStatus>),
    /// Say how much traffic there is.
    Seen(oneshot::Sender<Seen>),
    /// A next hop has changed.
    Hop(super::hops::Changed),
    /// A backend's health has changed.
    Health(crate::health::runner::News),
    /// Hold this for as long as the engine runs.
    Watch(mpsc::Sender<()>),
    /// End; forwarding goes on.
    Stop,
}

impl Engine {
    /// Does what is asked.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Apply {
                apply,
                bytes,
                by,
                events,
            } => self.apply(&apply, bytes, by, events),
            Request::Confirm {
                by,
                accept_unproven,
                reply,
            } => {
                let answer = self.confirm(by, accept_unproven);
                let _ = reply.send(answer);
            }
            Request::Switch { switch, by, reply } => {
                let answer = self.switch(switch, by);
                let _ = reply.send(answer);
            }
            Request::Drain { drain, by, reply } => {
                let answer = self.drain(&drain, by);
                let _ = reply.send(answer);
            }
            Request::Status(reply) => {
                self.look_again();
                let _ = reply.send(self.status());
            }
            Request::Seen(reply) => {
                let _ = reply.send(self.watching.seen());
            }
            Request::Hop(changed) => self.hop_changed(&changed),
            Request::Health(news) => self.health_news(&news),
            Request::Watch(held) => self.watchers.push(held),
            Request::Stop => {}
        }
    }

    fn confirm(&mut self, by: Actor, accept_unproven: bool) -> Answer {
        let refused = |message: &str| Answer {
            done: false,
            message: message.to_owned(),
            exit: ExitCode::Refused.code(),
        };
        let Some(generation) = self.running.as_ref().map(|r| r.change.spec().generation) else {
            return refused(
                "nothing is on trial; `lbguard history` shows how the last change ended",
            );
        };
        self.look_again();
        self.step(Event::ConfirmRequested {
            by,
            accept_unproven,
        });
        self.observe();
        let Some(running) = &self.running else {
            return refused("the change is over");
        };
        match running.change.state() {
            State::Committed => Answer {
                done: true,
                message: format!("generation {generation} is committed"),
                exit: ExitCode::Done.code(),
            },
            state => {
                let text = running
                    .last
                    .as_ref()
                    .map_or("not confirmed", |last| last.text.as_str());
                let exit = state.exit_code().unwrap_or(ExitCode::Refused);
                Answer {
                    done: false,
                    message: text.to_owned(),
                    exit: exit.code(),
                }
            }
        }
    }

    /// Acts first, then writes it down: both are restored from the journal after a reboot.
    fn switch(&mut self, switch: Switch, by: Actor) -> Answer {
        let (op, argument, kind, body) = match switch {
            Switch::Freeze { on } => (
                Op::Freeze,
                u64::from(on),
                Kind::Freeze,
                serde_json::json!({"on": on}),
            ),
            Switch::Ack => (Op::Ack, 0, Kind::Ack, serde_json::Value::Null),
        };
        let latched = self
            .kernel
            .maps
            .record()
            .ok()
            .flatten()
            .is_some_and(|record| record.flags & control_flag::LATCHED != 0);
        let (message, done) = match switch {
            Switch::Freeze { on: true } => ("frozen: forward changes are refused", true),
            Switch::Freeze { on: false } => ("thawed: forward changes are allowed", true),
            Switch::Ack if latched => ("acknowledged: the next trial may begin", true),
            Switch::Ack => (
                "the breaker has not tripped: there is nothing to acknowledge",
                false,
            ),
        };
        let refused = |message: String| Answer {
            done: false,
            message,
            exit: ExitCode::Refused.code(),
        };
        if !done {
            return refused(message.to_owned());
        }
        if let Err(error) = self.kernel.guard.call(op, 0, &[argument], &[]) {
            return refused(error.to_string());
        }
        self.look_again();
        let entry = Entry {
            kind,
            change: None,
            generation: None,
            actor: by,
            why: None,
            body,
        };
        let message = match self.append(entry) {
            Ok(()) => message.to_owned(),
            Err(why) => format!(
                "{message}. In the kernel, not yet in the journal, so that a reboot would undo it: {why}"
            ),
        };
        Answer {
            done: true,
            message,
            exit: ExitCode::Done.code(),
        }
    }

    fn status(&self) -> AgentStatus {
        AgentStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            change: self
                .running
                .as_ref()
                .and_then(|running| running.last.clone()),
            why: self
                .running
                .as_ref()
                .map(|running| running.change.spec().why.clone()),
            evidence: self
                .running
                .as_ref()
                .and_then(|running| running.evidence.as_ref()?.last.clone())
                .map(Box::new),
            warnings: self.warnings.values().cloned().collect(),
            alerts: self.watching.alerts(),
            drains: self.drain_lines(),
            health: self.health_lines(),
        }
    }
}
