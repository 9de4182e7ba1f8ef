//! The journal as the agent has it: open, or closed for as long as its disk is hurt.
//!
//! An agent without a journal keeps what forwards and takes no change. It opens the journal again
//! when the cause is gone, and only if it is the same journal.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use crate::change::Now;
use crate::change::journal::{
    Bad, Chain, Entry, Journal, JournalError, Record, Repair, read, unverified,
};

/// How long a journal is waited for that another process has open: `lbguard revert` has it for as
/// long as it takes to write a record.
const PATIENCE: Duration = Duration::from_secs(2);

/// The journal, or why there is none.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    journal: Option<Journal>,
    /// Why nothing could be written when it was last tried.
    trouble: Option<String>,
    /// The last record that was read or written.
    known: Chain,
    /// What was altered, and must not be gone on from.
    altered: bool,
}

/// What a journal was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Good records, oldest first; up to the first bad place.
    pub records: Vec<Record>,
    /// What was done about an unfinished last line.
    pub repair: Option<Repair>,
    /// The first bad place, if any.
    pub altered: Option<Bad>,
    /// What stands behind it. Not to be trusted.
    pub unverified: Vec<Record>,
}

impl Records {
    /// Opens the journal, or reads what can be read of one that can't be written.
    ///
    /// # Errors
    ///
    /// Only if another agent writes it.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Found)> {
        let mut records = Self {
            path: path.to_path_buf(),
            journal: None,
            trouble: None,
            known: Chain::default(),
            altered: false,
        };
        let error = match patiently(path) {
            Ok((journal, opened)) => {
                records.known = journal.end().clone();
                records.journal = Some(journal);
                let found = Found {
                    records: opened.records,
                    repair: opened.repair,
                    ..Found::default()
                };
                return Ok((records, found));
            }
            Err(error @ JournalError::Locked { .. }) => bail!(error),
            Err(error) => error,
        };
        records.trouble = Some(error.to_string());
        let Ok((good, report)) = read(path) else {
            return Ok((records, Found::default()));
        };
        records.known = report.end.clone();
        records.altered = report.first_bad.is_some();
        let found = Found {
            records: good,
            unverified: unverified(path, &report).unwrap_or_default(),
            altered: report.first_bad,
            repair: None,
        };
        Ok((records, found))
    }

    /// Why nothing could be written when it was last tried.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether what is on the disk was altered.
    pub fn altered(&self) -> bool {
        self.altered
    }

    /// Appends a record; it is on the disk then.
    ///
    /// # Errors
    ///
    /// Why it is not, with the way out.
    pub fn append(&mut self, entry: Entry, now: Now) -> Result<Record, String> {
        let Some(journal) = &mut self.journal else {
            let why = self.trouble.clone();
            return Err(why.unwrap_or_else(|| "the journal is closed".to_owned()));
        };
        match journal.append(entry, now) {
            Ok(record) => {
                self.known = journal.end().clone();
                self.trouble = None;
                Ok(record)
            }
            Err(error) => {
                let text = error.to_string();
                self.trouble = Some(text.clone());
                Err(text)
            }
        }
    }

    /// Opens the journal again if it can't be gone on with as it is. What it holds now, if it was
    /// opened: somebody else may have written it meanwhile.
    ///
    /// # Errors
    ///
    /// Why it can't be opened, with the way out.
    pub fn reopen(&mut self) -> Result<Option<Found>, String> {
        if let Some(journal) = &self.journal {
            match journal.check_usable() {
                Ok(()) => return Ok(None),
                // Closed first: the lock is on the file that was opened.
                Err(_) => self.journal = None,
            }
        }
        let outcome = self.open_same();
        self.trouble = outcome.as_ref().err().cloned();
        outcome.map(Some)
    }

    /// Whether the disk takes this many bytes.
    ///
    /// # Errors
    ///
    /// Why not, with the way out.
    pub fn probe(&self, bytes: usize) -> Result<(), String> {
        let aside = self.path.with_extension("room");
        let written = File::create(&aside).and_then(|mut file| {
            file.write_all(&vec![0; bytes])?;
            file.sync_all()
        });
        let _ = std::fs::remove_file(&aside);
        written.map_err(|error| JournalError::io(&self.path, error).to_string())
    }

    fn open_same(&mut self) -> Result<Found, String> {
        let moved = || {
            let path = self.path.clone();
            JournalError::Moved { path }.to_string()
        };
        if self.known.seq > 0 && !self.altered && !self.path.exists() {
            return Err(moved());
        }
        let (journal, opened) = Journal::open(&self.path).map_err(|error| error.to_string())?;
        if !self.altered && !self.goes_on(&opened.records) {
            return Err(moved());
        }
        self.known = journal.end().clone();
        self.altered = false;
        self.journal = Some(journal);
        Ok(Found {
            records: opened.records,
            repair: opened.repair,
            ..Found::default()
        })
    }

    /// Whether the last record that is known here stands in its place there.
    fn goes_on(&self, records: &[Record]) -> bool {
        if self.known.seq == 0 {
            return true;
        }
        let place = usize::try_from(self.known.seq.saturating_sub(1)).unwrap_or(usize::MAX);
        records
            .get(place)
            .is_some_and(|record| record.hash == self.known.hash)
    }
}

fn patiently(path: &Path) -> Result<(Journal, crate::change::journal::Opened), JournalError> {
    let begun = std::time::Instant::now();
    loop {
        match Journal::open(path) {
            Err(JournalError::Locked { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(PATIENCE / 20);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::actor::Actor;
    use crate::change::journal::Kind;

    fn entry(kind: Kind) -> Entry {
        Entry {
            kind,
            change: None,
            generation: None,
            actor: Actor::kernel(),
            why: None,
            body: serde_json::Value::Null,
        }
    }

    fn written(count: usize) -> (tempfile::TempDir, Records) {
        let dir = tempfile::tempdir().unwrap();
        let (mut records, found) = Records::open(&dir.path().join("journal.jsonl")).unwrap();
        assert_eq!(found, Found::default());
        for _ in 0..count {
            records
                .append(entry(Kind::AgentStart), Now::read())
                .unwrap();
        }
        (dir, records)
    }

    #[test]
    fn one_that_vanished_is_opened_again_only_if_it_is_the_same() {
        let (dir, mut records) = written(2);
        let path = dir.path().join("journal.jsonl");
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        let refused = records.append(entry(Kind::AgentStop), Now::read());
        assert!(refused.unwrap_err().contains("moved or deleted"));
        assert!(records.reopen().unwrap_err().contains("moved or deleted"));
        assert!(!path.exists(), "none is begun in its place");
        std::fs::write(&path, "").unwrap();
        let another = records.reopen().unwrap_err();
        assert!(
            another.contains("moved") || another.contains("altered"),
            "{another}"
        );
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(records.reopen().unwrap().unwrap().records.len(), 2);
        records.append(entry(Kind::AgentStop), Now::read()).unwrap();
        assert_eq!(records.reopen(), Ok(None));
    }

    #[test]
    fn an_altered_one_is_read_up_to_there_and_a_new_one_is_begun_when_it_is_gone() {
        let (dir, records) = written(3);
        drop(records);
        let path = dir.path().join("journal.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let altered = text.replacen("\"seq\":2", "\"seq\":7", 1);
        std::fs::write(&path, altered).unwrap();
        let (mut records, found) = Records::open(&path).unwrap();
        assert_eq!((found.records.len(), found.unverified.len()), (1, 2));
        assert_eq!(found.altered.map(|bad| bad.line), Some(2));
        assert!(records.altered());
        let told = records.reopen().unwrap_err();
        assert!(told.contains("record 2, line 2"), "{told}");
        for name in ["journal.jsonl", "journal.head"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(records.reopen().unwrap().unwrap(), Found::default());
        records.append(entry(Kind::AgentStop), Now::read()).unwrap();
    }
}
