//! The journal and the store as the read-outs use them: on disk, no agent needed.

use crate::change::journal::{self, JournalError, Record, Report};
use crate::change::ledger::{Ledger, Summary};
use crate::change::store::{Generation, Meta, Store, StoreError};
use crate::cli::render::{Tone, time};
use crate::cli::{CliError, Context, node};
use crate::config::{Config, Digest};

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        Self::internal(error)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

/// Everything that was written down on this host.
#[derive(Debug)]
pub struct Past {
    /// Good records, oldest first.
    pub records: Vec<Record>,
    /// The same added up.
    pub ledger: Ledger,
    /// The generations.
    pub store: Store,
    report: Report,
    journal: std::path::PathBuf,
}

impl Past {
    /// Reads the journal of the context's instance.
    pub fn read(context: &Context) -> Result<Self, CliError> {
        let paths = node::paths(context)?;
        let journal = paths.journal();
        let (records, report) = journal::read(&journal)?;
        let ledger = Ledger::of(&records);
        Ok(Self {
            records,
            ledger,
            store: Store::at(paths.generations()),
            report,
            journal,
        })
    }

    /// The error that a read-out ends with when the journal is bad: after it has
    /// shown what there is.
    pub fn check_intact(&self) -> Result<(), CliError> {
        match self.report.first_bad.clone() {
            None => Ok(()),
            Some(bad) => Err(JournalError::Altered {
                path: self.journal.clone(),
                bad,
            }
            .into()),
        }
    }

    /// The configuration of a generation; 0 is the empty one.
    pub fn config(&self, generation: u64) -> Result<Config, CliError> {
        if generation == 0 {
            return Ok(Config::default());
        }
        parse(&self.generation(generation)?)
    }

    /// A whole generation; generation 0 has the empty file.
    pub fn generation(&self, generation: u64) -> Result<Generation, CliError> {
        if generation == 0 {
            return Ok(empty());
        }
        self.store.load(generation).map_err(|error| {
            match (&error, self.ledger.change_of(generation)) {
                (StoreError::Absent { .. }, Some(summary)) => CliError::internal(format!(
                    "the content of generation {generation} is not kept on this host"
                ))
                .way_out(format!(
                    "it {}; other generations: lbguard history",
                    outcome(summary).0
                )),
                _ => error.into(),
            }
        })
    }

    /// Whether `generation` is in force, by the journal.
    pub fn in_force(&self, generation: u64) -> bool {
        self.ledger.committed == Some(generation)
    }
}

/// The configuration that a generation holds.
pub fn parse(generation: &Generation) -> Result<Config, CliError> {
    Config::from_canonical_json(&generation.canonical).map_err(|error| {
        CliError::internal(format!(
            "generation {}: {error}",
            generation.meta.generation
        ))
    })
}

fn empty() -> Generation {
    let canonical = Config::default().canonical_json();
    let meta = Meta {
        generation: 0,
        digest: Digest::of(canonical.as_bytes()),
        base: 0,
        author: crate::change::actor::Actor::kernel(),
        why: "empty: what an instance starts with".to_owned(),
        time: jiff::Timestamp::UNIX_EPOCH,
        outcome: None,
    };
    Generation {
        meta,
        services: "version = 1\n".to_owned(),
        canonical,
    }
}

/// How a change ended, in a sentence without its subject, and how that is meant.
pub fn outcome(summary: &Summary) -> (String, Tone) {
    use crate::change::journal::Kind;
    let at = time(summary.time);
    let by = match (&summary.confirmed_by, &summary.ended_by) {
        (Some(actor), _) if summary.kind == Kind::Committed => format!(" by {}", actor.user),
        (_, Some(actor)) => format!(" by {}", actor.user),
        _ => String::new(),
    };
    match summary.kind {
        Kind::Committed if summary.rolled_back => (
            format!("was committed {at}{by} and later put back"),
            Tone::Mind,
        ),
        Kind::Committed => (format!("was committed {at}{by}"), Tone::Good),
        Kind::Reverted => (format!("was put back {at}{by}"), Tone::Bad),
        Kind::Rejected => (format!("was refused {at}"), Tone::Bad),
        Kind::Aborted => (format!("was given up {at}, before any traffic"), Tone::Bad),
        ref other => (format!("is in flight: {other} since {at}"), Tone::Mind),
    }
}
