//! The loop: takes requests, watches the kernel, ticks the change.
//!
//! One thread owns the kernel side, the journal and the change, so nothing here is locked.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use lb_common::flow::MAX_CHANGE;
use lb_common::guard::Op;
use tokio::sync::{mpsc, oneshot};

use super::Setup;
use super::hops::Hops;
use super::wire::{AgentStatus, Answer, Apply, ApplyEvent, Switch};
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::{Entry, Journal, Kind};
use crate::change::ledger::Ledger;
use crate::change::machine::{Change, Effect, Event, KernelView, Progress, Spec, State};
use crate::change::store::Store;
use crate::check::{check_against, check_bytes, render_findings};
use crate::config::{Config, Finding};
use crate::exit::ExitCode;
use crate::kernel::image::Image;
use crate::kernel::object::Kernel;
use crate::plan::{Fate, Plan};

/// Time between rounds without requests: the judgement round of a trial.
const ROUND: Duration = Duration::from_millis(100);

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
    /// Say how things are.
    Status(oneshot::Sender<AgentStatus>),
    /// A next hop has changed.
    Hop(super::hops::Changed),
    /// Hold this for as long as the engine runs.
    Watch(mpsc::Sender<()>),
    /// End; forwarding goes on.
    Stop,
}

/// A change in flight, with what its machine does not know.
pub(super) struct Running {
    pub change: Change,
    pub services: Vec<u8>,
    pub config: Option<Config>,
    pub findings: Vec<Finding>,
    pub image: Option<Image>,
    pub events: Option<mpsc::UnboundedSender<ApplyEvent>>,
    pub last: Option<Progress>,
    pub cancelled: bool,
    pub lease_renewed_ns: u64,
    /// The plan that was looked at removes VIPs: packets for them are no surprise.
    pub removes: bool,
}

impl Running {
    pub(super) fn tell(&self, event: ApplyEvent) {
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }
}

/// The engine.
pub struct Engine {
    pub(super) setup: Setup,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) kernel: Kernel,
    pub(super) hops: Hops,
    pub(super) journal: Journal,
    pub(super) ledger: Ledger,
    pub(super) store: Store,
    pub(super) running: Option<Running>,
    /// The committed configuration, if it could be read.
    pub(super) committed: Option<Config>,
    /// ACTIVE's generation as last seen.
    pub(super) active: u64,
    pub(super) warnings: BTreeMap<&'static str, String>,
    pub(super) watchers: Vec<mpsc::Sender<()>>,
}

impl Engine {
    /// Runs until asked to stop.
    pub fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            match inbox.recv_timeout(ROUND) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(request) => self.take(request),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.round();
        }
        self.write_down(Kind::AgentStop, Actor::me(), serde_json::Value::Null);
    }

    fn take(&mut self, request: Request) {
        // What was done on the pins a moment ago comes first.
        self.round();
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
            Request::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Hop(changed) => self.hop_changed(&changed),
            Request::Watch(held) => self.watchers.push(held),
            Request::Stop => {}
        }
    }

    /// One round: the kernel's word, a client that is gone, the clock.
    fn round(&mut self) {
        self.observe();
        let gone = self.running.as_ref().is_some_and(|running| {
            !running.cancelled
                && running
                    .events
                    .as_ref()
                    .is_some_and(mpsc::UnboundedSender::is_closed)
        });
        if gone {
            if let Some(running) = &mut self.running {
                running.cancelled = true;
            }
            self.step(Event::CancelRequested);
        }
        self.step(Event::Tick);
        self.forget_final();
    }

    /// Tells the change what the kernel says; notices a way back made on the pins alone.
    pub(super) fn observe(&mut self) {
        let Ok(Some(record)) = self.kernel.maps.record() else {
            return;
        };
        let view = KernelView::of(&record, Now::read().boot_ns);
        self.step(Event::KernelObserved(view));
        if view.active == self.active {
            return;
        }
        let from = std::mem::replace(&mut self.active, view.active);
        let own = self.running.as_ref().is_some_and(|running| {
            let mine = running.change.spec().generation;
            view.active == mine || from == mine
        });
        if !own {
            let body = serde_json::json!({"from": from});
            let actor = Actor::by_uid(record.ended_by);
            self.write_generation(Kind::RolledBack, view.active, actor, body);
        }
        self.committed = self.stored(view.active);
        self.watch_hops();
    }

    /// A change whose end is told and recorded is over.
    fn forget_final(&mut self) {
        let over = self.running.as_ref().is_some_and(|running| {
            running.change.state().is_final() && !running.change.unrecorded()
        });
        if over {
            self.running = None;
        }
    }

    /// Gives the change an event and does what it wants.
    pub(super) fn step(&mut self, event: Event) {
        let Some(running) = &mut self.running else {
            return;
        };
        let effects = running.change.step(event, Now::read());
        self.perform(effects);
    }

    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let Some(result) = self.execute(effect) else {
                continue;
            };
            let stop = matches!(result, Event::JournalFailed(_));
            self.step(result);
            if stop {
                break;
            }
        }
    }

    fn apply(
        &mut self,
        apply: &Apply,
        bytes: Vec<u8>,
        by: Actor,
        events: mpsc::UnboundedSender<ApplyEvent>,
    ) {
        let not_begun = |message: String, exit: ExitCode| {
            let _ = events.send(ApplyEvent::NotBegun {
                message,
                exit: exit.code(),
            });
        };
        if let Some(running) = &self.running {
            let spec = running.change.spec();
            return not_begun(
                format!(
                    "a change is in flight (generation {}, by {}: {}); `lbguard confirm` or `lbguard \
                     revert` it first",
                    spec.generation, spec.author.user, spec.why
                ),
                ExitCode::Refused,
            );
        }
        let report = check_bytes(&bytes, &apply.file, &self.setup.node);
        let mut findings = report.findings.clone();
        let Some(config) = report.config.clone() else {
            let text = render_findings(&findings, report.omitted);
            let data = serde_json::to_value(&findings).unwrap_or_default();
            let _ = events.send(ApplyEvent::Findings {
                text,
                findings: data,
            });
            return not_begun(
                format!(
                    "{}: refused, {} errors; nothing was changed",
                    apply.file, report.errors
                ),
                ExitCode::Refused,
            );
        };
        if let Some(committed) = &self.committed {
            findings.extend(check_against(committed, &config, &apply.file));
        }
        let removes = match self.bound(apply.plan.as_deref(), &config) {
            Ok(removes) => removes,
            Err(message) => return not_begun(message, ExitCode::Refused),
        };
        let spec = match self.spec(apply, &config, by) {
            Ok(spec) => spec,
            Err(message) => return not_begun(message, ExitCode::Refused),
        };
        if !findings.is_empty() {
            let text = render_findings(&findings, report.omitted);
            let data = serde_json::to_value(&findings).unwrap_or_default();
            let _ = events.send(ApplyEvent::Findings {
                text,
                findings: data,
            });
        }
        let (change, effects) = Change::new(spec, Now::read());
        self.running = Some(Running {
            change,
            services: bytes,
            config: Some(config),
            findings,
            image: None,
            events: Some(events),
            last: None,
            cancelled: false,
            lease_renewed_ns: 0,
            removes,
        });
        self.perform(effects);
        self.observe();
    }

    /// Holds a change to the plan that was looked at. Whether that plan removes VIPs.
    fn bound(&self, plan: Option<&str>, config: &Config) -> Result<bool, String> {
        let Some(meant) = plan else {
            return Ok(false);
        };
        let empty = Config {
            vips: Vec::new(),
            pools: Vec::new(),
        };
        let committed = self.committed.as_ref().unwrap_or(&empty);
        let (seed, policy) = (self.setup.node.fleet_seed, &self.setup.policy);
        let plan = Plan::of(committed, config, self.active, seed, policy)
            .map_err(|error| format!("a lookup table cannot be filled: {error}"))?;
        let digest = plan.digest().to_string();
        if meant.len() >= 12 && digest.starts_with(meant) {
            return Ok(plan.count(Fate::Out) > 0);
        }
        Err(format!(
            "the plan is stale: from generation {}, which is active, this change would be plan {}; \
             run `lbguard plan` again and look at what differs",
            self.active, digest
        ))
    }

    fn spec(&self, apply: &Apply, config: &Config, by: Actor) -> Result<Spec, String> {
        let policy = &self.setup.policy;
        let longest = policy.confirm_within_max;
        let within = apply
            .confirm_within_ms
            .map_or(policy.confirm_within, Duration::from_millis);
        if within.is_zero() || within > longest {
            return Err(format!(
                "--confirm-within {} is not between 1ms and {}, the most that policy.toml allows",
                humantime::format_duration(within),
                humantime::format_duration(longest)
            ));
        }
        let record = self
            .kernel
            .maps
            .record()
            .ok()
            .flatten()
            .ok_or("the kernel's control record cannot be read")?;
        let highest = record.highest_generation.max(record.shadow_generation);
        Ok(Spec {
            change: self.ledger.next_change(),
            generation: self.ledger.next_generation(highest),
            base: record.active_generation,
            digest: config.digest(),
            author: by,
            why: apply.why.clone(),
            forced: apply.force_unsafe,
            share_ppm: apply.share_ppm.unwrap_or(1_000_000).clamp(1, 1_000_000),
            canary_ppm: Vec::new(),
            evidence: false,
            confirm_within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            step_within_ms: Spec::TEN_MINUTES_MS,
            prepare_within_ms: Spec::TEN_MINUTES_MS,
        })
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
            .is_some_and(|record| record.flags & lb_common::control::control_flag::LATCHED != 0);
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
        self.write_down(kind, by, body);
        Answer {
            done: true,
            message: message.to_owned(),
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
            warnings: self.warnings.values().cloned().collect(),
        }
    }

    /// The configuration of a generation, as stored.
    pub(super) fn stored(&self, generation: u64) -> Option<Config> {
        let stored = self.store.load(generation).ok()?;
        Config::from_canonical_json(&stored.canonical).ok()
    }

    /// A record outside any change; that it can't be written is a warning, not a reason to stop.
    pub(super) fn write_down(&mut self, kind: Kind, actor: Actor, body: serde_json::Value) {
        self.append(Entry {
            kind,
            change: None,
            generation: None,
            actor,
            why: None,
            body,
        });
    }

    pub(super) fn write_generation(
        &mut self,
        kind: Kind,
        generation: u64,
        actor: Actor,
        body: serde_json::Value,
    ) {
        let generation = Some(generation);
        self.append(Entry {
            kind,
            change: None,
            generation,
            actor,
            why: None,
            body,
        });
    }

    fn append(&mut self, entry: Entry) {
        match self.journal.append(entry, Now::read()) {
            Ok(record) => {
                self.ledger.add(&record);
                self.warnings.remove("journal");
            }
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be written");
                self.warnings.insert("journal", error.to_string());
            }
        }
    }

    /// The short id of a change: marks the flows born in its new arm.
    pub(super) fn short_id(change: u64) -> u64 {
        change % u64::from(MAX_CHANGE) + 1
    }
}
