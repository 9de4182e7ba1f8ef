//! Appending whole lines to a file, or nothing at all.

use std::fs::File;
use std::io::{self, Write};

/// What can be appended to, cut, and forced to disk.
pub trait Medium {
    /// Appends all of `bytes`, or fails with some of them written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the medium to `len` bytes.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// Returns when everything is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// How an append failed.
#[derive(Debug)]
pub enum LogError {
    /// Nothing was appended; a later try may succeed.
    Undone(io::Error),
    /// It is unknown what is on the disk: nothing more may be appended.
    Unknown(io::Error),
}

/// A medium whose length is known.
#[derive(Debug)]
pub struct Log<M> {
    medium: M,
    len: u64,
}

impl<M: Medium> Log<M> {
    /// A log on `medium`, which holds `len` bytes of whole lines.
    pub fn new(medium: M, len: u64) -> Self {
        Self { medium, len }
    }

    /// What is appended to.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Appends `line` and waits for the disk.
    ///
    /// A failed write is cut off again, so that the next line does not land in
    /// the middle of a torn one. After a failed sync the kernel may have dropped
    /// the pages while reporting success later, so there is no trying again.
    ///
    /// # Errors
    ///
    /// See [`LogError`].
    pub fn append(&mut self, line: &[u8]) -> Result<(), LogError> {
        if let Err(error) = self.medium.append(line) {
            return Err(match self.medium.cut(self.len) {
                Ok(()) => LogError::Undone(error),
                Err(_) => LogError::Unknown(error),
            });
        }
        self.medium.sync().map_err(LogError::Unknown)?;
        let grown = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.len = self.len.saturating_add(grown);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with `room` bytes left, whose cut and sync can be broken.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        cut_fails: bool,
        sync_fails: bool,
    }

    impl Medium for Disk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let fits = bytes.len().min(self.room);
            self.bytes.extend(&bytes[..fits]);
            self.room -= fits;
            if fits < bytes.len() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        }

        fn cut(&mut self, len: u64) -> io::Result<()> {
            if self.cut_fails {
                return Err(io::ErrorKind::Other.into());
            }
            self.bytes.truncate(usize::try_from(len).unwrap());
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.sync_fails {
                Err(io::ErrorKind::Other.into())
            } else {
                Ok(())
            }
        }
    }

    #[test]
    fn a_full_disk_leaves_whole_lines_and_the_next_try_counts() {
        let mut log = Log::new(
            Disk {
                room: 9,
                ..Disk::default()
            },
            0,
        );
        log.append(b"one\n").unwrap();
        assert!(matches!(log.append(b"twenty\n"), Err(LogError::Undone(_))));
        assert_eq!(log.medium().bytes, b"one\n");
        log.medium.room = 100;
        log.append(b"two\n").unwrap();
        assert_eq!(log.medium().bytes, b"one\ntwo\n");
    }

    #[test]
    fn what_cannot_be_undone_or_synced_is_unknown() {
        let mut log = Log::new(
            Disk {
                room: 1,
                cut_fails: true,
                ..Disk::default()
            },
            0,
        );
        assert!(matches!(log.append(b"one\n"), Err(LogError::Unknown(_))));
        let mut log = Log::new(
            Disk {
                room: 9,
                sync_fails: true,
                ..Disk::default()
            },
            0,
        );
        assert!(matches!(log.append(b"one\n"), Err(LogError::Unknown(_))));
    }
}
