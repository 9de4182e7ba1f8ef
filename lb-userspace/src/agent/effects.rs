//! What the change's machine wants done, done: each effect against kernel, journal or store.

use std::time::Duration;

use lb_common::control::{Cause as KernelCause, SHARE_ALL, control_flag};
use lb_common::flow::MAX_CHANGE;
use lb_common::guard::{Op, trial_flag};

use super::engine::Engine;
use super::evidence::payload;
use super::hops::target;
use super::wire::ApplyEvent;
use crate::change::Now;
use crate::change::cause::CauseKind;
use crate::change::golden;
use crate::change::journal::Entry;
use crate::change::machine::{Effect, Event, Progress, Spec};
use crate::change::store::{Generation, Meta, StoreError};
use crate::config::{Config, Digest};
use crate::kernel::KernelError;
use crate::kernel::image::Image;
use crate::kernel::kept::Known;
use crate::kernel::numbers::Numbers;
use crate::kernel::stage::{recycle, stage, sweep, verify};

/// Generations kept on disk.
const KEPT: usize = 100;

impl Engine {
    /// Does one effect; the event that it results in, if the machine waits for one.
    pub(super) fn execute(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Journal(entry) => self.journal_entry(entry),
            Effect::Check => Some(self.judge_findings()),
            Effect::Stage => Some(self.store_and_stage()),
            Effect::RunGolden => Some(match self.run_golden() {
                Ok(()) => match self.probe_newcomers() {
                    Ok(()) => Event::GoldenPassed,
                    Err(why) => Event::ProbeFailed(why),
                },
                Err(why) => Event::GoldenFailed(why),
            }),
            Effect::ArmTrial { share_ppm, within } => Some(self.arm(share_ppm, within)),
            Effect::RenewLease => {
                self.renew_lease();
                None
            }
            Effect::Confirm { uid } => Some(self.ask_confirm(uid)),
            Effect::Revert {
                generation,
                cause,
                trial_only,
            } => Some(self.go_back(generation, cause.kind, trial_only)),
            Effect::ReleaseSlot => {
                // A slot that is not given back is taken by the next change all the same.
                let _ = self.kernel.guard.call(Op::Abandon, 0, &[], &[]);
                None
            }
            Effect::Emit(progress) => {
                self.emit(progress);
                None
            }
        }
    }

    fn journal_entry(&mut self, entry: Entry) -> Option<Event> {
        let end = entry
            .kind
            .is_final()
            .then(|| (entry.generation, entry.kind.clone()));
        match self.append(entry) {
            Ok(()) => {
                if let Some((Some(generation), kind)) = end {
                    self.note_outcome(generation, kind.as_str());
                }
                None
            }
            Err(why) => Some(Event::JournalFailed(why)),
        }
    }

    fn note_outcome(&mut self, generation: u64, outcome: &str) {
        // The journal is the truth; this only makes `show` quicker to read. A change that was
        // refused before it was stored has no directory.
        let _ = self.store.set_outcome(generation, outcome);
        let hold: Vec<u64> = [self.active, generation]
            .into_iter()
            .chain(self.ledger.committed)
            .chain(
                self.kernel
                    .maps
                    .record()
                    .ok()
                    .flatten()
                    .map(|r| r.lkg_generation),
            )
            .collect();
        let _ = self.store.prune(KEPT, &hold);
    }

    /// The checks ran when the change was asked for; here they are held against it.
    fn judge_findings(&self) -> Event {
        let Some(running) = &self.running else {
            return Event::CheckFailed("no change".to_owned());
        };
        let forced = running.change.spec().forced;
        let standing: Vec<_> = running
            .findings
            .iter()
            .filter(|finding| finding.is_error() && !(forced && finding.rule.forceable))
            .collect();
        match standing.first() {
            None => Event::CheckPassed,
            Some(first) => {
                let more = match standing.len() {
                    1 => String::new(),
                    count => format!(" (and {} more)", count.saturating_sub(1)),
                };
                let rule = first.rule.id;
                Event::CheckFailed(format!(
                    "{}: {rule}: {}{more}",
                    first.place(),
                    first.message
                ))
            }
        }
    }

    fn store_and_stage(&mut self) -> Event {
        let Some(running) = &self.running else {
            return Event::StageFailed("there is no change".to_owned());
        };
        let Some(config) = running.config.clone() else {
            return Event::StageFailed("there is no configuration".to_owned());
        };
        let spec = running.change.spec().clone();
        if let Err(error) = self.keep(&spec, &config) {
            return Event::StoreFailed(error.to_string());
        }
        match self.stage(&spec, &config) {
            Ok(digest) => Event::StageDone { digest },
            Err(KernelError::Refused(refused)) => Event::StageRefused(self.named(&refused)),
            Err(KernelError::Capacity(why)) => Event::StageUnfit(why),
            Err(error) => Event::StageFailed(error.to_string()),
        }
    }

    /// Stores a generation.
    fn keep(&self, spec: &Spec, config: &Config) -> Result<(), StoreError> {
        let running = self.running.as_ref();
        let services = running.map_or(&[][..], |running| &running.services);
        let services = String::from_utf8_lossy(services).into_owned();
        let generation = Generation {
            meta: Meta {
                generation: spec.generation,
                digest: spec.digest,
                base: spec.base,
                author: spec.author.clone(),
                why: spec.why.clone(),
                time: Now::read().wall,
                outcome: None,
            },
            services,
            canonical: config.canonical_json(),
        };
        self.store.put(&generation)
    }

    fn stage(&mut self, spec: &Spec, config: &Config) -> Result<Digest, KernelError> {
        self.settle_flows(spec.change)?;
        let unresolved = self.hops.resolve(&self.runtime, &self.kernel, config)?;
        if !spec.forced {
            Self::refuse_unresolved(config, self.committed(), &unresolved)?;
        }
        let mut image = self.image(self.committed.as_ref(), config, spec.digest)?;
        let sealed = match stage(&self.kernel, &image, spec.generation, spec.base) {
            // What the guard does not take over as it is, it says more about when it is put in full.
            Err(KernelError::Refused(refused)) if refused.op == Op::KeepPool => {
                tracing::info!(%refused, "every pool is put anew");
                image = self.image(None, config, spec.digest)?;
                stage(&self.kernel, &image, spec.generation, spec.base)?
            }
            outcome => outcome?,
        };
        verify(&self.kernel, &image, &sealed)?;
        let digest = self.kernel.maps.header(sealed.slot)?.digest;
        if let Some(running) = &mut self.running {
            running.tell(ApplyEvent::Sealed(sealed));
            running.image = Some(image);
        }
        Ok(Digest(digest))
    }

    /// Short ids of changes come round: no flow may bear one that is given away again. A change may end
    /// before it gets here, so what counts is which was the last that swept.
    fn settle_flows(&mut self, change: u64) -> Result<(), KernelError> {
        let lap = Some(change / u64::from(MAX_CHANGE));
        if self.swept != lap {
            sweep(&self.kernel)?;
            self.swept = lap;
        }
        Ok(())
    }

    /// The image; backend numbers of removed backends are recycled if there are none left.
    pub(super) fn image(
        &self,
        known: Option<&Known>,
        config: &Config,
        digest: Digest,
    ) -> Result<Image, KernelError> {
        let build = || {
            Image::after(
                known,
                config,
                digest,
                self.seed(),
                &self.kernel.maps,
                &|pool, backend| self.hops.number(target(pool, backend)),
            )
        };
        let mut image = match build() {
            Err(KernelError::Capacity(why)) => {
                let idle = Numbers::read(&self.kernel.maps)?.idle_members();
                if recycle(&self.kernel, &idle)? == 0 {
                    return Err(KernelError::Capacity(why));
                }
                build()
            }
            other => other,
        }?;
        self.hold_drained(&mut image);
        Ok(image)
    }

    fn run_golden(&self) -> Result<(), String> {
        let image = self
            .running
            .as_ref()
            .and_then(|running| running.image.as_ref())
            .ok_or("there is no image to test against")?;
        let record = self.kernel.maps.record().map_err(|e| e.to_string())?;
        let slot = record.ok_or("the guard has not been started")?.shadow;
        let report = golden::run(&self.kernel, image, slot).map_err(|e| e.to_string())?;
        tracing::info!(
            run = report.run,
            unserved = report.unserved,
            "golden packets"
        );
        match report.failed.first() {
            None if report.passed() => Ok(()),
            None => Err("there was no VIP to test".to_owned()),
            Some(first) => Err(format!(
                "{} of {} golden packets: {first}",
                report.failures, report.run
            )),
        }
    }

    fn arm(&mut self, share_ppm: u32, within: Duration) -> Event {
        match self.try_arm(share_ppm, within) {
            Err(KernelError::Refused(refused)) => Event::ArmRefused(refused.reason()),
            Err(error) => Event::ArmFailed(error.to_string()),
            Ok(deadline_ns) => {
                self.begin_step(share_ppm);
                Event::Armed { deadline_ns }
            }
        }
    }

    /// Arms the trial, or moves it to its next step; the kernel's deadline, boot-clock ns.
    fn try_arm(&mut self, share_ppm: u32, within: Duration) -> Result<u64, KernelError> {
        let on_trial = self.kernel.maps.record()?.is_some_and(|record| {
            let mine = self.running.as_ref().map(|r| r.change.spec().generation);
            record.flags & control_flag::TRIAL != 0 && Some(record.shadow_generation) == mine
        });
        if !on_trial {
            self.prepare_evidence()?;
        }
        let Some(running) = &self.running else {
            return Err(KernelError::Capacity("there is no change".to_owned()));
        };
        let spec = running.change.spec();
        let share = (u64::from(share_ppm) * u64::from(SHARE_ALL) / 1_000_000).max(1);
        let salt = crate::sys::random_u64().map_err(|e| KernelError::io("draw a salt", e))?;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let put = self.judged_by_kernel(share_ppm);
        let guard = &self.kernel.guard;
        if on_trial {
            let args = [share, salt, millis(within)];
            guard.call(Op::Step, spec.base, &args, payload(put.as_ref()))?;
        } else {
            let lease = millis(self.setup.policy.lease);
            let removes = if running.removes {
                trial_flag::REMOVES
            } else {
                0
            };
            let change = Self::short_id(spec.change) | removes;
            let args = [share, salt, lease, millis(within), change];
            guard.call(Op::Trial, spec.base, &args, payload(put.as_ref()))?;
        }
        let record = self.kernel.maps.record()?;
        record
            .map(|record| record.deadline_ns)
            .ok_or_else(|| KernelError::NoAnswer("the control record is gone".to_owned()))
    }

    /// Once a third of the lease is used up: each renewal publishes a record.
    fn renew_lease(&mut self) {
        let lease = u64::try_from(self.setup.policy.lease.as_millis()).unwrap_or(u64::MAX);
        let now = Now::read().boot_ns;
        let Some(running) = &mut self.running else {
            return;
        };
        let age_ms = now.saturating_sub(running.lease_renewed_ns) / 1_000_000;
        if age_ms < lease / 3 {
            return;
        }
        match self.kernel.guard.call_once(Op::Lease, 0, &[lease], &[]) {
            Ok(_) => running.lease_renewed_ns = now,
            Err(error) => tracing::warn!(%error, "the lease was not renewed"),
        }
    }

    fn ask_confirm(&self, uid: u32) -> Event {
        let Some(running) = &self.running else {
            return Event::ConfirmRefused("no change".to_owned());
        };
        let base = running.change.spec().base;
        match self
            .kernel
            .guard
            .call(Op::Confirm, base, &[u64::from(uid)], &[])
        {
            Ok(_) => Event::ConfirmTaken,
            Err(error) => Event::ConfirmRefused(error.to_string()),
        }
    }

    fn go_back(&self, generation: u64, cause: CauseKind, trial_only: bool) -> Event {
        let code = match cause {
            CauseKind::Operator => KernelCause::Revert,
            _ => KernelCause::Agent,
        };
        let uid = u64::from(nix::unistd::Uid::effective().as_raw());
        let args = [uid, code as u64, u64::from(trial_only), generation];
        match self.kernel.guard.call(Op::Revert, 0, &args, &[]) {
            Ok(_) => Event::RevertDone,
            Err(error) => Event::RevertFailed(error.to_string()),
        }
    }

    fn emit(&mut self, progress: Progress) {
        let same = |last: &Progress| last.text == progress.text;
        let running = self.running.as_ref();
        if running.is_some_and(|running| running.last.as_ref().is_some_and(same)) {
            // A record that can't be written is tried again ten times a second.
            return;
        }
        tracing::info!(
            generation = progress.generation,
            state = progress.state,
            "{}",
            progress.text
        );
        if let Some(running) = &mut self.running {
            running.tell(ApplyEvent::Progress(progress.clone()));
            running.last = Some(progress);
        }
    }

    /// A refusal with the pool's and backend's names instead of their numbers.
    fn named(&self, refused: &crate::kernel::refusal::Refused) -> String {
        let text = refused.reason();
        let Some((pool, backend)) = refused.pool_and_backend() else {
            return text;
        };
        let pool_name = self.kernel.maps.pool_name(pool).unwrap_or_default();
        if pool_name.is_empty() {
            return text;
        }
        let text = text.replace(&format!("pool #{pool}"), &format!("pool {pool_name}"));
        let Some(number) = backend else { return text };
        let Ok(name) = self.backend_name(pool, number) else {
            return text;
        };
        if name.is_empty() {
            return text;
        }
        text.replace(&format!("backend {number}"), &format!("backend {name}"))
    }

    fn backend_name(&self, pool: u16, number: u32) -> Result<String, KernelError> {
        let record = self.kernel.maps.record()?;
        let slot = record.map_or(0, |record| record.shadow.min(2));
        let entry = self.kernel.maps.pool(&self.kernel.node, slot, pool)?;
        self.kernel
            .maps
            .member_name(entry.member_base.saturating_add(number))
    }
}
