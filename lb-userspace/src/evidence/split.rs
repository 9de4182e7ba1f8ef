//! S15: do labels come with the share that was set? The premise of every other test.
//!
//! Two sets of labels are looked at: all new flows, and those that were followed. A mismatch says
//! that the counters or the drawing of arms are broken; nothing follows about the change.

use super::counts::{CONTROL, NEW, VipCounts};
use super::eprocess::Bet;
use super::number::ratio;

/// A split that is not the one that was set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    /// Whether it is about followed flows rather than all new ones.
    pub followed: bool,
    /// New-arm flows.
    pub new: u64,
    /// Control flows.
    pub control: u64,
    /// Their share of the new arm.
    pub share: f64,
    /// ln E against the share that was set.
    pub ln_e: f64,
}

/// Looks at a VIP's labels; `ln_needed` as everywhere the ln E that counts as proof.
pub fn mismatch(bet: &Bet, arms: &[VipCounts; 2], ln_needed: f64) -> Option<Mismatch> {
    let (control, new) = (arms.get(CONTROL)?, arms.get(NEW)?);
    let sets = [
        (false, new.flows, control.flows),
        (true, new.started, control.started),
    ];
    sets.into_iter()
        .map(|(followed, new, control)| Mismatch {
            followed,
            new,
            control,
            share: ratio(new, new.saturating_add(control)),
            ln_e: bet.ln_e([(new, control)]),
        })
        .find(|found| found.ln_e >= ln_needed)
}
