//! A change, from a file to a committed generation or back again.
//!
//! - [`journal`]: what happened, append-only and hash-chained;
//! - [`ledger`]: what the journal says when it is added up: which generation is
//!   committed, what became of each change;
//! - [`store`]: the content of every generation;
//! - [`reason`]: why, in the author's words;
//! - [`machine`]: the states of a change; pure, told the time, does no I/O;
//! - [`diff`]: what differs between two configurations;
//! - [`golden`]: what a sealed slot does with packets, before it has any of a client.
//!
//! The kernel's control state decides what is in force. The journal decides what
//! was committed. No third file says either, so none can disagree.

pub mod actor;
pub mod cause;
pub mod diff;
pub mod golden;
pub mod journal;
pub mod ledger;
pub mod machine;
pub mod reason;
pub mod store;

use jiff::Timestamp;

/// One moment on both clocks. Deadlines use the boot-time clock, which counts
/// through a suspend and never jumps; people read the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME` in nanoseconds, as the kernel programs see it.
    pub boot_ns: u64,
    /// Wall clock, UTC.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks. A boot-time clock that can't be read counts as 0,
    /// which no deadline has reached; Linux has had it since 2.6.39.
    pub fn read() -> Self {
        let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map(std::time::Duration::from)
            .unwrap_or_default();
        Self {
            boot_ns: u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX),
            wall: Timestamp::now(),
        }
    }
}
