//! A refusal of the guard as a sentence with numbers.

use lb_common::control::Cause;
use lb_common::guard::{Op, Refusal};

/// What the guard refused, and with which numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel guard refused {}", self.reason())]
pub struct Refused {
    /// What was asked.
    pub op: Op,
    /// Why not.
    pub refusal: Refusal,
    /// Numbers, as documented at each [`Refusal`].
    pub detail: [u64; 7],
}

impl Refused {
    /// The command and the sentence, for those who say by themselves that the guard refused.
    pub fn reason(&self) -> String {
        format!(
            "{}: {}",
            self.op.name(),
            sentence(self.refusal, &self.detail)
        )
    }

    /// Pool number, and backend number in it, that the refusal is about.
    pub fn pool_and_backend(&self) -> Option<(u16, Option<u32>)> {
        let pool = u16::try_from(self.detail[0]).ok()?;
        let backend = u32::try_from(self.detail[1]).ok();
        match self.refusal {
            Refusal::Hole | Refusal::TooFewBackends => Some((pool, None)),
            Refusal::BadEntry | Refusal::AboveCap | Refusal::NextHopMissing | Refusal::Family => {
                Some((pool, backend))
            }
            _ => None,
        }
    }

    /// Whether the same command may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        matches!(self.refusal, Refusal::Busy | Refusal::GracePeriod)
    }
}

fn percent(ppm: u64) -> String {
    format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100)
}

fn sentence(refusal: Refusal, d: &[u64; 7]) -> String {
    let cause = |code: u64| Cause::from_code(u32::try_from(code).unwrap_or(0)).as_str();
    match refusal {
        Refusal::Done => "nothing".to_owned(),
        Refusal::Malformed => "the command is malformed".to_owned(),
        Refusal::Busy => "it is at work for another caller; try again".to_owned(),
        Refusal::NotStarted => "it has not been started; start `lbguard agent`".to_owned(),
        Refusal::Session => "another agent has taken over since".to_owned(),
        Refusal::StaleBase => format!(
            "stale (K2): the change was made from generation {}, but generation {} is active; make it anew",
            d[1], d[0]
        ),
        Refusal::OldGeneration => {
            format!(
                "generation {} is not above {}, the highest so far",
                d[1], d[0]
            )
        }
        Refusal::NoSlot => "no slot is free of ACTIVE, LKG and a trial (K5)".to_owned(),
        Refusal::GracePeriod => format!("the slot was in use a moment ago; free in {} ms", d[0]),
        Refusal::SlotState => format!(
            "SHADOW is not in the state this needs (it is {})",
            slot_state(d[0])
        ),
        Refusal::OutOfRange => format!("number {} is out of range", d[0]),
        Refusal::InUse => format!(
            "number {} is in use, and what is sealed is never written (K2)",
            d[0]
        ),
        Refusal::Hole
        | Refusal::BadEntry
        | Refusal::TooFewBackends
        | Refusal::AboveCap
        | Refusal::NextHopMissing
        | Refusal::Family => about_pool(refusal, d),
        Refusal::Incomplete => format!("{}: {} there, {} announced (K3)", part(d[0]), d[1], d[2]),
        Refusal::NeedsDeadmen => {
            format!("a change of class R{} needs lease and deadline (K4)", d[0])
        }
        Refusal::BadDeadline => format!("{} ms is not between 1 and {} ms", d[0], d[1]),
        Refusal::NoTrial => format!(
            "no change is on trial (the last one ended by {})",
            cause(d[0])
        ),
        Refusal::TooLate => format!("too late: the {} has passed (K7)", cause(d[0])),
        Refusal::Frozen => "frozen (K9): forward changes are refused, going back is not".to_owned(),
        Refusal::NoLkg => "there is no last known good generation to go back to".to_owned(),
        Refusal::BadShare => "the share of new flows is out of range".to_owned(),
        Refusal::Overlap => format!("the room is taken by table {}", d[0]),
        Refusal::TrialOn => "a change is on trial; confirm or revert it first".to_owned(),
        Refusal::OtherGeneration => {
            format!(
                "the generation that was meant is gone; generation {} is there now",
                d[0]
            )
        }
        Refusal::Unswept => format!("backend number {} may still be named by a flow", d[0]),
        Refusal::Velocity => format!(
            "too many changes in too short a time (K6); the next may begin in {} s",
            d[0].div_ceil(1000)
        ),
        Refusal::Latched => "the breaker has ended a trial and nobody has acknowledged it (K8); \
                             look at `lbguard history`, then run `lbguard ack`"
            .to_owned(),
        Refusal::TooManyDown => format!(
            "{} of the pool's {} backends are down already, and no more than {} may be (K10)",
            d[1],
            d[2],
            percent(d[3])
        ),
        Refusal::TooFewLeft => format!(
            "{} of the pool's {} backends take no new flows already; at least {} must stay, and no more \
             than {} may be out (K10)",
            d[1],
            d[2],
            d[3].max(1),
            percent(d[4])
        ),
        Refusal::NoPolicy => "no policy has been set; start `lbguard agent`".to_owned(),
        Refusal::SharedNumber => format!("two VIPs have number {} (K3)", d[0]),
        Refusal::NoEvidence => "the trial's flows are not followed: it has one step".to_owned(),
        Refusal::TooManySteps => format!("a trial has {} steps at most (K4)", d[0]),
        Refusal::Kernel => "a kernel helper failed".to_owned(),
    }
}

/// K3: what is wrong with a pool of SHADOW.
fn about_pool(refusal: Refusal, d: &[u64; 7]) -> String {
    match refusal {
        Refusal::Hole => format!(
            "{} entries of pool #{}'s table name no backend (K3)",
            d[1], d[0]
        ),
        Refusal::BadEntry => {
            format!(
                "pool #{}'s table names backend {}, which the pool has not (K3)",
                d[0], d[1]
            )
        }
        Refusal::TooFewBackends => {
            format!(
                "pool #{} has {} usable backends, its minimum is {} (K3)",
                d[0], d[1], d[2]
            )
        }
        Refusal::AboveCap => format!(
            "backend {} of pool #{} would get {} of the table, its cap is {} (K3)",
            d[1],
            d[0],
            percent(d[2]),
            percent(d[3])
        ),
        Refusal::NextHopMissing => {
            format!(
                "backend {} of pool #{} has no resolved next hop (K3)",
                d[1], d[0]
            )
        }
        Refusal::Family => format!(
            "backend {} of pool #{} does not fit the address family or mode of its VIPs (K3)",
            d[1], d[0]
        ),
        other => other.name().to_owned(),
    }
}

fn slot_state(code: u64) -> &'static str {
    match code {
        1 => "being staged",
        2 => "sealed",
        _ => "empty",
    }
}

fn part(code: u64) -> &'static str {
    match code {
        1 => "VIPs",
        2 => "pools",
        3 => "backends",
        5 => "cleared places",
        6 => "addresses",
        _ => "tables",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_a_sentence_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for refusal in Refusal::ALL {
            let text = Refused {
                op: Op::Seal,
                refusal: *refusal,
                detail: [7; 7],
            }
            .to_string();
            assert!(
                text.starts_with("the kernel guard refused Seal: "),
                "{text}"
            );
            assert!(seen.insert(text.clone()), "{text} twice");
        }
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(percent(612_345), "61.23 %");
    }
}
