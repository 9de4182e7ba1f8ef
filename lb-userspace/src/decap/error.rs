//! What can go wrong with the decap program.

use std::path::{Path, PathBuf};

use aya::maps::MapError;
use aya::programs::ProgramError;

use super::foreign::ForeignProgram;

/// Why the decap program is not attached, detached or read.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// There is no such interface in this network namespace.
    #[error("there is no interface {0} here (see `ip link`)")]
    NoInterface(String),
    /// Another XDP program has the interface.
    #[error(
        "{interface} has the XDP program {program}, which is not ours: detach it first \
         (`ip link set dev {interface} xdp off`, or the tool that attached it)"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// What is there.
        program: ForeignProgram,
    },
    /// The embedded object is not what this version expects.
    #[error("the embedded BPF object lacks {0}: build lbguard again")]
    Object(&'static str),
    /// The kernel refused the object.
    #[error("the kernel refused the decap program: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused the program.
    #[error("the kernel refused the decap program: {0}")]
    Program(#[from] ProgramError),
    /// The interface took it in no mode that was allowed.
    #[error("{interface} does not take the decap program in {mode} mode: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode that failed last.
        mode: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// A map could not be read or filled.
    #[error("a map of the decap program: {0}")]
    Map(MapError),
    /// A pin could not be made, read or removed.
    #[error("{pin}: {reason} (is a bpffs mounted there, and are you root?)")]
    Pin {
        /// The file.
        pin: PathBuf,
        /// Why.
        reason: String,
    },
    /// The kernel did not say what is on an interface.
    #[error("asking for the XDP program of {interface}: {reason}")]
    Netlink {
        /// The interface.
        interface: String,
        /// Why.
        reason: String,
    },
}

pub(super) fn pin(pin: &Path, reason: impl std::error::Error) -> DecapError {
    DecapError::Pin {
        pin: pin.to_owned(),
        reason: reason.to_string(),
    }
}
