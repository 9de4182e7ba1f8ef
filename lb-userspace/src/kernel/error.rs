//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

use super::refusal::Refused;

/// A failure of a kernel operation.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The guard refused: the kernel's own rules, with numbers.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The programs cannot be loaded.
    #[error("the kernel does not take the programs: {0}")]
    Load(String),
    /// A map lacks or has another shape than this version's.
    #[error("map {name}: {why}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Nothing is pinned there.
    #[error("{} is not there: lbguard is not loaded on this host (start `lbguard agent`)", .0.display())]
    NotLoaded(PathBuf),
    /// Another layout is pinned.
    #[error(
        "{} was made by another version of lbguard (ABI {found}, this is {}): stop traffic or move it \
         away, run the other version's `lbguard unload`, then start this agent",
        path.display(),
        lb_common::ABI
    )]
    OtherAbi {
        /// Where.
        path: PathBuf,
        /// Its ABI number.
        found: String,
    },
    /// The guard's reply makes no sense.
    #[error("the guard did not answer: {0}")]
    NoAnswer(String),
    /// An operation of the operating system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The configuration does not fit the tables.
    #[error("{0}")]
    Capacity(String),
    /// What lies in the kernel differs from what was written.
    #[error("what the kernel holds differs from what was staged: {0}")]
    Mismatch(String),
}

impl KernelError {
    /// An [`io::Error`] with what was tried.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    /// The guard's refusal, if this is one.
    pub fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            _ => None,
        }
    }
}
