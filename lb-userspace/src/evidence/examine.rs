//! Every signal of every VIP, over the step and the running blocks.

use super::counts::{CONTROL, Counts, NEW, VipCounts, Vips};
use super::eprocess::Bet;
use super::finding::{Finding, Numbers, What};
use super::judge::{Judge, arms};
use super::number::{ppm, real};
use super::plan::{Plan, Touched};
use super::report::VipReport;
use super::signals::{Compare, OUTCOMES, Outcomes, Signal};

/// One signal of one VIP in one window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) signal: Signal,
    new: Outcomes,
    control: Outcomes,
    pub(super) effect: f64,
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
    fn since(self, base: &Vips, vip: u16) -> Self {
        let Some((new, control)) = arms(base, vip) else {
            return self;
        };
        let new = minus(&self.new, &self.signal.look(new));
        let control = minus(&self.control, &self.signal.look(control));
        Self {
            effect: self.signal.effect(&new, &control),
            new,
            control,
            ..self
        }
    }

    /// Whether it is bad enough to be acted on.
    pub(super) fn matters(&self, plan: &Plan) -> bool {
        self.effect
            > match self.signal.compare() {
                Compare::Rate => plan.floor,
                Compare::Shape | Compare::Later => plan.shape_floor,
            }
    }

    /// ln E; `doubted` if the split itself is.
    pub(super) fn ln_e(&self, bet: &Bet, doubted: bool) -> f64 {
        let pairs = self.new.flows.iter().zip(&self.control.flows);
        let pairs = pairs.map(|(new, control)| (*new, *control));
        match self.signal.per_flow() {
            1 if doubted => bet.ln_e_any_share(pairs),
            1 => bet.ln_e(pairs),
            // One outcome alone says nothing about independence.
            _ if doubted => f64::NEG_INFINITY,
            many => pairs
                .map(|(new, control)| {
                    bet.ln_factor(real(new) / real(many), real(control) / real(many))
                })
                .sum(),
        }
    }
}

fn minus(now: &Outcomes, then: &Outcomes) -> Outcomes {
    let mut flows = [0; OUTCOMES];
    for (flows, (now, then)) in flows.iter_mut().zip(now.flows.iter().zip(&then.flows)) {
        *flows = now.saturating_sub(*then);
    }
    Outcomes {
        flows,
        of: now.of.saturating_sub(then.of),
    }
}

/// The signal that proves most that the new arm of some VIP is worse. The effect is looked at
/// first: it is cheap, and small in nearly every harmless round.
pub(super) fn worst(judge: &Judge, bet: &Bet, counts: &Counts, doubted: bool) -> Option<Finding> {
    let mut worst: Option<(f64, Finding)> = None;
    for vip in judge.comparable() {
        let Some((new, control)) = arms(&counts.vips, vip.vip) else {
            continue;
        };
        for signal in Signal::of(vip.transport) {
            let step = Look::at(*signal, new, control);
            let blocks = judge.blocks.bases().map(|base| step.since(base, vip.vip));
            let looks = std::iter::once((step, judge.needed.step, false))
                .chain(blocks.map(|look| (look, judge.needed.block, true)));
            for (look, needed, block) in looks {
                if !look.matters(&judge.plan) {
                    continue;
                }
                let ln_e = look.ln_e(bet, doubted);
                let beyond = ln_e - needed;
                if beyond >= 0.0 && worst.as_ref().is_none_or(|(most, _)| beyond > *most) {
                    let finding = found(judge, vip, &look, ln_e, needed, block);
                    worst = Some((beyond, finding));
                }
            }
        }
    }
    worst.map(|(_, finding)| finding)
}

fn found(
    judge: &Judge,
    vip: &Touched,
    look: &Look,
    ln_e: f64,
    needed: f64,
    block: bool,
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
        ln_needed: needed,
        effect_ppm: ppm(look.effect),
        share_ppm: judge.share_ppm,
        block,
        flows_exposed: 0,
        exposed_ms: 0,
    }
}

/// The signal of a VIP over the step that is nearest to a proof: only what matters, if anything does.
pub(super) fn nearest(
    judge: &Judge,
    bet: &Bet,
    counts: &Counts,
    vip: &Touched,
) -> Option<(Look, f64)> {
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
                ln_needed: judge.needed.step,
                probe_verified: !vip.provable(),
                ..VipReport::default()
            };
            if let Some(arms) = counts.vips.get(&vip.vip) {
                report.flows = [CONTROL, NEW].map(|arm| arms.get(arm).map_or(0, |a| a.started));
                report.completed =
                    [CONTROL, NEW].map(|arm| arms.get(arm).map_or(0, |a| a.completed));
            }
            if let Some(bet) = judge.bet.filter(|_| vip.in_control)
                && let Some((look, ln_e)) = nearest(judge, &bet, counts, vip)
            {
                report.nearest = Some(look.signal.id(vip.transport));
                report.ln_e = ln_e;
                report.effect_ppm = ppm(look.effect);
            }
            report
        })
        .collect()
}
