//! Why a change did not commit.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exit::ExitCode;

/// Why a change ended without being committed, for the journal and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The word that scripts and reports branch on.
    #[serde(rename = "cause")]
    pub kind: CauseKind,
    /// What exactly, in a sentence; may be empty.
    pub detail: String,
}

/// Declares the kinds once: variant, word, sentence.
macro_rules! causes {
    ($($(#[$doc:meta])+ $variant:ident = $word:literal, $text:literal;)+) => {
        /// The kinds of causes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum CauseKind {
            $($(#[$doc])+ $variant,)+
        }

        impl CauseKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the journal.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The same for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

causes! {
    /// A check or rule found an error.
    Check = "check", "the checks found errors";
    /// The guard in the kernel refused.
    Guard = "guard", "the guard in the kernel refused";
    /// This host can't carry it: a backend without a next hop, a table that is full.
    Host = "host", "this host cannot carry it";
    /// The generation could not be stored.
    Store = "store", "the generation could not be stored";
    /// Writing the slot failed.
    Stage = "stage", "the slot could not be written";
    /// What the kernel sealed is not what was asked for.
    Digest = "digest", "the kernel holds something else than was asked for";
    /// A golden packet came out wrong.
    Golden = "golden", "a golden packet came out wrong";
    /// A backend that is new did not answer as it should.
    Probe = "probe", "a new backend failed its probe";
    /// It is unknown whether the trial was armed.
    Arm = "arm", "arming the trial failed half-way";
    /// The journal could not be written, and nothing goes forward unrecorded.
    Journal = "journal", "the journal could not be written";
    /// A stage before the trial took too long.
    Slow = "slow", "preparing it took too long";
    /// The client that asked went away before any traffic.
    ClientGone = "client-gone", "the command was interrupted";
    /// Somebody asked to go back.
    Operator = "operator", "somebody asked to go back";
    /// Nobody confirmed in time.
    Deadline = "deadline", "nobody confirmed in time";
    /// The agent did not renew the lease.
    Lease = "lease", "the agent was silent and the lease ran out";
    /// The breaker in the kernel tripped.
    Breaker = "breaker", "the breaker in the kernel tripped";
    /// The evidence says that the new configuration is worse.
    Verdict = "verdict", "the evidence is against it";
    /// The evidence says neither.
    Inconclusive = "inconclusive", "the evidence is inconclusive";
    /// The kernel no longer has the trial, and does not say why.
    Lost = "lost", "the kernel no longer has the trial";
    /// The kernel committed what nobody confirmed.
    Unasked = "unasked", "it was committed although nobody confirmed it";
    /// The agent ended before any traffic.
    AgentRestart = "agent-restart", "the agent ended while preparing it";
    /// The machine ended.
    HostRestart = "host-restart", "the host was restarted";
}

impl Cause {
    /// A cause with its particulars.
    pub fn new(kind: CauseKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// The body of the journal record.
    pub fn body(&self) -> Value {
        json!({"cause": self.kind.as_str(), "detail": self.detail})
    }

    /// From the body of a journal record.
    pub fn from_body(body: &Value) -> Option<Self> {
        Self::deserialize(body).ok()
    }

    /// Whether going back for this cause must leave a commit alone that the
    /// kernel accepted a moment before: what merely ran out of time.
    pub fn is_lateness(&self) -> bool {
        use CauseKind::{ClientGone, Deadline, Inconclusive, Lease};
        matches!(self.kind, Deadline | Lease | Inconclusive | ClientGone)
    }

    /// Exit code of a change that ended with this before any traffic.
    pub fn exit_before_traffic(&self) -> ExitCode {
        use CauseKind::{Check, Golden, Guard, Host, Journal, Operator, Probe, Store};
        match self.kind {
            // Nothing goes forward unrecorded is a rule: not to be able to record is no failure of ours.
            Check | Guard | Host | Golden | Probe | Operator | Journal | Store => ExitCode::Refused,
            _ => ExitCode::Internal,
        }
    }

    /// Exit code of a change that was put back for this.
    pub fn exit_after_traffic(&self) -> ExitCode {
        match self.kind {
            CauseKind::Inconclusive => ExitCode::Inconclusive,
            _ => ExitCode::Reverted,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_survives_the_journal() {
        for kind in CauseKind::ALL {
            let cause = Cause::new(*kind, "web-1");
            assert_eq!(
                Cause::from_body(&cause.body()),
                Some(cause.clone()),
                "{cause}"
            );
        }
    }
}
