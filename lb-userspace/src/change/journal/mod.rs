//! The journal: `journal.jsonl` in the state directory, one JSON object a line.
//!
//! Append-only. Each record names the hash of the one before, so an altered,
//! missing, swapped or repeated record is found and located ([`verify`]). Each
//! append returns after the record is on the disk. A record that a crash tore
//! is moved to `journal.torn-<n>` at the next start; an altered journal is
//! refused, never repaired.
//!
//! With ordinary tools: `jq -cSj 'del(.hash)' | sha256sum` over one line prints
//! that line's hash.

mod canonical;
mod chain;
mod error;
mod head;
mod log;
mod record;
mod scan;

pub use chain::{Chain, Flaw, GENESIS};
pub use error::{Bad, JournalError};
pub use record::{Entry, Kind, Record};
pub use scan::{Report, Scan, Torn, read, unverified, verify};

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::change::Now;
use log::{Log, LogError};

/// The journal, open for appending by this process alone.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    log: Log<File>,
    head: File,
    chain: Chain,
    stopped: Option<String>,
}

/// What [`Journal::open`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// All records, oldest first.
    pub records: Vec<Record>,
    /// What was done about an unfinished last line.
    pub repair: Option<Repair>,
}

/// What was done about an unfinished last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Its bytes were moved to this file.
    MovedTo(PathBuf),
    /// Only the newline was missing, and was written.
    Completed,
}

impl Journal {
    /// Opens the journal at `path` for appending, made if missing, repaired if a
    /// crash tore its last line.
    ///
    /// # Errors
    ///
    /// [`JournalError::Locked`] if another process has it open,
    /// [`JournalError::Altered`] if a record is bad, else the file system's.
    pub fn open(path: &Path) -> Result<(Self, Opened), JournalError> {
        let failed = |error| JournalError::io(path, error);
        let file = open_or_create(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::Locked {
                    path: path.to_path_buf(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (mut records, mut report) = read(path)?;
        if let Some(bad) = report.first_bad {
            return Err(JournalError::Altered {
                path: path.to_path_buf(),
                bad,
            });
        }
        let repair = match report.torn.take() {
            Some(torn) => Some(repair(path, &file, &torn, &report).map_err(failed)?),
            None => None,
        };
        if repair == Some(Repair::Completed) {
            (records, report) = read(path)?;
        }
        let head = head::open(path).map_err(failed)?;
        let journal = Self {
            path: path.to_path_buf(),
            log: Log::new(file, report.good_bytes),
            head,
            chain: report.end,
            stopped: None,
        };
        journal.remember();
        Ok((journal, Opened { records, repair }))
    }

    /// Appends a record and returns it when it is on the disk.
    ///
    /// # Errors
    ///
    /// [`JournalError::Full`] and the like leave the journal as it was: try again
    /// later. [`JournalError::Stopped`] needs a new [`Journal::open`].
    pub fn append(&mut self, entry: Entry, now: Now) -> Result<Record, JournalError> {
        self.check_usable()?;
        let (record, line) = self
            .chain
            .extend(entry, now)
            .map_err(JournalError::Unfaithful)?;
        match self.log.append(line.as_bytes()) {
            Ok(()) => {}
            Err(LogError::Undone(error)) => return Err(JournalError::io(&self.path, error)),
            Err(LogError::Unknown(error)) => {
                let error = JournalError::io(&self.path, error);
                self.stopped = Some(error.to_string());
                return Err(error);
            }
        }
        self.chain.advance(&record);
        self.remember();
        Ok(record)
    }

    /// Number and hash of the last record.
    pub fn end(&self) -> &Chain {
        &self.chain
    }

    /// The head file is only a lower bound: failing to raise it loses nothing
    /// but the power to notice a later truncation.
    fn remember(&self) {
        let _ = head::write(&self.head, &self.chain);
    }

    /// Whether a record may be appended to what was opened. Says nothing about room on the disk.
    ///
    /// # Errors
    ///
    /// [`JournalError::Stopped`] and [`JournalError::Moved`]: it has to be opened again.
    pub fn check_usable(&self) -> Result<(), JournalError> {
        if let Some(cause) = self.stopped.clone() {
            return Err(JournalError::Stopped {
                path: self.path.clone(),
                cause,
            });
        }
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let mine = self.log.medium().metadata().map(inode);
        match (mine, fs::metadata(&self.path).map(inode)) {
            (Ok(mine), Ok(named)) if mine == named => Ok(()),
            _ => Err(JournalError::Moved {
                path: self.path.clone(),
            }),
        }
    }
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o640);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = options.create(true).open(path)?;
    file.sync_all()?;
    sync_dir(path)?;
    Ok(file)
}

/// Moves an unfinished last line aside, or finishes it.
fn repair(path: &Path, file: &File, torn: &Torn, report: &Report) -> io::Result<Repair> {
    let mut file = file;
    if torn.whole.is_some() {
        file.write_all(b"\n")?;
        file.sync_all()?;
        return Ok(Repair::Completed);
    }
    let aside = set_aside(path, &torn.bytes)?;
    file.set_len(report.good_bytes)?;
    file.sync_all()?;
    Ok(Repair::MovedTo(aside))
}

/// Writes `bytes` to the first free `journal.torn-<n>`.
fn set_aside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    for number in 1..=u32::MAX {
        let aside = path.with_extension(format!("torn-{number}"));
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&aside)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(mut file) => {
                file.write_all(bytes)?;
                file.sync_all()?;
                sync_dir(path)?;
                return Ok(aside);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Forces the directory entry of `path` to the disk.
fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
