//! The chain: how a record is hashed, written as a line, and checked.

use jiff::Timestamp;
use serde_json::Value;

use super::canonical;
use super::record::{Entry, Record};
use crate::change::Now;
use crate::config::Digest;

/// `prev` of the first record.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The bytes are no journal record at all.
    #[error("not a journal record: {0}")]
    Unreadable(String),
    /// It reads, but is not written the one way that the journal writes it.
    #[error("altered: not the bytes that the journal writes")]
    Rewritten,
    /// Its own hash does not fit its content.
    #[error("altered: its content does not fit its hash")]
    Hash,
    /// An earlier or repeated record stands here.
    #[error("record {found} stands here: repeated or out of order")]
    Repeated {
        /// The number that the record has.
        found: u64,
    },
    /// A later record stands here.
    #[error("missing: record {found} stands here")]
    Missing {
        /// The number that the record has.
        found: u64,
    },
    /// It does not name the record before it.
    #[error("altered: it does not follow from the record before it")]
    Prev,
    /// The head file knows another record of this number.
    #[error("altered: the head file remembers another record of this number")]
    Head,
    /// The head file knows later records.
    #[error("missing: the journal once went on to record {upto}")]
    CutOff {
        /// Number of the last record that is known to have been written.
        upto: u64,
    },
}

/// The end of a chain: what the next record must follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash; [`GENESIS`] before the first.
    pub hash: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: GENESIS.to_owned(),
        }
    }
}

impl Chain {
    /// The record that `entry` becomes here, and its line with the newline.
    ///
    /// # Errors
    ///
    /// What keeps the line from reading back as the same record, such as a
    /// fraction in the body.
    pub fn extend(&self, entry: Entry, now: Now) -> Result<(Record, String), Flaw> {
        let mut record = Record {
            seq: self.seq.saturating_add(1),
            prev: self.hash.clone(),
            hash: String::new(),
            time: whole_micros(now.wall),
            boot_ns: now.boot_ns,
            change: entry.change,
            generation: entry.generation,
            kind: entry.kind,
            actor: entry.actor,
            why: entry.why,
            body: entry.body,
        };
        let mut value = to_value(&record)?;
        record.hash = hash_of(&mut value);
        let mut line = canonical::text(&to_value(&record)?);
        let read_back = self.accept(line.as_bytes())?;
        if read_back != record {
            return Err(Flaw::Rewritten);
        }
        line.push('\n');
        Ok((record, line))
    }

    /// Reads `line` (without its newline) as the next record of this chain.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn accept(&self, line: &[u8]) -> Result<Record, Flaw> {
        let unreadable = |error: serde_json::Error| Flaw::Unreadable(error.to_string());
        let mut value: Value = serde_json::from_slice(line).map_err(unreadable)?;
        if canonical::text(&value).as_bytes() != line {
            return Err(Flaw::Rewritten);
        }
        let record: Record = serde_json::from_value(value.clone()).map_err(unreadable)?;
        if hash_of(&mut value) != record.hash {
            return Err(Flaw::Hash);
        }
        let expected = self.seq.saturating_add(1);
        match record.seq {
            found if found < expected => Err(Flaw::Repeated { found }),
            found if found > expected => Err(Flaw::Missing { found }),
            _ if record.prev != self.hash => Err(Flaw::Prev),
            _ => Ok(record),
        }
    }

    /// Moves on to `record`, which [`Chain::accept`] or [`Chain::extend`] gave.
    pub fn advance(&mut self, record: &Record) {
        self.seq = record.seq;
        self.hash.clone_from(&record.hash);
    }
}

fn to_value(record: &Record) -> Result<Value, Flaw> {
    serde_json::to_value(record).map_err(|error| Flaw::Unreadable(error.to_string()))
}

/// Takes `hash` out of the object and hashes what is left.
fn hash_of(value: &mut Value) -> String {
    if let Some(object) = value.as_object_mut() {
        object.remove("hash");
    }
    Digest::of(canonical::text(value).as_bytes()).to_string()
}

/// The journal keeps microseconds: what is handed out must equal what is read.
fn whole_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
