//! Passing: per pool and family, over the VIPs that the change touches there.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::judge::{Judge, arms};
use super::noninferiority::{Arm, Standing};
use super::plan::Family;
use super::report::{Judgement, StratumReport};
use super::signals::Transport;

/// What is summed over the VIPs of a pool and family.
#[derive(Clone, Copy, Debug, Default)]
struct Stratum {
    new: Arm,
    control: Arm,
    /// New-arm TCP flows, and those of them of which everything is known.
    tcp: u64,
    ended: u64,
}

fn strata<'a>(judge: &'a Judge, counts: &Counts) -> BTreeMap<(&'a str, Family), Stratum> {
    let mut strata = BTreeMap::new();
    for vip in judge.plan.vips.iter().filter(|vip| vip.provable()) {
        let stratum: &mut Stratum = strata.entry((vip.pool.as_str(), vip.family)).or_default();
        if let Some((new, control)) = arms(&counts.vips, vip.vip) {
            add(&mut stratum.new, new.started, new.completed);
            add(&mut stratum.control, control.started, control.completed);
            if vip.transport == Transport::Tcp {
                let ended = new.end.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
                stratum.tcp = stratum.tcp.saturating_add(new.completed);
                stratum.ended = stratum.ended.saturating_add(ended);
            }
        }
    }
    strata
}

fn add(arm: &mut Arm, started: u64, completed: u64) {
    arm.flows = arm.flows.saturating_add(started);
    arm.failed = arm.failed.saturating_add(started.saturating_sub(completed));
}

fn assess(judge: &Judge, key: (&str, Family), stratum: &Stratum) -> (StratumReport, Standing) {
    let standing = judge.plan.margin().standing(stratum.new, stratum.control);
    let report = StratumReport {
        pool: key.0.to_owned(),
        family: key.1,
        flows: standing.flows,
        needed: standing.needed,
        proven: standing.proven,
    };
    (report, standing)
}

/// How far each is.
pub(super) fn reports(judge: &Judge, counts: &Counts) -> Vec<StratumReport> {
    strata(judge, counts)
        .iter()
        .map(|(key, stratum)| assess(judge, *key, stratum).0)
        .collect()
}

/// Pass if all are proven, and everything is known of half as many flows as that takes; else why not. What
/// traffic can't prove has to last for a while: what is never right ends it meanwhile.
pub(super) fn verdict(judge: &Judge, counts: &Counts, now_ns: u64) -> Judgement {
    for (key, stratum) in strata(judge, counts) {
        let (report, standing) = assess(judge, key, &stratum);
        if !standing.proven {
            return Judgement::Hold(report.why(&standing));
        }
        let half = standing.needed.unwrap_or(u64::MAX) / 2;
        let known = half.min(stratum.tcp);
        if stratum.ended < known {
            return Judgement::Hold(format!(
                "{} {}: the ends of {} of {known} flows",
                key.0,
                key.1.name(),
                stratum.ended
            ));
        }
    }
    let by_probes = || judge.plan.vips.iter().filter(|vip| !vip.provable());
    if let Some(vip) = by_probes().find(|vip| judge.dwells(vip, now_ns)) {
        return Judgement::Hold(format!(
            "{} cannot be proven by traffic: this step lasts {} s at least",
            vip.name,
            judge.plan.dwell_ns.div_ceil(1_000_000_000)
        ));
    }
    Judgement::Pass {
        probe_verified: by_probes().map(|vip| vip.name.clone()).collect(),
    }
}
