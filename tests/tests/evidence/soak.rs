//! The full counts, for `cargo xtask soak evidence`: every case often enough to say how often it holds.

use std::time::Duration;

use crate::seed::{Case, Seed};
use crate::{alarms, faults, good, killed, weights};

/// How long a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// With the other tests, on a machine that does other things beside.
    Short,
    /// In the soak.
    Long,
}

impl Length {
    /// How many times; the soak's are bounded by `LB_EVIDENCE_RUNS`.
    pub fn runs(self, short: usize, long: usize) -> usize {
        let most = std::env::var("LB_EVIDENCE_RUNS").ok();
        let most = most.and_then(|most| most.parse().ok());
        match self {
            Self::Short => short,
            Self::Long => long.min(most.unwrap_or(long)),
        }
    }

    /// A bound on time: beside other tests, twice as long.
    pub fn patience(self, bound: Duration) -> Duration {
        match self {
            Self::Short => 2 * bound,
            Self::Long => bound,
        }
    }
}

fn long(case: &Case, runs: usize) {
    case.replay(Length::Long.runs(runs, runs), Length::Long);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_a_black_hole() {
    long(&Case::of("(a) black hole", Seed::BlackHole), 100);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_b_refuses() {
    long(&Case::of("(b) refuses", Seed::Refuses), 100);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_c_answers() {
    long(&Case::of("(c) answers wrongly", Seed::Answers), 100);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_a_v6() {
    long(&Case::of("(a) IPv6", Seed::BlackHole).v6(), 20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_b_v6() {
    long(&Case::of("(b) IPv6", Seed::Refuses).v6(), 20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_c_v6() {
    long(&Case::of("(c) IPv6", Seed::Answers).v6(), 20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_a_busy() {
    long(&Case::of("(a) at 1,000/s", Seed::BlackHole).busy(), 100);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_b_busy() {
    long(&Case::of("(b) at 1,000/s", Seed::Refuses).busy(), 100);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_c_busy() {
    long(&Case::of("(c) at 1,000/s", Seed::Answers).busy(), 100);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_a_quiet() {
    long(&Case::of("(a) at 10/s", Seed::BlackHole).quiet(), 20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_b_quiet() {
    long(&Case::of("(b) at 10/s", Seed::Refuses).quiet(), 20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_c_quiet() {
    long(&Case::of("(c) at 10/s", Seed::Answers).quiet(), 20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_killed() {
    killed::replay(Length::Long);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_faults() {
    faults::replay(Length::Long.runs(1, 5), Length::Long);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_weights() {
    weights::replay(Length::Long.runs(1, 5), Length::Long);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_good_changes() {
    good::good_changes(Length::Long);
}

#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_harmless_changes() {
    alarms::harmless_changes(Length::Long);
}
