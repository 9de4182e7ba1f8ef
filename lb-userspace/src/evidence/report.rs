//! What a round of judgement says.

use serde::Serialize;

use super::finding::Finding;
use super::noninferiority::Standing;
use super::plan::Family;

/// What follows from the counts so far. Only [`Judgement::Pass`] is a pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// Nothing yet: why.
    Hold(String),
    /// Proven good enough for the next step; the names of VIPs that traffic can't prove and for which
    /// probes alone speak.
    Pass {
        /// "probe-verified".
        probe_verified: Vec<String>,
    },
    /// Proven worse.
    Fail(Box<Finding>),
    /// The evidence can't be judged: why.
    Inconclusive(String),
}

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Round {
    /// What follows.
    pub verdict: Judgement,
    /// Per VIP that the change touches.
    pub vips: Vec<VipReport>,
    /// Per pool and family that traffic has to prove good.
    pub strata: Vec<StratumReport>,
}

/// A VIP's arms side by side, since the step began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VipReport {
    /// VIP id.
    pub vip: u16,
    /// Its name.
    pub name: String,
    /// Mature flows: control, new.
    pub flows: [u64; 2],
    /// Completed ones: control, new.
    pub completed: [u64; 2],
    /// New flows that are followed, mature or not: control, new.
    pub begun: [u64; 2],
    /// New flows that are not: control, new.
    pub passed_over: [u64; 2],
    /// The signal that is nearest to a proof: "S1".
    pub nearest: Option<&'static str>,
    /// Its ln E.
    pub ln_e: f64,
    /// ln E from which it is proof.
    pub ln_needed: f64,
    /// Its effect, ppm of flows; only above the floor it counts.
    pub effect_ppm: i64,
    /// Judged by probes only.
    pub probe_verified: bool,
}

/// How far a pool's proof is in one family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StratumReport {
    /// Pool.
    pub pool: String,
    /// Family.
    pub family: Family,
    /// New-arm flows seen.
    pub flows: u64,
    /// New-arm flows that it takes as things stand; none: never at these shares.
    pub needed: Option<u64>,
    /// Whether it is proven.
    pub proven: bool,
}

impl StratumReport {
    /// Why it is not proven: "n of m flows".
    pub(super) fn why(&self, standing: &Standing) -> String {
        let name = format!("{} {}", self.pool, self.family.name());
        match standing.needed {
            _ if standing.flows == 0 => format!("{name}: no new flow yet"),
            None => format!("{name}: new flows do not complete as control's do"),
            Some(needed) if standing.flows < needed => {
                format!("{name}: {} of {needed} flows", standing.flows)
            }
            Some(_) => format!(
                "{name}: {} of {} control flows",
                standing.control, standing.control_needed
            ),
        }
    }
}
