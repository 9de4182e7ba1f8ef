//! Beginning a change: what is asked, held against what forwards, becomes a change or a refusal.

use std::time::Duration;

use tokio::sync::mpsc;

use super::engine::{Engine, Running};
use super::wire::{Apply, ApplyEvent};
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::machine::{Change, Spec};
use crate::change::reason::reason;
use crate::check::{check_against, check_bytes, render_findings};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::kernel::pins::Pins;
use crate::plan::{Fate, Plan};

/// What to do when the guard's pin is not there.
fn unguarded(pins: &Pins) -> String {
    let gone = pins.program("guard").display().to_string();
    let attached = pins.linked();
    if attached.is_empty() {
        return format!(
            "{gone} is gone (`lbguard unload`?): nothing that this agent writes would forward; \
             restart it, and it loads what was committed"
        );
    }
    format!(
        "{gone} is gone: {} still forwards, by what was last in force, and nothing can be changed; \
         `lbguard unload`, then restart the agent: it loads what was committed",
        attached.join(", ")
    )
}

impl Engine {
    /// Begins a change, or says why not.
    pub(super) fn apply(
        &mut self,
        apply: &Apply,
        bytes: Vec<u8>,
        by: Actor,
        events: mpsc::UnboundedSender<ApplyEvent>,
    ) {
        let not_begun = |message: String, exit: ExitCode| {
            let _ = events.send(ApplyEvent::NotBegun {
                message,
                exit: exit.code(),
            });
        };
        if let Err(why) = reason(&apply.why) {
            return not_begun(format!("the reason: {why}"), ExitCode::Usage);
        }
        let pins = Pins::new(self.setup.paths.pin_dir());
        if !pins.exist() {
            return not_begun(unguarded(&pins), ExitCode::Refused);
        }
        if let Err(why) = self.ready_to_record(bytes.len()) {
            return not_begun(why, ExitCode::Refused);
        }
        if let Some(running) = &self.running {
            let spec = running.change.spec();
            return not_begun(
                format!(
                    "a change is in flight (generation {}, by {}: {}); `lbguard confirm` or `lbguard \
                     revert` it first",
                    spec.generation, spec.author.user, spec.why
                ),
                ExitCode::Refused,
            );
        }
        let report = check_bytes(&bytes, &apply.file, &self.setup.node);
        let mut findings = report.findings.clone();
        let Some(config) = report.config.clone() else {
            let text = render_findings(&findings, report.omitted);
            let data = serde_json::to_value(&findings).unwrap_or_default();
            let _ = events.send(ApplyEvent::Findings {
                text,
                findings: data,
            });
            return not_begun(
                format!(
                    "{}: refused, {} errors; nothing was changed",
                    apply.file, report.errors
                ),
                ExitCode::Refused,
            );
        };
        if let Some(committed) = self.committed() {
            findings.extend(check_against(committed, &config, &apply.file));
        }
        if let Some(why) = self.all_drained(&config) {
            return not_begun(format!("{}: {why}", apply.file), ExitCode::Refused);
        }
        let removes = match self.bound(apply.plan.as_deref(), &config) {
            Ok(removes) => removes,
            Err(message) => return not_begun(message, ExitCode::Refused),
        };
        let spec = match self.spec(apply, &config, by) {
            Ok(spec) => spec,
            Err(message) => return not_begun(message, ExitCode::Refused),
        };
        if !findings.is_empty() {
            let text = render_findings(&findings, report.omitted);
            let data = serde_json::to_value(&findings).unwrap_or_default();
            let _ = events.send(ApplyEvent::Findings {
                text,
                findings: data,
            });
        }
        let (change, effects) = Change::new(spec, Now::read());
        self.running = Some(Running {
            change,
            services: bytes,
            config: Some(config),
            findings,
            image: None,
            events: Some(events),
            last: None,
            cancelled: false,
            lease_renewed_ns: 0,
            evidence: None,
            removes,
        });
        self.perform(effects);
        self.observe();
    }

    /// Holds a change to the plan that was looked at. Whether that plan removes VIPs.
    fn bound(&self, plan: Option<&str>, config: &Config) -> Result<bool, String> {
        let Some(meant) = plan else {
            return Ok(false);
        };
        let empty = Config {
            vips: Vec::new(),
            pools: Vec::new(),
        };
        let committed = self.committed().unwrap_or(&empty);
        let (seed, policy) = (self.seed(), &self.setup.policy);
        let plan = Plan::of(committed, config, self.active, seed, policy)
            .map_err(|error| format!("a lookup table cannot be filled: {error}"))?;
        let digest = plan.digest().to_string();
        if meant.len() >= 12 && digest.starts_with(meant) {
            return Ok(plan.count(Fate::Out) > 0);
        }
        Err(format!(
            "the plan is stale: from generation {}, which is active, this change would be plan {}; \
             run `lbguard plan` again and look at what differs",
            self.active, digest
        ))
    }

    fn spec(&self, apply: &Apply, config: &Config, by: Actor) -> Result<Spec, String> {
        let policy = &self.setup.policy;
        let longest = policy.confirm_within_max;
        let within = apply
            .confirm_within_ms
            .map_or(policy.confirm_within, Duration::from_millis);
        if within.is_zero() || within > longest {
            return Err(format!(
                "--confirm-within {} is not between 1ms and {}, the most that policy.toml allows",
                humantime::format_duration(within),
                humantime::format_duration(longest)
            ));
        }
        let record = self
            .kernel
            .maps
            .record()
            .ok()
            .flatten()
            .ok_or("the kernel's control record cannot be read")?;
        if apply.confirm_auto && !policy.evidence.enabled {
            return Err(
                "--confirm auto needs evidence, and policy.toml has it disabled ([evidence])"
                    .to_owned(),
            );
        }
        let (canary_ppm, share_ppm) = policy.evidence.shares(apply.share_ppm);
        let step_within = policy.evidence.step_within.min(longest);
        // The journal may have been lost with the kernel's state: what is stored is not written over.
        let stored = self.store.list().unwrap_or_default();
        let highest = record
            .highest_generation
            .max(record.shadow_generation)
            .max(stored.last().copied().unwrap_or(0));
        Ok(Spec {
            change: self.ledger.next_change(),
            generation: self.ledger.next_generation(highest),
            base: record.active_generation,
            digest: config.digest(),
            author: by,
            why: apply.why.clone(),
            forced: apply.force_unsafe,
            share_ppm,
            canary_ppm,
            evidence: policy.evidence.enabled,
            confirm_auto: apply.confirm_auto,
            confirm_within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            step_within_ms: u64::try_from(step_within.as_millis()).unwrap_or(u64::MAX),
            prepare_within_ms: Spec::TEN_MINUTES_MS,
        })
    }
}
