//! The judge: counts in, verdict out. No I/O, no clock.

use super::blocks::{Blocks, Needed};
use super::counts::{CONTROL, Counts, NEW};
use super::eprocess::Bet;
use super::finding::{Finding, Numbers, What};
use super::number::{ppm, ratio, real, share};
use super::plan::{Plan, Touched};
use super::report::{Judgement, Round};
use super::shares::{self, PoolShares};
use super::signals::Signal;
use super::strata;
use super::suspects;
use super::{examine, split};

/// Judges one trial, step by step.
///
/// A step passes by flow count, never by time: when in every pool and family that the change
/// touches enough new-arm flows were seen to rule out "worse by delta". It fails per VIP.
/// Neither is the rule, both while flows are few and when the evidence itself is in doubt.
#[derive(Clone, Debug)]
pub struct Judge {
    pub(super) plan: Plan,
    pub(super) bet: Option<Bet>,
    pub(super) share_ppm: u32,
    pub(super) blocks: Blocks,
    /// Backends whose table shares do not hold at the moment.
    pub(super) shares_hold: bool,
    trial_ns: Option<u64>,
    stage_ns: u64,
    /// New-arm flows of earlier steps, by VIP in the plan's order.
    earlier: Vec<u64>,
    /// The same of this step.
    exposed: Vec<u64>,
}

impl Judge {
    /// A judge of a trial that has not begun.
    pub fn new(plan: Plan) -> Self {
        let zeros = vec![0; plan.vips.len()];
        Self {
            plan,
            bet: None,
            share_ppm: 0,
            blocks: Blocks::default(),
            shares_hold: true,
            trial_ns: None,
            stage_ns: 0,
            earlier: zeros.clone(),
            exposed: zeros,
        }
    }

    /// What it was told.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A step with this share of new flows begins; counts are zero from here.
    pub fn begin_stage(&mut self, share_ppm: u32, now_ns: u64) {
        self.share_ppm = share_ppm;
        self.bet = Bet::new(share(share_ppm));
        self.blocks = Blocks::begin(now_ns);
        self.shares_hold = true;
        self.trial_ns.get_or_insert(now_ns);
        self.stage_ns = now_ns;
        for (earlier, exposed) in self.earlier.iter_mut().zip(&mut self.exposed) {
            *earlier = earlier.saturating_add(*exposed);
            *exposed = 0;
        }
    }

    /// Backends went up or down during this step: table shares (S11) predict nothing any more.
    pub fn backends_changed(&mut self) {
        self.shares_hold = false;
    }

    /// Verdict and figures.
    pub fn round(&mut self, counts: &Counts, now_ns: u64) -> Round {
        let vips = examine::reports(self, counts);
        let strata = strata::reports(self, counts);
        Round {
            verdict: self.decide(counts, now_ns),
            vips,
            strata,
        }
    }

    /// The verdict alone: cheaper than [`Judge::round`], and the same.
    pub fn decide(&mut self, counts: &Counts, now_ns: u64) -> Judgement {
        self.expose(counts);
        let verdict = self.verdict(counts, now_ns);
        self.blocks.round(counts, now_ns);
        verdict
    }

    fn expose(&mut self, counts: &Counts) {
        for (vip, exposed) in self.plan.vips.iter().zip(&mut self.exposed) {
            if let Some([_, new]) = counts.vips.get(&vip.vip) {
                *exposed = new.flows.saturating_add(new.passed_over);
            }
        }
    }

    /// Broken counters come first, since nothing can be read from them; then what is proven bad;
    /// then what keeps the rest from being proven.
    fn verdict(&self, counts: &Counts, now_ns: u64) -> Judgement {
        if let Some(why) = suspects::broken(counts) {
            return Judgement::Inconclusive(why);
        }
        let Some(bet) = self.bet else {
            return Judgement::Inconclusive("one arm gets no flows: nothing to compare".to_owned());
        };
        let split = self.split(&bet, counts);
        let survey = examine::survey(self, &bet, counts, split.is_some());
        if let Some(finding) = survey
            .worst
            .map(|(_, found)| found)
            .or_else(|| self.silent_backend(counts))
        {
            return Judgement::Fail(Box::new(self.exposure(finding, now_ns)));
        }
        let doubt = split
            .or_else(|| suspects::missing(&self.plan, counts))
            .or_else(|| suspects::untracked(&self.plan, counts))
            .or_else(|| self.unlike_table(counts));
        match (doubt, survey.leaning) {
            (Some(why), _) => Judgement::Inconclusive(why),
            (None, Some(why)) => Judgement::Hold(why),
            (None, None) => strata::verdict(self, counts, now_ns),
        }
    }

    /// S15 over all VIPs.
    fn split(&self, bet: &Bet, counts: &Counts) -> Option<String> {
        let tests = 2.0 * real(self.plan.vips.len() as u64);
        let needed = (tests / self.plan.step_alpha()).ln();
        let touched = self.plan.vips.iter().filter(|vip| vip.in_control);
        for vip in touched {
            let Some(arms) = counts.vips.get(&vip.vip) else {
                continue;
            };
            if let Some(found) = split::mismatch(bet, arms, needed) {
                return Some(format!(
                    "S15 split of {}: {} of {} {}flows in the new arm, {:.1} % instead of {:.1} %",
                    vip.name,
                    found.new,
                    found.new.saturating_add(found.control),
                    if found.followed { "followed " } else { "" },
                    found.share * 100.0,
                    bet.share() * 100.0
                ));
            }
        }
        None
    }

    /// S11 over all pools.
    fn unlike_table(&self, counts: &Counts) -> Option<String> {
        if !self.shares_hold {
            return None;
        }
        let needed = (real(self.plan.pools.len() as u64) / self.plan.step_alpha()).ln();
        let floor = self.plan.shape_floor;
        self.plan.pools.iter().find_map(|pool| {
            let found = shares::unlike(pool, &counts.members, needed, floor)?;
            Some(format!(
                "S11 backends of {}: {:.0} % of {} new flows do not follow the lookup table",
                pool.pool,
                found.distance * 100.0,
                found.flows
            ))
        })
    }

    /// S12 over all pools.
    fn silent_backend(&self, counts: &Counts) -> Option<Finding> {
        let needed = (real(self.plan.members()) / self.plan.step_alpha()).ln();
        let find = |pool: &PoolShares| {
            let found = shares::silent(pool, &counts.members, needed)?;
            Some(Finding {
                signal: "S12".to_owned(),
                what: What::SilentBackend,
                subject: format!("backend {} of {}", found.member.name, pool.pool),
                vip: None,
                new: Numbers {
                    flows: found.flows,
                    bad: found.flows,
                    buckets: Vec::new(),
                },
                control: Numbers {
                    flows: found.others,
                    bad: found.others.saturating_sub(found.completed),
                    buckets: Vec::new(),
                },
                ln_e: found.ln_e,
                ln_needed: needed,
                effect_ppm: ppm(ratio(found.completed, found.others)),
                share_ppm: self.share_ppm,
                block: false,
                flows_exposed: 0,
                exposed_ms: 0,
            })
        };
        self.plan.pools.iter().find_map(find)
    }

    /// What it has cost so far.
    fn exposure(&self, mut finding: Finding, now_ns: u64) -> Finding {
        let flows = self.earlier.iter().zip(&self.exposed);
        finding.flows_exposed = self
            .plan
            .vips
            .iter()
            .zip(flows)
            .filter(|(vip, _)| finding.vip.is_none_or(|id| id == vip.vip))
            .fold(0, |sum: u64, (_, (earlier, now))| {
                sum.saturating_add(*earlier).saturating_add(*now)
            });
        let began = self.trial_ns.unwrap_or(now_ns);
        finding.exposed_ms = now_ns.saturating_sub(began) / 1_000_000;
        finding
    }

    /// ln E that proves something against a signal of this VIP. Parts of alpha sum to alpha over the
    /// step: the chance that one of all tests is ever wrong is at most alpha.
    pub(super) fn needed(&self, vip: &Touched, signal: Signal) -> Needed {
        let part = signal.part_of_alpha(vip.transport) / real(self.plan.strata().max(1));
        Needed::new(self.plan.step_alpha() * part, self.plan.step_within_ns)
    }

    /// Whether a VIP that traffic can't prove has had its new flows for too short a time. All flows of a
    /// brand-new one have been in the new arm since the trial began.
    pub(super) fn dwells(&self, vip: &Touched, now_ns: u64) -> bool {
        let since = if vip.in_control {
            self.stage_ns
        } else {
            self.trial_ns.unwrap_or(now_ns)
        };
        now_ns.saturating_sub(since) < self.plan.dwell_ns
    }

    /// VIPs that can be compared.
    pub(super) fn comparable(&self) -> impl Iterator<Item = &Touched> {
        self.plan.vips.iter().filter(|vip| vip.in_control)
    }
}

/// Both arms of a VIP: (new, control).
pub(super) fn arms(
    vips: &super::counts::Vips,
    vip: u16,
) -> Option<(&super::counts::VipCounts, &super::counts::VipCounts)> {
    let arms = vips.get(&vip)?;
    Some((arms.get(NEW)?, arms.get(CONTROL)?))
}
