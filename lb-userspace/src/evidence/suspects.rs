//! Reasons not to believe the counters.

use super::counts::Counts;
use super::number::ratio;
use super::plan::Plan;

/// New flows of a VIP below which the share of unfollowed ones says nothing.
const FEW: u64 = 20;

/// Counters that contradict themselves.
pub(super) fn broken(counts: &Counts) -> Option<String> {
    if let Some(why) = &counts.suspect {
        return Some(why.clone());
    }
    let impossible = |(vip, arms): (&u16, &[super::counts::VipCounts; 2])| {
        let arm = arms.iter().find(|arm| arm.completed > arm.started)?;
        Some(format!(
            "counters of VIP {vip} are broken: {} flows completed of {}",
            arm.completed, arm.started
        ))
    };
    counts.vips.iter().find_map(impossible)
}

/// VIPs without counters.
pub(super) fn missing(plan: &Plan, counts: &Counts) -> Option<String> {
    let gone = |vip: &&super::plan::Touched| !counts.vips.contains_key(&vip.vip);
    let vip = plan.vips.iter().find(gone)?;
    Some(format!("counters of {} are missing", vip.name))
}

/// VIPs too many of whose flows were not followed.
pub(super) fn untracked(plan: &Plan, counts: &Counts) -> Option<String> {
    plan.vips.iter().find_map(|vip| {
        let arms = counts.vips.get(&vip.vip)?;
        let sum = |of: fn(&super::counts::VipCounts) -> u64| {
            arms.iter().map(of).fold(0_u64, u64::saturating_add)
        };
        let (untracked, flows) = (sum(|arm| arm.untracked), sum(|arm| arm.flows));
        let many = flows >= FEW && ratio(untracked, flows) > plan.untracked;
        many.then(|| {
            format!(
                "{}: {untracked} of {flows} new flows could not be followed",
                vip.name
            )
        })
    })
}
