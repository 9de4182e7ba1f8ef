//! The content of every generation: `generations/<number>/` in the state
//! directory.
//!
//! | file | holds |
//! |---|---|
//! | `services.toml` | the file, byte for byte as it was given |
//! | `canonical.json` | its canonical form, whose SHA-256 is the digest |
//! | `meta.json` | number, digest, base, author, why, time, outcome |
//!
//! A generation appears whole or not at all: it is written beside, forced to the
//! disk, and renamed. Which generation is in force is not kept here: the journal
//! says it ([`Ledger`](super::ledger::Ledger)); `outcome` is a note for people.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::actor::Actor;
use crate::config::Digest;

const SERVICES: &str = "services.toml";
const CANONICAL: &str = "canonical.json";
const META: &str = "meta.json";

/// `generations/` of one instance.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What is known about a generation besides its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its number.
    pub generation: u64,
    /// SHA-256 of the canonical form.
    pub digest: Digest,
    /// Generation that it was made from; 0 is the empty one.
    pub base: u64,
    /// Who made it.
    pub author: Actor,
    /// Why.
    pub why: String,
    /// When.
    pub time: Timestamp,
    /// What became of it: a final state's name; `None` before.
    pub outcome: Option<String>,
}

/// A whole generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// What is known about it.
    pub meta: Meta,
    /// The file as it was given.
    pub services: String,
    /// The canonical form.
    pub canonical: String,
}

/// Why a generation could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such generation.
    #[error(
        "no generation {generation} in {}: `lbguard history` lists them", .dir.display()
    )]
    Absent {
        /// The number asked for.
        generation: u64,
        /// Where.
        dir: PathBuf,
    },
    /// The number is taken: generations are never written twice.
    #[error("generation {0} exists already and is never written twice")]
    Exists(u64),
    /// What is on the disk is not what was written.
    #[error(
        "generation {generation} was altered on disk: {what}. What the kernel forwards is not \
         affected; restore {} from a backup to use it again", .dir.display()
    )]
    Altered {
        /// The number.
        generation: u64,
        /// What does not fit.
        what: String,
        /// Where.
        dir: PathBuf,
    },
    /// No room on the file system.
    #[error("disk full: {} can't be written; make room, then repeat the command", .0.display())]
    Full(PathBuf),
    /// The file system is mounted read-only.
    #[error("read-only file system: {} can't be written; see `dmesg`", .0.display())]
    ReadOnly(PathBuf),
    /// Any other failure of the file system.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(path.to_path_buf())
        }
        io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(path.to_path_buf()),
        _ => StoreError::Io {
            path: path.to_path_buf(),
            source,
        },
    }
}

impl Store {
    /// The store in `dir`, for reading; nothing is touched.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The same for writing: makes the directory and clears what a crash left
    /// half-written.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self::at(dir);
        fs::create_dir_all(&store.dir).map_err(io_at(&store.dir))?;
        for entry in fs::read_dir(&store.dir).map_err(io_at(&store.dir))? {
            let path = entry.map_err(io_at(&store.dir))?.path();
            if number_of(&path).is_none() && is_leftover(&path) {
                fs::remove_dir_all(&path).map_err(io_at(&path))?;
            }
        }
        Ok(store)
    }

    /// Writes a new generation, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`], [`StoreError::Altered`] if the canonical form does
    /// not have the digest, or the file system's.
    pub fn put(&self, generation: &Generation) -> Result<(), StoreError> {
        let number = generation.meta.generation;
        let place = self.place(number);
        if place.exists() {
            return Err(StoreError::Exists(number));
        }
        self.check_digest(generation)?;
        let aside = self.dir.join(format!(".new-{number}"));
        let failed = io_at(&aside);
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(&failed)?;
        }
        // All the way: the disk may not have taken it when the store was opened.
        fs::create_dir_all(&aside).map_err(&failed)?;
        write_synced(&aside.join(SERVICES), generation.services.as_bytes())?;
        write_synced(&aside.join(CANONICAL), generation.canonical.as_bytes())?;
        write_synced(&aside.join(META), &meta_bytes(&generation.meta, &aside)?)?;
        sync_dir(&aside).map_err(&failed)?;
        fs::rename(&aside, &place).map_err(&failed)?;
        sync_dir(&self.dir).map_err(failed)
    }

    /// Notes what became of a generation.
    ///
    /// # Errors
    ///
    /// [`StoreError::Absent`], or the file system's.
    pub fn set_outcome(&self, generation: u64, outcome: &str) -> Result<(), StoreError> {
        let mut meta = self.meta(generation)?;
        meta.outcome = Some(outcome.to_owned());
        let place = self.place(generation);
        let aside = place.join(".meta.new");
        write_synced(&aside, &meta_bytes(&meta, &place)?)?;
        fs::rename(&aside, place.join(META)).map_err(io_at(&place))?;
        sync_dir(&place).map_err(io_at(&place))
    }

    /// The numbers of all generations, lowest first.
    ///
    /// # Errors
    ///
    /// The file system's; a missing directory is an empty store.
    pub fn list(&self) -> Result<Vec<u64>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_at(&self.dir))?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            numbers.extend(number_of(&entry.map_err(io_at(&self.dir))?.path()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What is known about a generation.
    ///
    /// # Errors
    ///
    /// [`StoreError::Absent`], [`StoreError::Altered`], or the file system's.
    pub fn meta(&self, generation: u64) -> Result<Meta, StoreError> {
        let text = self.read(generation, META)?;
        let meta: Meta = serde_json::from_str(&text)
            .map_err(|error| self.altered(generation, format!("{META}: {error}")))?;
        if meta.generation != generation {
            let what = format!("{META} is of generation {}", meta.generation);
            return Err(self.altered(generation, what));
        }
        Ok(meta)
    }

    /// A whole generation, held against its digest.
    ///
    /// # Errors
    ///
    /// As [`Store::meta`].
    pub fn load(&self, generation: u64) -> Result<Generation, StoreError> {
        let whole = Generation {
            meta: self.meta(generation)?,
            services: self.read(generation, SERVICES)?,
            canonical: self.read(generation, CANONICAL)?,
        };
        self.check_digest(&whole)?;
        Ok(whole)
    }

    /// Removes the oldest generations until `keep` are left; those in `hold`
    /// (ACTIVE, LKG, on trial) are never removed. Returns what was removed.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn prune(&self, keep: usize, hold: &[u64]) -> Result<Vec<u64>, StoreError> {
        let all = self.list()?;
        let surplus = all.len().saturating_sub(keep);
        let mut removed = Vec::new();
        for number in all
            .into_iter()
            .filter(|number| !hold.contains(number))
            .take(surplus)
        {
            // Renamed first: a half-removed generation must not look like one.
            let aside = self.dir.join(format!(".old-{number}"));
            fs::rename(self.place(number), &aside).map_err(io_at(&aside))?;
            fs::remove_dir_all(&aside).map_err(io_at(&aside))?;
            removed.push(number);
        }
        sync_dir(&self.dir).map_err(io_at(&self.dir))?;
        Ok(removed)
    }

    fn place(&self, generation: u64) -> PathBuf {
        self.dir.join(generation.to_string())
    }

    fn read(&self, generation: u64, name: &str) -> Result<String, StoreError> {
        let place = self.place(generation);
        if !place.is_dir() {
            return Err(StoreError::Absent {
                generation,
                dir: self.dir.clone(),
            });
        }
        let path = place.join(name);
        fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
                self.altered(generation, format!("{name}: {error}"))
            }
            _ => io_at(&path)(error),
        })
    }

    fn check_digest(&self, generation: &Generation) -> Result<(), StoreError> {
        if Digest::of(generation.canonical.as_bytes()) == generation.meta.digest {
            return Ok(());
        }
        let what = format!("{CANONICAL} does not have the digest in {META}");
        Err(self.altered(generation.meta.generation, what))
    }

    fn altered(&self, generation: u64, what: String) -> StoreError {
        StoreError::Altered {
            generation,
            what,
            dir: self.place(generation),
        }
    }
}

fn meta_bytes(meta: &Meta, at: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec_pretty(meta).map_err(|error| io_at(at)(error.into()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(path);
    let mut file = file.map_err(io_at(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_at(path))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The generation that a directory holds, by its name: digits, no leading zero.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number: u64 = name.parse().ok()?;
    (number.to_string() == name).then_some(number)
}

fn is_leftover(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.starts_with(".new-") || name.starts_with(".old-")
}

#[cfg(test)]
mod tests;
