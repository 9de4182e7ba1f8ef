//! What the engine writes down, and what it does while that is impossible: forwarding goes on,
//! nothing goes forward, and the operator is told. It tries again at each request that needs it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::engine::Engine;
use super::records::Found;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::{Entry, Kind, Repair};
use crate::change::ledger::Ledger;
use crate::change::machine::Event;
use crate::change::store::Store;

/// Bytes that a change needs on the disk besides its file: records and metadata.
const ROOM: usize = 64 * 1024;
/// Time between tries without a request.
const AGAIN: Duration = Duration::from_secs(10);
/// The warning that says why nothing can be written.
const WARNING: &str = "journal";

impl Engine {
    /// Appends a record and adds it up.
    pub(super) fn append(&mut self, entry: Entry) -> Result<(), String> {
        match self.records.append(entry, Now::read()) {
            Ok(record) => {
                self.ledger.add(&record);
                Ok(())
            }
            Err(why) => {
                self.troubled(&why);
                Err(why)
            }
        }
    }

    /// A record outside any change; that it can't be written is a warning, not a reason to stop.
    pub(super) fn write_down(&mut self, kind: Kind, actor: Actor, body: serde_json::Value) {
        let _ = self.append(Entry {
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
        let _ = self.append(Entry {
            kind,
            change: None,
            generation: Some(generation),
            actor,
            why: None,
            body,
        });
    }

    /// Whether a change with a file of so many bytes can be written down; what could not be written
    /// so far is written first.
    ///
    /// # Errors
    ///
    /// Why not, with the way out.
    pub(super) fn ready_to_record(&mut self, bytes: usize) -> Result<(), String> {
        self.tried = Instant::now();
        let room = bytes.saturating_mul(3).saturating_add(ROOM);
        let outcome = self.reopen().and_then(|()| self.records.probe(room));
        if let Err(why) = &outcome {
            self.troubled(why);
        } else if self.warnings.remove(WARNING).is_some() {
            tracing::info!("the journal can be written again");
            if let Ok(store) = Store::open(self.setup.paths.generations()) {
                self.store = store;
                self.warnings.remove("store");
            }
            self.catch_up();
        }
        outcome
    }

    /// As [`Engine::ready_to_record`], but only if it was not when last looked at.
    pub(super) fn look_again(&mut self) {
        if self.warnings.contains_key(WARNING) {
            let _ = self.ready_to_record(0);
        }
    }

    /// Without anybody asking: every ten seconds.
    pub(super) fn look_again_sometimes(&mut self) {
        if self.tried.elapsed() >= AGAIN {
            self.look_again();
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        let Some(found) = self.records.reopen()? else {
            return Ok(());
        };
        self.ledger = Ledger::of(&found.records);
        self.report_repair(&found);
        self.warnings.entry(WARNING).or_default();
        Ok(())
    }

    /// What happened while nothing could be written is written now, by the kernel's word.
    fn catch_up(&mut self) {
        if !self.announced {
            self.announce();
        }
        if self.running.is_some() {
            if self.is_over() {
                self.step(Event::Tick);
                self.forget_final();
            }
            return;
        }
        let done = self
            .complete_journal()
            .and_then(|()| self.reconcile_switches())
            .and_then(|()| self.reconcile_drains());
        if let Err(error) = done {
            tracing::warn!(%error, "the journal was not completed");
        }
        self.note_policy();
    }

    pub(super) fn announce(&mut self) {
        let entry = Entry {
            kind: Kind::AgentStart,
            change: None,
            generation: None,
            actor: Actor::me(),
            why: None,
            body: json!({"version": env!("CARGO_PKG_VERSION")}),
        };
        self.announced = self.append(entry).is_ok();
    }

    /// Which policy holds from here on.
    pub(super) fn note_policy(&mut self) {
        let digest = self.setup.policy.digest().to_string();
        if self.ledger.policy.as_ref() != Some(&digest) {
            self.write_down(Kind::Policy, Actor::me(), json!({"digest": digest}));
        }
    }

    fn troubled(&mut self, why: &str) {
        let text = format!("changes are refused, forwarding goes on: {why}");
        if self.warnings.get(WARNING) != Some(&text) {
            tracing::warn!("{text}");
            self.warnings.insert(WARNING, text);
        }
    }

    /// Tells what was found when the journal was opened.
    pub(super) fn report(&mut self, found: &Found) {
        self.report_repair(found);
        if let Some(why) = self.records.trouble().map(str::to_owned) {
            self.troubled(&why);
        }
    }

    fn report_repair(&mut self, found: &Found) {
        let text = match &found.repair {
            None => return,
            Some(Repair::Completed) => "the journal's last line lacked its end".to_owned(),
            Some(Repair::MovedTo(path)) => {
                format!(
                    "the journal's last record was torn; its bytes are in {}",
                    path.display()
                )
            }
        };
        tracing::warn!("{text}");
        self.warnings.insert("repair", text);
    }
}
