//! When is it good? When "the new arm fails by delta more often than control" is rejected: Wald's
//! SPRT with p0 = control's failing share and p1 = p0 + delta.
//!
//! With f of n new flows failed, `f ln(p0 / p1) + (n - f) ln((1 - p0) / (1 - p1)) >= ln(1 / beta)`. If the new
//! arm fails as control does, that takes about `ln(1 / beta) / KL(p0 || p1)` flows.
//!
//! But p0 is only known from control's flows, and too high a p0 would pass too bad an arm. So delta
//! is measured from 1.5 standard errors below, and control must be known to delta / 4. How many bad
//! arms pass all the same is measured by `soak_evidence_false_passes`.

use super::number::{ratio, real, whole};

/// What "good enough" means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// Difference of failing shares that must be ruled out.
    pub delta: f64,
    /// Chance to pass an arm that is worse by delta.
    pub beta: f64,
}

/// How far a proof is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// "Worse by delta" is rejected, and control is known well enough.
    pub proven: bool,
    /// New-arm flows seen.
    pub flows: u64,
    /// New-arm flows that it takes as things stand; `None`: at these shares it never gets there.
    pub needed: Option<u64>,
    /// Control flows seen.
    pub control: u64,
    /// Control flows that it takes.
    pub control_needed: u64,
}

/// Flows and failed flows of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Flows.
    pub flows: u64,
    /// Failed ones.
    pub failed: u64,
}

/// Standard errors of p0 by which delta is made smaller.
const CAUTION: f64 = 1.5;

/// Log-likelihood ratio per failed and per good flow, for p0 against p0 + delta; `None` if p0 + delta is
/// not a share below 1: then nothing can be told apart.
fn gains(p0: f64, delta: f64) -> Option<(f64, f64)> {
    let p1 = p0 + delta;
    if !(p0 > 0.0 && delta > 0.0 && p1 < 1.0) {
        return None;
    }
    Some(((p0 / p1).ln(), (-p0).ln_1p() - (-p1).ln_1p()))
}

impl Margin {
    fn needed_ln(self) -> f64 {
        -self.beta.ln()
    }

    /// New-arm flows that a proof takes if both arms fail with share `p0`.
    pub fn flows_needed(self, p0: f64) -> Option<u64> {
        let (failed, good) = gains(p0, self.delta)?;
        self.at_gain(p0 * failed + (1.0 - p0) * good)
    }

    /// Control flows by which p0 is known well enough.
    pub fn control_needed(self, p0: f64) -> u64 {
        whole(16.0 * p0 * (1.0 - p0) / (self.delta * self.delta)).unwrap_or(u64::MAX)
    }

    fn at_gain(self, gain: f64) -> Option<u64> {
        if gain > 0.0 {
            whole(self.needed_ln() / gain)
        } else {
            None
        }
    }

    /// How far the proof is with these flows of one step.
    pub fn standing(self, new: Arm, control: Arm) -> Standing {
        // Half a failure among one flow more: a share of 0 would make the first failure infinite.
        let p0 = (real(control.failed) + 0.5) / (real(control.flows) + 1.0);
        let control_needed = self.control_needed(p0);
        let mut standing = Standing {
            proven: false,
            flows: new.flows,
            needed: None,
            control: control.flows,
            control_needed,
        };
        let error = (p0 * (1.0 - p0) / (real(control.flows) + 1.0)).sqrt();
        // Until control is known well enough: what it will be then.
        let error = error.min(self.delta / 4.0);
        if let Some((failed, good)) = gains(p0, self.delta - CAUTION * error) {
            let failures = new.failed.min(new.flows);
            let ln = real(failures) * failed + real(new.flows.saturating_sub(failures)) * good;
            standing.proven = ln >= self.needed_ln() && control.flows >= control_needed;
            let p = if new.flows == 0 {
                p0
            } else {
                ratio(failures, new.flows)
            };
            standing.needed = self.at_gain(p * failed + (1.0 - p) * good);
        }
        standing
    }
}
