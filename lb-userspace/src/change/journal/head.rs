//! The head file: a lower bound for how far the journal went.
//!
//! A hash chain can't tell that its last records were cut off. So after each
//! append the number and hash of the last record are written, in place and
//! without waiting for the disk, to `journal.head`. It is never ahead of the
//! journal; behind it after a crash, which is harmless. It stops accidents (a
//! restored backup, a truncated file), not somebody who edits both files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::Chain;

/// Where the head of the journal at `path` is kept.
pub fn path_for(journal: &Path) -> PathBuf {
    journal.with_extension("head")
}

/// What the head file says; `None` if there is none or it makes no sense, as
/// after a crash of the machine.
pub fn read(journal: &Path) -> Option<Chain> {
    let text = std::fs::read_to_string(path_for(journal)).ok()?;
    let (seq, hash) = text.trim_end().split_once(' ')?;
    let hash = hash.parse::<crate::config::Digest>().ok()?.to_string();
    Some(Chain {
        seq: seq.parse().ok()?,
        hash,
    })
}

/// Opens the head file for writing.
pub fn open(journal: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(path_for(journal))
}

/// Writes the head in place: always the same length, within one disk block.
pub fn write(file: &File, chain: &Chain) -> io::Result<()> {
    file.write_all_at(format!("{:020} {}\n", chain.seq, chain.hash).as_bytes(), 0)
}
