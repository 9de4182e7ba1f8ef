//! Judging a trial on its traffic: counters read each round, the verdict given to the change.

use std::borrow::Cow;
use std::time::Duration;

use lb_common::control::{Cause, ControlRecord};
use lb_common::guard::{Op, TrialPut};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

use super::engine::{Engine, Running};
use super::touched;
use super::wire::{ApplyEvent, EvidenceLine};
use crate::change::Now;
use crate::change::machine::{Event, Spec, Verdict};
use crate::config::Config;
use crate::evidence::counts::Raw;
use crate::evidence::judge::Judge;
use crate::evidence::pace;
use crate::evidence::plan::{Plan, Touched};
use crate::evidence::proof;
use crate::evidence::report::{Judgement, Round};
use crate::evidence::tracker::{Timing, Tracker};
use crate::evidence::weights;
use crate::kernel::KernelError;
use crate::kernel::image::{Image, PoolImage};
use crate::kernel::object::Kernel;

/// Time after which the arms are drawn by another salt: a monitor that always comes from the same
/// port would else be in one arm for the whole trial.
const SALTED_NS: u64 = 10_000_000_000;
/// VIPs that a line of progress and a journal record name.
const TOLD: usize = 16;

/// A trial's judge, and what it reads.
pub(super) struct Evidence {
    tracker: Tracker,
    judge: Judge,
    touched: Vec<Touched>,
    vips: Vec<u16>,
    members: Vec<u32>,
    salted_ns: u64,
    /// The last round, told and recorded.
    pub last: Option<EvidenceLine>,
}

impl Evidence {
    /// For a sealed slot: the VIPs that it moves, and their pools.
    fn new(
        kernel: &Kernel,
        image: &Image,
        slot: u8,
        old: Option<&Config>,
        timing: Timing,
    ) -> Result<Self, KernelError> {
        let moved = touched::vips(kernel, image, slot);
        let pools: Vec<Cow<'_, PoolImage>> = image
            .pools
            .iter()
            .filter(|pool| moved.iter().any(|vip| vip.entry.pool == pool.number))
            .map(|pool| pool.whole(&kernel.maps))
            .collect::<Result<_, KernelError>>()?;
        let touched: Vec<Touched> = moved
            .iter()
            .map(|vip| touched::touched(image, vip, old))
            .collect();
        let shares = pools
            .iter()
            .map(|pool| touched::shares(pool, old))
            .collect();
        Ok(Self {
            tracker: Tracker::new(timing),
            judge: Judge::new(Plan::new(touched.clone(), shares)),
            touched,
            vips: moved.iter().map(|vip| vip.entry.vip).collect(),
            members: pools
                .iter()
                .flat_map(|pool| pool.members.iter().map(|member| member.id))
                .collect(),
            salted_ns: 0,
            last: None,
        })
    }

    /// One chance in a thousand of a false alarm is for all steps together.
    fn share_alpha(&mut self, spec: &Spec, dwell: Duration) {
        let steps = spec.canary_ppm.len().saturating_add(1);
        let longest = spec.step_within_ms.max(spec.confirm_within_ms);
        let plan = Plan {
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
            step_within_ns: longest.saturating_mul(1_000_000),
            dwell_ns: u64::try_from(dwell.as_nanos()).unwrap_or(u64::MAX),
            ..self.judge.plan().clone()
        };
        self.judge = Judge::new(plan);
    }

    fn read(&self, kernel: &Kernel) -> Result<Raw, KernelError> {
        let mut raw = Raw::default();
        for vip in &self.vips {
            let arms = kernel.maps.evidence(&kernel.node, *vip)?;
            raw.vips.insert(*vip, arms);
        }
        for member in &self.members {
            let arms = kernel.maps.member_evidence(&kernel.node, *member)?;
            raw.members.insert(*member, arms);
        }
        Ok(raw)
    }

    /// Backends went up or down: table shares predict nothing any more.
    pub fn backends_changed(&mut self) {
        self.judge.backends_changed();
    }
}

impl Engine {
    /// Gets ready to judge the trial that is about to be armed: what the counters are before it.
    pub(super) fn prepare_evidence(&mut self) -> Result<(), KernelError> {
        let Some(evidence) = self.evidence_of_trial()? else {
            return Ok(());
        };
        let seen = self.watching.seen();
        if let Some(running) = &mut self.running {
            let spec = running.change.spec();
            let steps: Vec<_> = (0..=spec.canary_ppm.len())
                .map(|step| spec.step(step))
                .collect();
            let margin = Plan::new(Vec::new(), Vec::new()).margin();
            let most = self.setup.policy.evidence.follow;
            let vips = proof::expected(&evidence.touched, &seen, margin, &steps, most);
            running.tell(ApplyEvent::Forecast { vips });
            running.evidence = Some(evidence);
        }
        self.read_counters().map(drop)
    }

    fn evidence_of_trial(&self) -> Result<Option<Evidence>, KernelError> {
        let Some(running) = &self.running else {
            return Ok(None);
        };
        if !running.change.spec().evidence {
            return Ok(None);
        }
        let record = self.kernel.maps.record()?;
        let slot = record.map_or(0, |record| record.shadow.min(2));
        let rebuilt;
        let image = match (&running.image, &running.config) {
            (Some(image), _) => image,
            (None, Some(config)) => {
                let digest = running.change.spec().digest;
                rebuilt = self.image(self.committed.as_ref(), config, digest)?;
                &rebuilt
            }
            (None, None) => return Ok(None),
        };
        let policy = &self.setup.policy.evidence;
        let within = policy.handshake_within;
        let timing = Timing {
            within_ns: u64::try_from(within.as_nanos()).unwrap_or(u64::MAX),
            // The kernel tells the flows of earlier steps by themselves.
            settle_ns: 0,
        };
        let old = self.committed();
        let mut evidence = Evidence::new(&self.kernel, image, slot, old, timing)?;
        evidence.share_alpha(running.change.spec(), policy.dwell);
        Ok(Some(evidence))
    }

    /// How the kernel judges a step by itself; `None` without evidence.
    pub(super) fn judged_by_kernel(&self, share_ppm: u32) -> Option<TrialPut> {
        let running = self.running.as_ref()?;
        let evidence = running.evidence.as_ref()?;
        let within = self.setup.policy.evidence.handshake_within;
        // Bins of handshakes, each of which is one look at each VIP.
        let looks = running.change.spec().step_within_ms / 134;
        let most = self.setup.policy.evidence.follow;
        let followed = pace::of_vips(&evidence.touched, &self.watching.seen(), most);
        let followed = pace::in_step(followed, running.change.steps().0, share_ppm);
        let vips = u64::try_from(evidence.vips.len()).unwrap_or(u64::MAX);
        Some(TrialPut {
            breaker: weights::breaker(share_ppm, vips, looks).unwrap_or_default(),
            within_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
            pace: pace::of_kernel(followed).into(),
        })
    }

    /// A step with this share has been armed.
    pub(super) fn begin_step(&mut self, share_ppm: u32) {
        let now = Now::read().boot_ns;
        let Some(evidence) = self.running.as_mut().and_then(|r| r.evidence.as_mut()) else {
            return;
        };
        // Counters that can't be read now can't be read in the next round, which says so.
        if let Ok(raw) = evidence.read(&self.kernel) {
            evidence.tracker.begin_stage(&raw, now);
        }
        evidence.judge.begin_stage(share_ppm, now);
        evidence.salted_ns = now;
    }

    fn read_counters(&mut self) -> Result<Option<Round>, KernelError> {
        let now = Now::read().boot_ns;
        let Some(evidence) = self.running.as_mut().and_then(|r| r.evidence.as_mut()) else {
            return Ok(None);
        };
        let raw = evidence.read(&self.kernel)?;
        let counts = evidence.tracker.round(&raw, now);
        Ok(Some(evidence.judge.round(counts, now)))
    }

    /// One round of judgement, if a trial is on that is judged.
    pub(super) fn judge(&mut self) {
        let on_trial =
            |running: &Running| running.change.spec().evidence && running.change.state().on_trial();
        if !self.running.as_ref().is_some_and(on_trial) {
            return;
        }
        if let Err(error) = self.resume_evidence() {
            tracing::warn!(%error, "the trial cannot be judged");
        }
        self.draw_salt();
        let round = match self.read_counters() {
            Ok(Some(round)) => round,
            Ok(None) => return self.step(Event::Verdict(no_counters("nothing to judge by"))),
            Err(error) => {
                return self.step(Event::Verdict(no_counters(&error.to_string())));
            }
        };
        self.tell_round(&round);
        self.step(Event::Verdict(verdict(&round)));
    }

    /// A restarted agent judges the step that is on from here.
    fn resume_evidence(&mut self) -> Result<(), KernelError> {
        if self.running.as_ref().is_none_or(|r| r.evidence.is_some()) {
            return Ok(());
        }
        self.prepare_evidence()?;
        let share = self.kernel.maps.record()?.map_or(0, |record| record.share);
        self.begin_step(ppm(share));
        Ok(())
    }

    fn draw_salt(&mut self) {
        let now = Now::read().boot_ns;
        let Some(running) = &mut self.running else {
            return;
        };
        let base = running.change.spec().base;
        let Some(evidence) = &mut running.evidence else {
            return;
        };
        if now.saturating_sub(evidence.salted_ns) < SALTED_NS {
            return;
        }
        let share = self.kernel.maps.record().ok().flatten().map(|r| r.share);
        if let (Some(share), Ok(salt)) = (share, crate::sys::random_u64()) {
            let args = [u64::from(share), salt];
            // The next round tries again.
            if self.kernel.guard.call(Op::Step, base, &args, &[]).is_ok() {
                evidence.salted_ns = now;
            }
        }
    }

    fn tell_round(&mut self, round: &Round) {
        let now = Now::read().boot_ns;
        let Some(running) = &mut self.running else {
            return;
        };
        let mut line = EvidenceLine::of(round, TOLD);
        line.generation = running.change.spec().generation;
        let (step, steps) = running.change.steps();
        line.step = step.saturating_add(1);
        line.steps = steps;
        line.share_ppm = running.change.spec().step(step).0;
        line.left_ms = running.change.deadline_ns().saturating_sub(now) / 1_000_000;
        let numbers = json!(line);
        if let Some(evidence) = &mut running.evidence {
            evidence.last = Some(line.clone());
        }
        running.tell(ApplyEvent::Evidence(Box::new(line)));
        self.step(Event::Evidence(numbers));
    }
}

impl Engine {
    /// The kernel's breaker has ended the trial: what it saw, for the journal.
    pub(super) fn note_breaker(&mut self, record: &ControlRecord) {
        let mine = |running: &Running| {
            let state = running.change.state();
            !state.is_final() && running.change.spec().generation == record.ended_generation
        };
        let tripped = record.cause == Cause::Breaker as u32;
        if !tripped || !self.running.as_ref().is_some_and(mine) {
            return;
        }
        let evidence = self.running.as_ref().and_then(|r| r.evidence.as_ref());
        let mut line = evidence.and_then(|e| e.last.clone()).unwrap_or_default();
        line.breaker = Some(self.tripped_by(record));
        self.step(Event::Evidence(json!(line)));
    }

    /// The same when no agent was there to see anything else.
    pub(super) fn told_by_breaker(&self, record: &ControlRecord) -> Value {
        if record.cause == Cause::Breaker as u32 {
            json!(EvidenceLine {
                breaker: Some(self.tripped_by(record)),
                ..EvidenceLine::default()
            })
        } else {
            Value::Null
        }
    }

    fn tripped_by(&self, record: &ControlRecord) -> String {
        match record.tripped_vip.checked_sub(1) {
            None => "packets that are never right came from three sources and more".to_owned(),
            Some(vip) => {
                let vip = u16::try_from(vip).unwrap_or(u16::MAX);
                let name = self.kernel.maps.vip_name(vip).unwrap_or_default();
                format!("handshakes of {name} fail in the new arm alone")
            }
        }
    }
}

fn no_counters(why: &str) -> Verdict {
    Verdict::Inconclusive(format!("the counters cannot be read: {why}"))
}

fn verdict(round: &Round) -> Verdict {
    match &round.verdict {
        Judgement::Pass { .. } => Verdict::Pass,
        Judgement::Fail(finding) => Verdict::Fail(finding.to_string()),
        Judgement::Hold(why) | Judgement::Inconclusive(why) => Verdict::Inconclusive(why.clone()),
    }
}

/// The kernel's share in ppm.
fn ppm(share: u32) -> u32 {
    let all = u64::from(lb_common::control::SHARE_ALL);
    u32::try_from(u64::from(share).saturating_mul(1_000_000) / all).unwrap_or(1_000_000)
}

/// The payload of a step.
pub(super) fn payload(put: Option<&TrialPut>) -> &[u8] {
    put.map_or(&[], IntoBytes::as_bytes)
}
