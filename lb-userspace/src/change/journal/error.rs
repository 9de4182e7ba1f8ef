//! How the journal fails, in words for somebody who was just woken up.

use std::io;
use std::path::{Path, PathBuf};

use super::chain::Flaw;

/// The first bad place of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Number of the record that should stand there.
    pub seq: u64,
    /// Line in the file, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: Flaw,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}, line {}: {}", self.seq, self.line, self.why)
    }
}

/// Why the journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No room on the file system, or the quota is used up.
    #[error(
        "disk full: {} can't be written. Forwarding goes on and `lbguard revert` still works; \
         make room, then repeat the command", .path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error(
        "read-only file system: {} can't be written. Often the kernel's answer to a disk error: \
         see `dmesg`; forwarding goes on and `lbguard revert` still works", .path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// No permission.
    #[error("permission denied: {}. Run it as root", .path.display())]
    Denied {
        /// The file.
        path: PathBuf,
    },
    /// There is no journal yet.
    #[error(
        "no journal at {}: no agent has run here, or --root or --state-dir names another place",
        .path.display()
    )]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("{} is in use by another agent: stop that one first", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A record is altered or missing.
    #[error(
        "{} was altered: {bad}. Keep it for the inquiry; to go on without it, move it and its \
         head file away: mv {0} {0}.bad; mv {1} {1}.bad",
        .path.display(), .path.with_extension("head").display()
    )]
    Altered {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        bad: Bad,
    },
    /// The file was renamed or deleted under the writer.
    #[error(
        "{} was moved or deleted while the agent was writing it: put it back, or restart the \
         agent to begin a new one", .path.display()
    )]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// An earlier write left the file in an unknown state.
    #[error(
        "{} is not written any more since this failed: {cause}. Remove the cause and restart the \
         agent; forwarding goes on", .path.display()
    )]
    Stopped {
        /// The file.
        path: PathBuf,
        /// What failed first.
        cause: String,
    },
    /// The record would not read back as it was written: a bug of the caller.
    #[error("the record can't be written faithfully: {0}")]
    Unfaithful(Flaw),
    /// Any other failure of the file system.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    /// Names the usual failures of a file system.
    pub fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            io::ErrorKind::NotFound => Self::Absent { path },
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_failures_are_named() {
        let of = |errno| {
            JournalError::io(
                Path::new("/x/journal.jsonl"),
                io::Error::from_raw_os_error(errno),
            )
        };
        for (errno, words) in [
            (libc::ENOSPC, "disk full: /x/journal.jsonl"),
            (libc::EDQUOT, "disk full: /x/journal.jsonl"),
            (libc::EROFS, "read-only file system: /x/journal.jsonl"),
            (libc::EACCES, "permission denied: /x/journal.jsonl"),
            (libc::ENOENT, "no journal at /x/journal.jsonl"),
            (libc::EIO, "/x/journal.jsonl: "),
        ] {
            assert!(of(errno).to_string().starts_with(words), "{}", of(errno));
        }
    }
}
