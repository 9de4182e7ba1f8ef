//! What goes over the agent's socket: JSON, one object a line where it is a stream.

use serde::{Deserialize, Serialize};

use crate::change::machine::Progress;

/// Header that carries an [`Apply`] as JSON; the body is the file.
pub const APPLY_HEADER: &str = "x-lbguard-apply";

/// A change that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Apply {
    /// Name of the file, for messages.
    pub file: String,
    /// Why.
    pub why: String,
    /// Share of new flows, ppm; `None` = all.
    pub share_ppm: Option<u32>,
    /// Time to confirm in, ms; `None` = by policy.
    pub confirm_within_ms: Option<u64>,
    /// Pass over findings that can be forced.
    pub force_unsafe: bool,
    /// Digest of the plan that was looked at; anything else is refused.
    pub plan: Option<String>,
}

/// One line of the answer to an apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ApplyEvent {
    /// What the checks found, rendered and as data.
    Findings {
        /// For people.
        text: String,
        /// For programs.
        findings: serde_json::Value,
    },
    /// What the guard found when it sealed the slot.
    Sealed(crate::kernel::stage::Sealed),
    /// A step.
    Progress(Progress),
    /// The change was not begun.
    NotBegun {
        /// Why not, and the way out.
        message: String,
        /// Exit code of `apply`.
        exit: u8,
    },
}

/// A confirmation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Confirm {
    /// Even if the evidence did not pass.
    pub accept_unproven: bool,
}

/// What stops changes from going forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "switch", rename_all = "snake_case")]
pub enum Switch {
    /// Freeze or thaw (K9).
    Freeze {
        /// Whether to freeze.
        on: bool,
    },
    /// Clear the breaker's latch (K8).
    Ack,
}

/// The answer to a request that either works or says why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub done: bool,
    /// A sentence.
    pub message: String,
    /// Exit code of the command.
    pub exit: u8,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// State of the change in flight.
    pub change: Option<Progress>,
    /// Why the change in flight was made.
    pub why: Option<String>,
    /// Warnings that hold now.
    pub warnings: Vec<String>,
}
