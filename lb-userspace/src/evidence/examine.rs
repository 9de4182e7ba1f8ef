//! Every signal of every VIP, over the step and the running blocks.

use super::counts::{CONTROL, Counts, NEW, VipCounts, Vips};
use super::eprocess::Bet;
use super::finding::{Finding, Numbers, What};
use super::judge::{Judge, arms};
use super::number::{ppm, real};
use super::plan::{Plan, Touched};
use super::report::VipReport;
use super::signals::{Compare, Outcomes, Rate, Signal};

/// One signal of one VIP in one window.
#[derive(Clone, Copy, Debug)]
struct Look {
    signal: Signal,
    new: Outcomes,
    control: Outcomes,
    effect: f64,
}

impl Look {
    fn at(signal: Signal, new: &VipCounts, control: &VipCounts) -> Self {
        let (new, control) = (signal.look(new), signal.look(control));
        Self {
            effect: signal.effect(&new, &control),
            signal,
            new,
            control,
        }
    }

    /// The same without what was there before.
    fn since(&self, base: &Vips, vip: u16) -> Option<Self> {
        let (new, control) = arms(base, vip)?;
        let new = self.new.minus(&self.signal.look(new));
        let control = self.control.minus(&self.signal.look(control));
        Some(Self {
            effect: self.signal.effect(&new, &control),
            signal: self.signal,
            new,
            control,
        })
    }

    /// Whether it is bad enough to be acted on.
    fn matters(&self, plan: &Plan) -> bool {
        self.effect
            > match self.signal.compare() {
                Compare::Rate => plan.floor,
                Compare::Shape | Compare::Later => plan.shape_floor,
            }
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        let (new, control) = (self.new.flows(), self.control.flows());
        new.iter().zip(control).map(|(n, c)| (*n, *c))
    }

    /// ln E; `doubted` if the split itself is.
    fn ln_e(&self, bet: &Bet, doubted: bool) -> f64 {
        match self.signal.per_flow() {
            1 if doubted || self.signal.after_handshake() => bet.ln_e_any_share(self.pairs()),
            1 => bet.ln_e(self.pairs()),
            // One outcome alone says nothing about independence.
            _ if doubted => f64::NEG_INFINITY,
            many => {
                let flows = |events: u64| real(events) / real(many);
                let factor = |(n, c)| bet.ln_factor(flows(n), flows(c));
                self.pairs().map(factor).sum()
            }
        }
    }

    /// ln E if it is bad enough to be acted on and can reach `least`; cheap where it is not.
    fn proof(&self, judge: &Judge, bet: &Bet, doubted: bool, least: f64) -> Option<f64> {
        let ceiling = |(n, c)| bet.ceiling(real(n), real(c));
        let reaches = |look: &Self| look.pairs().map(ceiling).sum::<f64>() >= least;
        let ln_e = (self.matters(&judge.plan) && reaches(self)).then(|| self.ln_e(bet, doubted))?;
        (ln_e >= least).then_some(ln_e)
    }
}

/// What a round's look at everything gives.
#[derive(Default)]
pub(super) struct Survey {
    /// The signal that proves most that the new arm of some VIP is worse, and by how much more than
    /// is needed.
    pub(super) worst: Option<(f64, Finding)>,
    /// A signal that is half-way to a proof over the step.
    pub(super) leaning: Option<String>,
}

/// Looks at everything; `doubted` if the split is.
pub(super) fn survey(judge: &Judge, bet: &Bet, counts: &Counts, doubted: bool) -> Survey {
    let mut survey = Survey::default();
    for vip in judge.comparable() {
        let Some((new, control)) = arms(&counts.vips, vip.vip) else {
            continue;
        };
        for signal in Signal::of(vip.transport) {
            if unremarkable(judge, vip, *signal, (new, control)) {
                continue;
            }
            let step = Look::at(*signal, new, control);
            let needed = judge.needed(vip, *signal);
            let proof = |look: &Look, least| look.proof(judge, bet, doubted, least);
            if let Some(ln_e) = proof(&step, needed.step / 2.0) {
                survey.leaning = Some(leaning(vip, *signal));
                survey.consider(judge, vip, &step, (ln_e, needed.step, false));
            }
            for base in judge.blocks.bases() {
                if let Some(look) = step.since(base, vip.vip)
                    && let Some(ln_e) = proof(&look, needed.block)
                {
                    survey.consider(judge, vip, &look, (ln_e, needed.block, true));
                }
            }
        }
    }
    survey
}

/// Whether a rate is as good as control's over the step and all blocks: nearly always, and cheap to
/// see.
fn unremarkable(
    judge: &Judge,
    vip: &Touched,
    signal: Signal,
    (new, control): (&VipCounts, &VipCounts),
) -> bool {
    let (Some(new), Some(control)) = (signal.rate(new), signal.rate(control)) else {
        return false;
    };
    let small =
        |new: Rate, control: Rate| new.surplus(control, signal.per_flow()) <= judge.plan.floor;
    let small_since = |base: &Vips| {
        let Some((then_new, then_control)) = arms(base, vip.vip) else {
            return true;
        };
        match (signal.rate(then_new), signal.rate(then_control)) {
            (Some(then_new), Some(then_control)) => {
                small(new.minus(then_new), control.minus(then_control))
            }
            _ => false,
        }
    };
    small(new, control) && judge.blocks.bases().all(small_since)
}

impl Survey {
    fn consider(&mut self, judge: &Judge, vip: &Touched, look: &Look, proof: (f64, f64, bool)) {
        let beyond = proof.0 - proof.1;
        if beyond >= 0.0 && self.worst.as_ref().is_none_or(|(most, _)| beyond > *most) {
            self.worst = Some((beyond, found(judge, vip, look, proof)));
        }
    }
}

fn leaning(vip: &Touched, signal: Signal) -> String {
    format!(
        "{} {} of {} look worse, not proven",
        signal.id(vip.transport),
        signal.name(),
        vip.name
    )
}

fn found(
    judge: &Judge,
    vip: &Touched,
    look: &Look,
    (ln_e, ln_needed, block): (f64, f64, bool),
) -> Finding {
    let what = What::Signal(look.signal);
    Finding {
        signal: what.id(vip.transport).to_owned(),
        what,
        subject: vip.name.clone(),
        vip: Some(vip.vip),
        new: Numbers::of(look.signal, &look.new),
        control: Numbers::of(look.signal, &look.control),
        ln_e,
        ln_needed,
        effect_ppm: ppm(look.effect),
        share_ppm: judge.share_ppm,
        block,
        flows_exposed: 0,
        exposed_ms: 0,
    }
}

/// The signal of a VIP over the step that is nearest to a proof: only what matters, if anything does.
fn nearest(judge: &Judge, bet: &Bet, counts: &Counts, vip: &Touched) -> Option<(Look, f64)> {
    let (new, control) = arms(&counts.vips, vip.vip)?;
    let looks = Signal::of(vip.transport)
        .iter()
        .map(|signal| Look::at(*signal, new, control))
        .map(|look| (look, look.ln_e(bet, false)));
    looks.max_by(|(a, ln_a), (b, ln_b)| {
        let matters = |look: &Look| look.matters(&judge.plan);
        matters(a).cmp(&matters(b)).then(ln_a.total_cmp(ln_b))
    })
}

/// Both arms of every VIP, for people.
pub(super) fn reports(judge: &Judge, counts: &Counts) -> Vec<VipReport> {
    judge
        .plan
        .vips
        .iter()
        .map(|vip| {
            let mut report = VipReport {
                vip: vip.vip,
                name: vip.name.clone(),
                probe_verified: !vip.provable(),
                ..VipReport::default()
            };
            if let Some(arms) = counts.vips.get(&vip.vip) {
                let both = |of: fn(&VipCounts) -> u64| {
                    [CONTROL, NEW].map(|arm| arms.get(arm).map_or(0, of))
                };
                report.flows = both(|arm| arm.started);
                report.completed = both(|arm| arm.completed);
                report.begun = both(|arm| arm.flows);
                report.passed_over = both(|arm| arm.passed_over);
            }
            if let Some(bet) = judge.bet.filter(|_| vip.in_control)
                && let Some((look, ln_e)) = nearest(judge, &bet, counts, vip)
            {
                report.nearest = Some(look.signal.id(vip.transport));
                report.ln_e = ln_e;
                report.ln_needed = judge.needed(vip, look.signal).step;
                report.effect_ppm = ppm(look.effect);
            }
            report
        })
        .collect()
}
