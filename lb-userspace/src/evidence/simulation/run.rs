//! One trial step through the shipped code: tracker, judge, the breaker's step.

use lb_common::breaker::{Breaker, Sums, Tally};

use super::traffic::{Model, SLICE_NS, Traffic, VIP};
use crate::evidence::counts::{CONTROL, Counts, NEW};
use crate::evidence::judge::Judge;
use crate::evidence::plan::{Family, Plan, Touched};
use crate::evidence::report::Judgement;
use crate::evidence::shares::{MemberShare, PoolShares};
use crate::evidence::signals::Transport;
use crate::evidence::tracker::{Timing, Tracker};
use crate::evidence::weights::breaker;

/// What came of a run; times in slices since the step, or its fault, began.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// When it failed, by which signal, and how many flows the new arm had got.
    pub(super) failed: Option<(u64, String, u64)>,
    /// When the breaker tripped.
    pub(super) tripped: Option<u64>,
    /// When it passed first.
    pub(super) passed: Option<u64>,
    /// Last reason to be inconclusive.
    pub(super) inconclusive: Option<String>,
}

/// How long to go on.
#[derive(Clone, Copy)]
pub(super) struct Until {
    pub(super) slices: u64,
    /// Stop at the first failure or pass.
    pub(super) decided: bool,
    /// Steps that share alpha.
    pub(super) steps: u32,
}

fn plan(model: &Model, steps: u32) -> Plan {
    let vip = Touched {
        vip: VIP,
        name: "shop-v4".to_owned(),
        pool: "shop-web".to_owned(),
        family: Family::Ipv4,
        transport: Transport::Tcp,
        in_control: true,
    };
    let members = (1..=model.members).map(|member| MemberShare {
        member,
        name: format!("web-{member}"),
        share: 1.0 / f64::from(model.members),
        in_control: true,
    });
    let pool = PoolShares {
        pool: "shop-web".to_owned(),
        members: members.collect(),
    };
    Plan {
        steps,
        ..Plan::new(vec![vip], vec![pool])
    }
}

/// The kernel's breaker, over the same mature bins.
struct Kernel {
    breaker: Breaker,
    sums: Sums,
    seen: [(u64, u64); 2],
}

impl Kernel {
    fn tick(&mut self, counts: &Counts) -> bool {
        let Some(arms) = counts.vips.get(&VIP) else {
            return false;
        };
        let now = [CONTROL, NEW].map(|arm| (arms[arm].started, arms[arm].completed));
        let more = |arm: usize| {
            let less = |now: u64, then: u64| u32::try_from(now - then).unwrap();
            (
                less(now[arm].0, self.seen[arm].0),
                less(now[arm].1, self.seen[arm].1),
            )
        };
        let tally = Tally::of(more(NEW), more(CONTROL));
        self.seen = now;
        self.breaker.step(&mut self.sums, &tally)
    }
}

pub(super) fn run(model: Model, seed: u64, until: Until) -> Outcome {
    let mut traffic = Traffic::new(model, seed);
    let mut tracker = Tracker::new(Timing::default());
    let mut judge = Judge::new(plan(&model, until.steps));
    let mut kernel = Kernel {
        breaker: breaker(model.share_ppm, 1, 6_000).unwrap(),
        sums: Sums::default(),
        seen: [(0, 0); 2],
    };
    tracker.begin_stage(traffic.raw(), traffic.now_ns());
    judge.begin_stage(model.share_ppm, traffic.now_ns());
    let mut outcome = Outcome::default();
    for age in 0..until.slices {
        traffic.slice(age);
        let counts = tracker.round(traffic.raw(), traffic.now_ns());
        let since = (age + 1).saturating_sub(model.fault_at);
        if outcome.tripped.is_none() && kernel.tick(counts) {
            outcome.tripped = Some(since);
        }
        match judge.decide(counts, traffic.now_ns()) {
            Judgement::Fail(finding) if outcome.failed.is_none() => {
                let what = finding.signal.clone();
                outcome.failed = Some((since, what, finding.flows_exposed));
            }
            Judgement::Fail(_) | Judgement::Hold(_) => {}
            Judgement::Pass { .. } => {
                outcome.passed.get_or_insert(age + 1);
            }
            Judgement::Inconclusive(why) => outcome.inconclusive = Some(why),
        }
        let decided = outcome.failed.is_some() && outcome.tripped.is_some();
        if until.decided && (decided || outcome.passed.is_some()) {
            break;
        }
    }
    outcome
}

/// Seconds of slices.
pub(super) fn seconds(slices: u64) -> f64 {
    slices as f64 * SLICE_NS as f64 / 1e9
}
