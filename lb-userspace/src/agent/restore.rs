//! After a reboot nothing is pinned: the last committed generation is loaded, and no other, unless
//! it can't be trusted. Then the newest one that can, since forwarding nothing is the worst.

use std::time::Duration;

use anyhow::Context as _;
use lb_common::control::{ControlRecord, SHARE_ALL, control_flag};
use lb_common::guard::{Op, trial_flag};
use serde_json::json;

use super::engine::Engine;
use crate::change::actor::Actor;
use crate::change::journal::{Kind, Record};
use crate::change::ledger::Ledger;
use crate::config::Config;
use crate::kernel::stage::{stage, verify};

/// Deadline of the trial that restores the committed generation; it is confirmed at once.
const RESTORE_WITHIN: Duration = Duration::from_mins(1);
/// The warning that says that something else forwards than was committed.
pub(super) const WARNING: &str = "restored";

impl Engine {
    fn record(&self) -> anyhow::Result<ControlRecord> {
        let record = self.kernel.maps.record()?;
        record.context("the guard has not been started")
    }

    /// Freeze and latch hold over a reboot, from before the first flip on. Where something forwards,
    /// the kernel's word is written down instead.
    pub(super) fn reconcile_switches(&mut self) -> anyhow::Result<()> {
        let record = self.record()?;
        let frozen = record.flags & control_flag::FROZEN != 0;
        let latched = record.flags & control_flag::LATCHED != 0;
        let fresh = record.active_generation == 0;
        if fresh && self.ledger.frozen {
            self.kernel.guard.call(Op::Freeze, 0, &[1], &[])?;
        } else if frozen != self.ledger.frozen {
            let body = json!({"on": frozen, "found": "in the kernel"});
            self.write_down(Kind::Freeze, Actor::kernel(), body);
        }
        if fresh && self.ledger.latched {
            self.kernel.guard.call(Op::Ack, 0, &[1], &[])?;
        } else if self.ledger.latched && !latched {
            let body = json!({"found": "in the kernel"});
            self.write_down(Kind::Ack, Actor::kernel(), body);
        }
        Ok(())
    }

    /// Loads what forwarded before a reboot. `unverified` is what stands behind the first bad place
    /// of an altered journal.
    pub(super) fn restore(&mut self, unverified: &[Record]) -> anyhow::Result<()> {
        if self.record()?.active_generation != 0 {
            return Ok(());
        }
        let committed = self.ledger.committed;
        let chosen = committed.and_then(|committed| self.newest_trusted(committed));
        if let Some((generation, config)) = &chosen {
            self.load(*generation, config)?;
        }
        let forwards = chosen.map(|(generation, _)| generation);
        self.tell_claims(unverified, forwards);
        Ok(())
    }

    /// The committed generation, else the newest one before it whose content is the one that the
    /// journal names; if it is not the committed one, that is told.
    fn newest_trusted(&mut self, committed: u64) -> Option<(u64, Config)> {
        let why = match self.trusted(committed) {
            Ok(config) => return Some((committed, config)),
            Err(why) => why,
        };
        let older: Vec<u64> = self
            .ledger
            .changes
            .iter()
            .rev()
            .filter(|change| change.kind == Kind::Committed && !change.rolled_back)
            .map(|change| change.spec.generation)
            .filter(|generation| *generation != committed)
            .collect();
        let found = older
            .into_iter()
            .find_map(|generation| Some((generation, self.trusted(generation).ok()?)));
        let instead = match &found {
            Some((generation, _)) => {
                let body = json!({"from": committed, "found": why});
                self.write_generation(Kind::RolledBack, *generation, Actor::kernel(), body);
                format!("generation {generation} was restored instead")
            }
            None => "nothing is forwarded".to_owned(),
        };
        self.tell(&format!(
            "generation {committed} was committed, but cannot be restored ({why}): {instead}; \
             `lbguard apply` the right configuration"
        ));
        found
    }

    /// A generation's configuration, if what is stored is what the journal says.
    fn trusted(&self, generation: u64) -> Result<Config, String> {
        let stored = self.store.load(generation).map_err(|e| e.to_string())?;
        if let Some(change) = self.ledger.change_of(generation)
            && change.spec.digest != stored.meta.digest
        {
            return Err("its content is not the one that the journal names".to_owned());
        }
        Config::from_canonical_json(&stored.canonical).map_err(|error| error.to_string())
    }

    /// Stages it, flips to it. The guard lets this pass although it is frozen or latched.
    fn load(&mut self, generation: u64, config: &Config) -> anyhow::Result<()> {
        self.hops.resolve(&self.runtime, &self.kernel, config)?;
        let image = self.image(None, config, config.digest())?;
        let sealed = stage(&self.kernel, &image, generation, 0)?;
        verify(&self.kernel, &image, &sealed)?;
        let longest = self.setup.policy.confirm_within_max.min(RESTORE_WITHIN);
        let within = u64::try_from(longest.as_millis()).unwrap_or(1);
        let change = 1 | trial_flag::RESTORES;
        let args = [u64::from(SHARE_ALL), 0, within, within, change];
        self.kernel.guard.call(Op::Trial, 0, &args, &[])?;
        self.kernel.guard.call(Op::Confirm, 0, &[0, 1], &[])?;
        tracing::info!(generation, "restored the committed generation");
        let body = json!({"restored": true});
        self.write_generation(Kind::Restored, generation, Actor::me(), body);
        Ok(())
    }

    /// After an altered journal: what is proven, and what the rest names, which proves nothing.
    fn tell_claims(&mut self, unverified: &[Record], forwards: Option<u64>) {
        if !self.records.altered() {
            return;
        }
        let now = match forwards {
            Some(generation) => format!(
                "generation {generation} was restored: the last that the intact part of the journal \
                 proves"
            ),
            None => "nothing is forwarded: the intact part of the journal names no generation \
                     that could be restored"
                .to_owned(),
        };
        let claims = Ledger::of(unverified);
        let claimed = claims
            .committed
            .filter(|claimed| Some(*claimed) != forwards);
        let rest = claimed.map_or_else(String::new, |claimed| {
            format!(
                "; the altered part names generation {claimed} as committed: `lbguard show {claimed} \
                 --config` prints it, and once the journal is moved away `lbguard revert {claimed}` \
                 applies it"
            )
        });
        self.tell(&format!("{now}{rest}"));
    }

    fn tell(&mut self, text: &str) {
        tracing::warn!("{text}");
        let told = self.warnings.entry(WARNING).or_default();
        if !told.is_empty() {
            told.push_str(". ");
        }
        told.push_str(text);
    }
}
