//! What goes over the agent's socket: JSON, one object a line where it is a stream.

use serde::{Deserialize, Serialize};

use crate::change::machine::Progress;
use crate::evidence::finding::Finding;
use crate::evidence::proof::ProofLine;
use crate::evidence::report::{Judgement, Round, StratumReport, VipReport};

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
    /// Commit when the evidence passes, without a person.
    #[serde(default)]
    pub confirm_auto: bool,
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
    /// How long the proof will take, once: for each VIP that the change touches.
    Forecast {
        /// By VIP.
        vips: Vec<ProofLine>,
    },
    /// A step.
    Progress(Progress),
    /// A round of judgement.
    Evidence(Box<EvidenceLine>),
    /// The change was not begun.
    NotBegun {
        /// Why not, and the way out.
        message: String,
        /// Exit code of `apply`.
        exit: u8,
    },
}

/// What the evidence says in one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceLine {
    /// The generation on trial.
    pub generation: u64,
    /// `hold`, `pass`, `fail` or `inconclusive`; only `pass` is a pass.
    pub verdict: String,
    /// Why, in a sentence.
    pub why: String,
    /// What was proven bad, with all numbers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finding: Option<Finding>,
    /// Time left of this step, ms.
    pub left_ms: u64,
    /// Step of the trial, from 1 on; the last one waits for the confirmation.
    pub step: usize,
    /// Steps that there are.
    pub steps: usize,
    /// Share of new flows that the new arm has, ppm.
    pub share_ppm: u32,
    /// Of so many new flows one is followed, since the step began; missing if all are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub one_followed_in: Option<u64>,
    /// What made the kernel's breaker trip, if it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub breaker: Option<String>,
    /// VIPs that the change moves, the most telling first; no more than 16.
    pub vips: Vec<VipLine>,
    /// VIPs that are not named in [`Self::vips`].
    pub more_vips: usize,
    /// How far the proof is, per pool and family.
    pub pools: Vec<PoolLine>,
}

/// One VIP's arms side by side, since the step began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VipLine {
    /// Its name.
    pub name: String,
    /// Flows of the new arm whose outcome is known.
    pub new_flows: u64,
    /// Those of them whose handshake was complete in time.
    pub new_completed: u64,
    /// The same of the control arm.
    pub control_flows: u64,
    /// The same of the control arm.
    pub control_completed: u64,
    /// New flows of the new arm that are not followed: there are more than the trial follows, or the change
    /// does not move them.
    #[serde(default)]
    pub new_passed_over: u64,
    /// The same of the control arm.
    #[serde(default)]
    pub control_passed_over: u64,
    /// The signal that is nearest to a proof against it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<String>,
    /// Its ln E.
    pub ln_e: f64,
    /// ln E from which it is proof.
    pub ln_needed: f64,
    /// Its effect, ppm of flows.
    pub effect_ppm: i64,
    /// Judged by probes only: traffic cannot prove it.
    pub probe_verified: bool,
}

/// How far the proof that a pool is good enough is, in one family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolLine {
    /// Its name.
    pub name: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Flows of the new arm seen.
    pub flows: u64,
    /// Flows that it takes as things stand; none: never so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub needed: Option<u64>,
    /// Whether it is proven.
    pub proven: bool,
}

impl EvidenceLine {
    /// From a round of the judge, with at most `most` VIPs.
    pub fn of(round: &Round, most: usize) -> Self {
        let (verdict, why, finding) = match &round.verdict {
            Judgement::Hold(why) => ("hold", why.clone(), None),
            Judgement::Inconclusive(why) => ("inconclusive", why.clone(), None),
            Judgement::Fail(finding) => ("fail", finding.to_string(), Some(*finding.clone())),
            Judgement::Pass { probe_verified } if probe_verified.is_empty() => {
                ("pass", "not worse, by its traffic".to_owned(), None)
            }
            Judgement::Pass { probe_verified } => {
                let names = probe_verified.join(", ");
                ("pass", format!("traffic says nothing of {names}"), None)
            }
        };
        let mut vips: Vec<_> = round.vips.iter().collect();
        vips.sort_by(|a, b| (b.ln_e - b.ln_needed).total_cmp(&(a.ln_e - a.ln_needed)));
        Self {
            verdict: verdict.to_owned(),
            why,
            finding,
            vips: vips.iter().take(most).map(|vip| VipLine::of(vip)).collect(),
            more_vips: vips.len().saturating_sub(most),
            one_followed_in: one_followed_in(&round.vips),
            pools: round.strata.iter().map(PoolLine::of).collect(),
            ..Self::default()
        }
    }
}

/// Of how many new flows one is followed, if not all are.
fn one_followed_in(vips: &[VipReport]) -> Option<u64> {
    let sum = |of: fn(&VipReport) -> [u64; 2]| {
        let arms = vips.iter().flat_map(of);
        arms.fold(0, u64::saturating_add)
    };
    let followed = sum(|vip| vip.begun);
    let all = followed.saturating_add(sum(|vip| vip.passed_over));
    all.checked_div(followed).filter(|flows| *flows >= 2)
}

impl VipLine {
    fn of(report: &VipReport) -> Self {
        let [control_flows, new_flows] = report.flows;
        let [control_completed, new_completed] = report.completed;
        let [control_passed_over, new_passed_over] = report.passed_over;
        Self {
            name: report.name.clone(),
            new_flows,
            new_completed,
            control_flows,
            control_completed,
            new_passed_over,
            control_passed_over,
            signal: report.nearest.map(str::to_owned),
            ln_e: report.ln_e,
            ln_needed: report.ln_needed,
            effect_ppm: report.effect_ppm,
            probe_verified: report.probe_verified,
        }
    }
}

impl PoolLine {
    fn of(report: &StratumReport) -> Self {
        Self {
            name: report.pool.clone(),
            family: report.family.name().to_ascii_lowercase(),
            flows: report.flows,
            needed: report.needed,
            proven: report.proven,
        }
    }
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

/// A backend is to be drained, or taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// Its name.
    pub backend: String,
    /// Its pool; needed if several have a backend of that name.
    pub pool: Option<String>,
    /// Drain it, or take it back.
    pub on: bool,
    /// Why, one line.
    pub why: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// Whether it was done.
    #[serde(flatten)]
    pub answer: Answer,
    /// The pool that was meant.
    pub pool: String,
    /// Member ids of the backend, in every slot that has it.
    pub members: Vec<u32>,
    /// Time without a packet after which a flow counts as gone, ms.
    pub idle_ms: u64,
}

/// A backend that is drained by command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainLine {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Who drained it.
    pub by: String,
    /// Why.
    pub why: Option<String>,
    /// Since when.
    pub since: jiff::Timestamp,
    /// Flows that still go to it; none if no slot has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flows: Option<usize>,
}

/// A backend that is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthLine {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// `up`, `down`, or `unknown`: it counts as up, and no check has ended yet.
    pub state: String,
    /// Whether the kernel holds it back; not so for one that is down when too many are.
    pub held: bool,
    /// Share of its new flows that it gets, percent: less than 100 while it is slow to start.
    pub admitted: u8,
    /// For how long it is in this state.
    pub seconds: u64,
    /// Results in a row that speak against the state.
    pub against: u32,
    /// Checks in a row that could not be sent from this host.
    pub unsent: u32,
    /// What was wrong with the last check, if anything.
    pub trouble: Option<String>,
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

/// Something odd about the traffic that people should know of; nothing is done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// `backend`, `handshakes` or `volume`.
    pub alert: String,
    /// What it is about: `VIP` or `POOL/BACKEND`.
    pub about: String,
    /// In a sentence, with numbers.
    pub text: String,
    /// Since when.
    pub since: jiff::Timestamp,
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
    /// The last round of judgement of the change in flight.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evidence: Option<Box<EvidenceLine>>,
    /// Warnings that hold now.
    pub warnings: Vec<String>,
    /// What is odd about the traffic between changes, and about backends.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// Backends that are drained by command.
    #[serde(default)]
    pub drains: Vec<DrainLine>,
    /// Backends that are checked.
    #[serde(default)]
    pub health: Vec<HealthLine>,
}
