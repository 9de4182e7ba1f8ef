//! What a journal line says.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::change::actor::Actor;

/// What the writer of a record has to say; the journal adds number, time, chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub kind: Kind,
    /// Number of the change this belongs to.
    pub change: Option<u64>,
    /// Generation this is about.
    pub generation: Option<u64>,
    /// Who did it.
    pub actor: Actor,
    /// Why, in that person's words.
    pub why: Option<String>,
    /// Details that depend on the kind: an object of integers and text, or null.
    /// Fractions are refused on writing: they do not read back bit by bit.
    pub body: Value,
}

/// One line of the journal. The fields' names and order-free meaning are fixed:
/// other people's scripts read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1, 2, 3, ... without a gap.
    pub seq: u64,
    /// `hash` of the record before; 64 zeros in the first.
    pub prev: String,
    /// SHA-256, in hexadecimal, of this record's canonical bytes without this field.
    pub hash: String,
    /// Wall clock, RFC 3339, UTC, microseconds.
    #[serde(with = "micros")]
    pub time: Timestamp,
    /// Boot-time clock in nanoseconds.
    pub boot_ns: u64,
    /// As in [`Entry::change`].
    pub change: Option<u64>,
    /// As in [`Entry::generation`].
    pub generation: Option<u64>,
    /// As in [`Entry::kind`].
    pub kind: Kind,
    /// As in [`Entry::actor`].
    pub actor: Actor,
    /// As in [`Entry::why`].
    pub why: Option<String>,
    /// As in [`Entry::body`].
    pub body: Value,
}

/// Declares the kinds once: variant, word, and what it says.
macro_rules! kinds {
    ($($(#[$doc:meta])+ $variant:ident = $word:literal,)+) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])+ $variant,)+
            /// Written by a later version; kept as it is.
            Other(String),
        }

        impl Kind {
            /// Every kind that this version writes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the journal.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for Kind {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}

kinds! {
    /// A change was asked for; body: its [`Spec`](crate::change::machine::Spec).
    Draft = "draft",
    /// The checks passed.
    Validated = "validated",
    /// The slot is written and sealed in the kernel.
    Staged = "staged",
    /// The golden packets came out as the model says.
    Tested = "tested",
    /// New flows go to the new slot; body: share and deadline.
    Trial = "trial",
    /// A trial step passed; body: its numbers.
    Verdict = "verdict",
    /// Somebody asked to keep it, in time; the kernel is asked next.
    Confirmed = "confirmed",
    /// Final: the kernel forwards it, and nothing is armed.
    Committed = "committed",
    /// Final: it was on trial and is no longer; body: cause.
    Reverted = "reverted",
    /// Final: refused by a check, rule, policy or the guard; body: cause.
    Rejected = "rejected",
    /// Final: ended before traffic; body: cause.
    Aborted = "aborted",
    /// With no change in flight, ACTIVE was put back on the last known good
    /// generation, which the record names; body: `from`.
    RolledBack = "rolled-back",
    /// After a reboot the committed generation, which the record names, was loaded again.
    Restored = "restored",
    /// A started agent took over what was pinned.
    Adopted = "adopted",
    /// The pinned programs were another version's and have been replaced where they ran.
    Upgraded = "upgraded",
    /// The agent started.
    AgentStart = "agent-start",
    /// The agent stopped; forwarding goes on.
    AgentStop = "agent-stop",
    /// Forwarding on an interface began; body: `interface`.
    Attach = "attach",
    /// Forwarding on an interface ended; body: `interface`.
    Detach = "detach",
    /// lbguard was taken off the host.
    Unload = "unload",
    /// Forward changes were refused from here on, or allowed again; body: `on`.
    Freeze = "freeze",
    /// A tripped breaker was acknowledged.
    Ack = "ack",
    /// A backend was drained by command, or taken back; body: `pool`, `backend`, `on`.
    Drain = "drain",
    /// The policy in the kernel was set; body: its digest.
    Policy = "policy",
    /// Something odd about the traffic between changes begins or ends; body: `alert`, `about`,
    /// `text`, `begins`.
    Alert = "alert",
    /// Flows of backends that have died were forgotten; body: `backends`, `flows`.
    Purged = "purged",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from(word.as_str()))
    }
}

/// Times with six digits always, so that there is one way to write each.
mod micros {
    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.6}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_and_unknown_ones_are_kept() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from(kind.as_str()), *kind);
        }
        let later = Kind::from("frozen-solid");
        assert_eq!(later, Kind::Other("frozen-solid".to_owned()));
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"frozen-solid\"");
    }
}
