//! The journal added up: what is committed, and what became of each change.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::actor::Actor;
use super::cause::{Cause, CauseKind};
use super::journal::{Kind, Record};
use super::machine::Spec;

/// What the journal says, oldest change first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The generation in force by the journal; `None` before the first commit.
    pub committed: Option<u64>,
    /// Whether forward changes are frozen.
    pub frozen: bool,
    /// Digest of the last policy that was set.
    pub policy: Option<String>,
    /// Whether the breaker has ended a trial that nobody has acknowledged.
    pub latched: bool,
    /// The highest generation that any record names.
    pub highest_generation: u64,
    /// Every change, in the order in which they were asked for.
    pub changes: Vec<Summary>,
    /// Backends that are drained by command, by pool and name.
    pub drains: BTreeMap<(String, String), Drain>,
    /// Every drain and its end, in the order in which they were asked for.
    pub drained: Vec<Drain>,
}

/// A backend drained by command, or taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Drained, or taken back.
    pub on: bool,
    /// Who.
    pub by: Actor,
    /// Why.
    pub why: Option<String>,
    /// When.
    pub time: Timestamp,
}

impl Drain {
    fn of(record: &Record) -> Option<Self> {
        let text = |key| Some(record.body.get(key)?.as_str()?.to_owned());
        Some(Self {
            pool: text("pool")?,
            backend: text("backend")?,
            on: record.body.get("on")?.as_bool()?,
            by: record.actor.clone(),
            why: record.why.clone(),
            time: record.time,
        })
    }
}

/// One change as the journal tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its `draft` record's body.
    pub spec: Spec,
    /// When it was asked for.
    pub started: Timestamp,
    /// Its last record's kind.
    pub kind: Kind,
    /// When that was written.
    pub time: Timestamp,
    /// Boot-time ns of that.
    pub boot_ns: u64,
    /// Why it did not commit.
    pub cause: Option<Cause>,
    /// Who confirmed it in time.
    pub confirmed_by: Option<Actor>,
    /// Who ended it: who confirmed, went back, or the kernel.
    pub ended_by: Option<Actor>,
    /// The last trial step that was armed.
    pub step: Option<usize>,
    /// Whether its traffic has proven it good; `None` without evidence, or as long as it is open.
    pub proven: Option<bool>,
    /// VIPs that the proof says nothing of, because traffic can't: they are new, or UDP.
    pub probe_verified: Vec<String>,
    /// Whether these are all that the change touches.
    pub probes_only: bool,
    /// Whether ACTIVE was put back from it after it had been committed.
    pub rolled_back: bool,
}

impl Kind {
    /// Whether a change ends with this.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Committed | Self::Reverted | Self::Rejected | Self::Aborted
        )
    }
}

/// What a record says about the evidence.
fn proven(record: &Record, spec: &Spec) -> Option<bool> {
    let said = record.body.get("proven");
    said.and_then(serde_json::Value::as_bool)
        .filter(|_| spec.evidence)
}

/// The VIPs of a final record's evidence that traffic could not prove, and whether it names no other.
fn probes(record: &Record) -> (Vec<String>, bool) {
    let vips = record.body.pointer("/evidence/vips");
    let vips = vips.and_then(serde_json::Value::as_array);
    let vips = vips.map(Vec::as_slice).unwrap_or_default();
    let unproven = |vip: &&serde_json::Value| {
        let said = vip.get("probe_verified");
        said.and_then(serde_json::Value::as_bool) == Some(true)
    };
    let names: Vec<String> = vips
        .iter()
        .filter(unproven)
        .filter_map(|vip| vip.get("name")?.as_str().map(str::to_owned))
        .collect();
    let all = !names.is_empty() && names.len() == vips.len();
    (names, all)
}

impl Ledger {
    /// Adds up `records`, oldest first.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut ledger = Self::default();
        for record in records {
            ledger.add(record);
        }
        ledger
    }

    /// Adds one more record.
    pub fn add(&mut self, record: &Record) {
        if let Some(generation) = record.generation {
            self.highest_generation = self.highest_generation.max(generation);
        }
        match record.kind {
            Kind::Draft => self.begin(record),
            Kind::RolledBack => self.rolled_back(record),
            Kind::Freeze => {
                self.frozen =
                    record.body.get("on").and_then(serde_json::Value::as_bool) == Some(true);
            }
            Kind::Ack => self.latched = false,
            Kind::Drain => self.drain(record),
            Kind::Policy => {
                let digest = record
                    .body
                    .get("digest")
                    .and_then(serde_json::Value::as_str);
                self.policy = digest.map(str::to_owned);
            }
            _ => self.go_on(record),
        }
        let breaker = Cause::from_body(&record.body).is_some_and(|c| c.kind == CauseKind::Breaker);
        self.latched |= record.kind == Kind::Reverted && breaker;
        let adopted = record.kind == Kind::Adopted && record.change.is_none();
        if record.kind == Kind::Committed || adopted {
            self.committed = record.generation;
        }
    }

    fn drain(&mut self, record: &Record) {
        let Some(drain) = Drain::of(record) else {
            return;
        };
        let key = (drain.pool.clone(), drain.backend.clone());
        if drain.on {
            self.drains.insert(key, drain.clone());
        } else {
            self.drains.remove(&key);
        }
        self.drained.push(drain);
    }

    fn begin(&mut self, record: &Record) {
        // A draft that this version can't read is in `history --records` still.
        let Ok(spec) = Spec::deserialize(&record.body) else {
            return;
        };
        self.changes.push(Summary {
            spec,
            started: record.time,
            kind: Kind::Draft,
            time: record.time,
            boot_ns: record.boot_ns,
            cause: None,
            confirmed_by: None,
            ended_by: None,
            step: None,
            proven: None,
            probe_verified: Vec::new(),
            probes_only: false,
            rolled_back: false,
        });
    }

    fn go_on(&mut self, record: &Record) {
        let change = self
            .changes
            .iter_mut()
            .rev()
            .find(|c| Some(c.spec.change) == record.change);
        let Some(change) = change.filter(|change| !change.kind.is_final()) else {
            return;
        };
        if record.kind == Kind::Adopted {
            return;
        }
        change.kind.clone_from(&record.kind);
        change.time = record.time;
        change.boot_ns = record.boot_ns;
        match record.kind {
            Kind::Trial => {
                let step = record.body.get("step").and_then(serde_json::Value::as_u64);
                change.step = step.and_then(|step| usize::try_from(step).ok());
            }
            Kind::Confirmed => {
                change.confirmed_by = Some(record.actor.clone());
                change.proven = proven(record, &change.spec);
            }
            _ => {}
        }
        if record.kind.is_final() {
            change.ended_by = Some(record.actor.clone());
            (change.probe_verified, change.probes_only) = probes(record);
            change.cause = Cause::from_body(&record.body);
        }
    }

    fn rolled_back(&mut self, record: &Record) {
        let from = self.committed;
        self.committed = record.generation;
        let change =
            self.changes.iter_mut().rev().find(|change| {
                Some(change.spec.generation) == from && change.kind == Kind::Committed
            });
        if let Some(change) = change {
            change.rolled_back = true;
        }
    }

    /// The change in flight, if any.
    pub fn in_flight(&self) -> Option<&Summary> {
        self.changes.last().filter(|change| !change.kind.is_final())
    }

    /// The number for the next change.
    pub fn next_change(&self) -> u64 {
        self.changes
            .iter()
            .map(|c| c.spec.change)
            .max()
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// The number for the next generation, when the kernel has seen
    /// `kernel_highest`: max of both, plus 1.
    pub fn next_generation(&self, kernel_highest: u64) -> u64 {
        self.highest_generation
            .max(kernel_highest)
            .saturating_add(1)
    }

    /// The change that made `generation`.
    pub fn change_of(&self, generation: u64) -> Option<&Summary> {
        self.changes
            .iter()
            .rev()
            .find(|change| change.spec.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::change::journal::{Chain, Entry};
    use crate::change::machine::testing::{now_at, operator, spec};

    fn record(kind: Kind, change: u64, generation: u64, body: Value) -> Record {
        let entry = Entry {
            kind,
            change: Some(change),
            generation: Some(generation),
            actor: operator(),
            why: None,
            body,
        };
        Chain::default().extend(entry, now_at(1)).unwrap().0
    }

    fn draft(change: u64, generation: u64) -> Record {
        let spec = Spec {
            change,
            generation,
            ..spec()
        };
        record(Kind::Draft, change, generation, json!(spec))
    }

    #[test]
    fn the_committed_generation_is_the_last_commit_or_what_was_rolled_back_to() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.committed, None);
        for generation in [5, 6] {
            ledger.add(&draft(generation, generation));
            ledger.add(&record(
                Kind::Committed,
                generation,
                generation,
                Value::Null,
            ));
        }
        assert_eq!(ledger.committed, Some(6));
        ledger.add(&record(Kind::RolledBack, 9, 5, json!({"from": 6})));
        assert_eq!(ledger.committed, Some(5));
        assert!(ledger.change_of(6).unwrap().rolled_back);
        assert!(!ledger.change_of(5).unwrap().rolled_back);
        assert_eq!(ledger.next_generation(0), 7, "a number is never used twice");
        assert_eq!(ledger.next_generation(11), 12);
    }

    #[test]
    fn a_reverted_change_keeps_the_committed_generation_and_says_why() {
        let cause = Cause::new(CauseKind::Deadline, "");
        let ledger = Ledger::of(&[
            draft(1, 5),
            record(Kind::Committed, 1, 5, Value::Null),
            draft(2, 6),
            record(Kind::Trial, 2, 6, json!({"step": 1})),
            record(Kind::Reverted, 2, 6, cause.body()),
            record(Kind::Committed, 2, 6, Value::Null),
        ]);
        let change = ledger.change_of(6).unwrap();
        assert_eq!(
            (change.cause.as_ref(), change.step),
            (Some(&cause), Some(1))
        );
        assert_eq!(change.kind, Kind::Reverted, "final is final");
    }

    #[test]
    fn what_only_probes_speak_for_is_told_apart() {
        let committed = |vips: Value| {
            let body = json!({"proven": true, "evidence": {"vips": vips}});
            let ledger = Ledger::of(&[draft(1, 5), record(Kind::Committed, 1, 5, body)]);
            let change = ledger.change_of(5).unwrap();
            (change.probe_verified.join(","), change.probes_only)
        };
        let (new, known) = (
            json!({"name": "new", "probe_verified": true}),
            json!({"name": "known", "probe_verified": false}),
        );
        assert_eq!(committed(json!([new])), ("new".to_owned(), true));
        assert_eq!(committed(json!([new, known])), ("new".to_owned(), false));
        assert_eq!(committed(json!([known])), (String::new(), false));
        assert_eq!(committed(Value::Null), (String::new(), false));
    }

    #[test]
    fn a_drain_stands_until_it_is_taken_back() {
        let drain = |backend: &str, on: bool| {
            let body = json!({"pool": "web", "backend": backend, "on": on});
            record(Kind::Drain, 1, 1, body)
        };
        let ledger = Ledger::of(&[
            drain("web-1", true),
            drain("web-2", true),
            drain("web-1", false),
            record(Kind::Drain, 1, 1, json!({"pool": "web"})),
        ]);
        let standing: Vec<_> = ledger.drains.keys().collect();
        assert_eq!(standing, [&("web".to_owned(), "web-2".to_owned())]);
        assert_eq!(ledger.drained.len(), 3);
    }

    #[test]
    fn a_change_without_a_final_record_is_in_flight() {
        let mut ledger = Ledger::of(&[draft(1, 5)]);
        ledger.add(&record(Kind::Tested, 1, 5, Value::Null));
        assert_eq!(ledger.in_flight().unwrap().kind, Kind::Tested);
        ledger.add(&record(Kind::Aborted, 1, 5, Value::Null));
        assert_eq!(ledger.in_flight(), None);
        assert_eq!(ledger.next_change(), 2);
    }
}
