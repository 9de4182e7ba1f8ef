//! The loop: takes requests, watches the kernel, ticks the change.
//!
//! One thread owns the kernel side, the journal and the change, so nothing here is locked.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use lb_common::flow::MAX_CHANGE;
use tokio::sync::mpsc;

use super::Setup;
use super::evidence::Evidence;
use super::health::Health;
use super::hops::Hops;
use super::purge::Purge;
use super::records::Records;
use super::request::Request;
use super::watching::Watching;
use super::wire::ApplyEvent;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::Kind;
use crate::change::ledger::Ledger;
use crate::change::machine::{Change, Effect, Event, KernelView, Progress};
use crate::change::store::Store;
use crate::config::{Config, Digest, Finding, FleetSeed};
use crate::kernel::image::Image;
use crate::kernel::kept::Known;
use crate::kernel::object::Kernel;

/// Time between rounds without requests: the judgement round of a trial.
const ROUND: Duration = Duration::from_millis(100);

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
    pub evidence: Option<Evidence>,
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
    pub(super) health: Health,
    pub(super) records: Records,
    pub(super) ledger: Ledger,
    pub(super) store: Store,
    pub(super) running: Option<Running>,
    /// The committed configuration, if it could be read.
    pub(super) committed: Option<Known>,
    /// ACTIVE's generation as last seen.
    pub(super) active: u64,
    /// Which lap of short ids the flow table was swept for.
    pub(super) swept: Option<u64>,
    pub(super) warnings: BTreeMap<&'static str, String>,
    /// Flows of dead backends that are on their way out.
    pub(super) purge: Option<Purge>,
    /// What is known of the traffic between changes.
    pub(super) watching: Watching,
    pub(super) watchers: Vec<mpsc::Sender<()>>,
    /// The agent's start is in the journal.
    pub(super) announced: bool,
    /// When it was last tried whether the journal can be written.
    pub(super) tried: Instant,
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
        self.answer(request);
    }

    /// One round: the kernel's word, a client that is gone, the clock.
    fn round(&mut self) {
        self.observe();
        self.notice_gone();
        self.judge();
        // Renews the lease, so it is the last act of a completed round: a judge that hangs lets it lapse.
        self.step(Event::Tick);
        self.forget_final();
        self.look_again_sometimes();
        self.watch_traffic();
        self.follow_health();
        self.purge_some();
    }

    /// Gives a change up whose client is gone; one that is on trial goes on.
    fn notice_gone(&mut self) {
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
    }

    /// Tells the change what the kernel says; notices a way back made on the pins alone.
    pub(super) fn observe(&mut self) {
        let Ok(Some(record)) = self.kernel.maps.record() else {
            return;
        };
        let view = KernelView::of(&record, Now::read().boot_ns);
        self.note_breaker(&record);
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
        self.warnings.remove(super::restore::WARNING);
        self.committed = self.stored(view.active);
        self.watch_hops();
    }

    /// A change whose end is told and recorded is over.
    pub(super) fn forget_final(&mut self) {
        let recorded = |running: &Running| !running.change.unrecorded();
        if self.is_over() && self.running.as_ref().is_some_and(recorded) {
            self.running = None;
        }
    }

    /// Whether the change is over, recorded or not.
    pub(super) fn is_over(&self) -> bool {
        let over = |running: &Running| running.change.state().is_final();
        self.running.as_ref().is_some_and(over)
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
            // Effects lead to one another up to the trial without a round in between.
            self.notice_gone();
            self.step(result);
            if stop {
                break;
            }
        }
    }

    /// The configuration of a generation, as stored.
    pub(super) fn stored(&self, generation: u64) -> Option<Known> {
        let stored = self.store.load(generation).ok()?;
        Some(Known {
            config: Config::from_canonical_json(&stored.canonical).ok()?,
            digest: Digest::of(stored.canonical.as_bytes()),
        })
    }

    /// The committed configuration, if it could be read.
    pub(super) fn committed(&self) -> Option<&Config> {
        self.committed.as_ref().map(|known| &known.config)
    }

    /// The seed that is loaded. Another one in agent.toml holds from the next load on: tables that
    /// are filled by it would move every flow.
    pub(super) fn seed(&self) -> FleetSeed {
        FleetSeed::loaded(self.kernel.node.fleet_key)
    }

    /// The short id of a change: marks the flows born in its new arm.
    pub(super) fn short_id(change: u64) -> u64 {
        change % u64::from(MAX_CHANGE) + 1
    }
}
