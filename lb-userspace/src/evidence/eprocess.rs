//! The test: are labels of arms independent of what became of the flows?
//!
//! If a change is harmless, the arm of each flow is Bernoulli(w), whatever its outcome and
//! whatever the traffic does. Per outcome, a bettor who starts from Beta(a w, a (1 - w)), a = 1, and learns
//! from each label multiplies his stake by (his probability of that label) / (its probability under
//! w). The stakes over all outcomes multiply to E, a non-negative martingale under "harmless":
//! the chance that it *ever* reaches 1/alpha is at most alpha (Ville 1939), so one may look at
//! every moment. See Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference",
//! Statistical Science 38 (2023), section 3; Lindon & Malek, "Anytime-valid inference for
//! multinomial count data", `NeurIPS` 2022.

use libm::lgamma;

use super::number::real;

/// A bet on labels whose share of the new arm is `w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bet {
    w: f64,
    ln_new: f64,
    ln_control: f64,
    ln_prior: f64,
}

/// Weight of the prior, in flows.
const PRIOR: f64 = 1.0;

impl Bet {
    /// `None` unless both arms get flows: `w` in (0, 1).
    pub fn new(w: f64) -> Option<Self> {
        (w > 0.0 && w < 1.0).then(|| Self {
            w,
            ln_new: w.ln(),
            ln_control: (-w).ln_1p(),
            ln_prior: ln_beta(PRIOR * w, PRIOR * (1.0 - w)),
        })
    }

    /// Share of the new arm.
    pub fn share(&self) -> f64 {
        self.w
    }

    /// What the flows of one outcome multiply E by, as a natural logarithm. `new` and `control` may
    /// be fractions of flows, for events that come several a flow.
    pub fn ln_factor(&self, new: f64, control: f64) -> f64 {
        if new <= 0.0 && control <= 0.0 {
            return 0.0;
        }
        self.ln_mixture(new, control) - new * self.ln_new - control * self.ln_control
    }

    /// ln E over outcomes, each with its flows in (new, control).
    pub fn ln_e(&self, outcomes: impl IntoIterator<Item = (u64, u64)>) -> f64 {
        outcomes
            .into_iter()
            .map(|(new, control)| self.ln_factor(real(new), real(control)))
            .sum()
    }

    /// ln E against "independent, whatever the share is": the share that fits the labels best
    /// takes the place of w. Smaller than the E of any fixed share, so just as valid; for when
    /// the split itself is in doubt.
    pub fn ln_e_any_share(&self, outcomes: impl IntoIterator<Item = (u64, u64)>) -> f64 {
        let (mut news, mut controls, mut mixture) = (0.0, 0.0, 0.0);
        for (new, control) in outcomes {
            let (new, control) = (real(new), real(control));
            news += new;
            controls += control;
            mixture += self.ln_mixture(new, control);
        }
        let all = news + controls;
        let likelihood = |count: f64| {
            if count > 0.0 {
                count * (count / all).ln()
            } else {
                0.0
            }
        };
        mixture - likelihood(news) - likelihood(controls)
    }

    /// A bound of [`Bet::ln_factor`] that costs no logarithm: no bettor beats the best fixed share in
    /// hindsight, by which it is at most n KL(share seen || w), and KL is at most chi-square.
    pub fn ceiling(&self, new: f64, control: f64) -> f64 {
        let flows = new + control;
        let off = new - flows * self.w;
        if flows > 0.0 {
            off * off / (flows * self.w * (1.0 - self.w))
        } else {
            0.0
        }
    }

    /// Log probability of the labels for the bettor.
    fn ln_mixture(&self, new: f64, control: f64) -> f64 {
        ln_beta(PRIOR * self.w + new, PRIOR * (1.0 - self.w) + control) - self.ln_prior
    }
}

/// ln of Euler's beta function, for positive arguments. For counts of 1e9 the terms are about 2e10,
/// so that the result is good to some 1e-5.
fn ln_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

/// ln E of "these counts have these shares", for any number of classes: the bettor starts from
/// Dirichlet with the shares as its mean and the number of classes as its weight. A class of
/// share 0 must have no flows. Shares sum to 1; pairs are (flows, share).
pub fn ln_e_shares(classes: &[(u64, f64)]) -> f64 {
    let weight = real(classes.iter().filter(|(_, share)| *share > 0.0).count() as u64);
    if classes
        .iter()
        .any(|(flows, share)| *share <= 0.0 && *flows > 0)
    {
        return f64::INFINITY;
    }
    let mut total = 0.0;
    let mut sum = 0.0;
    for (flows, share) in classes.iter().filter(|(_, share)| *share > 0.0) {
        let (flows, alpha) = (real(*flows), weight * share);
        sum += lgamma(alpha + flows) - lgamma(alpha) - flows * share.ln();
        total += flows;
    }
    sum - lgamma(weight + total) + lgamma(weight)
}
