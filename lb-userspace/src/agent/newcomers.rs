//! S14: a new backend is asked before it gets traffic, through the slot that is staged: at the VIP, by
//! the tunnel and next hop that its flows will take, with a full-size request where the pool's check
//! makes one, and for the identity that the pool names.

use std::time::Duration;

use lb_common::control::NO_SLOT;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::health::Wanted;
use crate::health::{Checks, Verdict};
use crate::kernel::readout;

/// Times that a newcomer is asked before it has failed: a neighbour may have to be found first.
const TRIES: u32 = 3;
/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Asks every backend that ACTIVE has not and whose pool has a check.
    ///
    /// # Errors
    /// What the first one that failed was asked and answered. Not to be able to ask is no pass.
    pub(super) fn probe_newcomers(&mut self) -> Result<(), String> {
        let newcomers = self.newcomers()?;
        if newcomers.is_empty() {
            return Ok(());
        }
        let count = newcomers.len();
        if let Err(why) = self.begin_checks() {
            return self.unless_forced(format!("{count} new backends cannot be probed: {why}"));
        }
        let verdicts = self.runtime.block_on(async {
            let mut asked = JoinSet::new();
            for own in newcomers {
                asked.spawn(async move { (own.member, own.pool.clone(), ask(&own).await) });
            }
            asked.join_all().await
        });
        let failed = verdicts
            .into_iter()
            .find_map(|(member, pool, verdict)| match verdict {
                Verdict::Well => None,
                Verdict::Ill(why) | Verdict::Unsent(why) => Some((member, pool, why)),
            });
        let Some((member, pool, why)) = failed else {
            tracing::info!(count, "new backends have answered their probes");
            return Ok(());
        };
        let name = self.kernel.maps.member_name(member).unwrap_or_default();
        self.unless_forced(format!(
            "new backend {name} of pool {pool}, asked as its clients will: {why}; mend that, leave it out, \
             or use --force-unsafe"
        ))
    }

    /// Checks of the members that only SHADOW has.
    fn newcomers(&self) -> Result<Vec<Checks>, String> {
        let text = |error: crate::kernel::KernelError| error.to_string();
        let record = self.kernel.maps.record().map_err(text)?;
        let config = self.running.as_ref().and_then(|r| r.config.as_ref());
        let (Some(record), Some(config)) = (record, config) else {
            return Ok(Vec::new());
        };
        if record.shadow == NO_SLOT || config.pools.iter().all(|pool| pool.health.is_none()) {
            return Ok(Vec::new());
        }
        let layout = readout::read_slot(&self.kernel.maps, record.shadow).map_err(text)?;
        let mut wanted = Wanted::default();
        wanted.add(&self.kernel, config, &layout, 0).map_err(text)?;
        let bit = 1u8.checked_shl(u32::from(record.active)).unwrap_or(0);
        let is_new = |own: &Checks| {
            let member = self.kernel.maps.member(own.member);
            member.is_some_and(|member| member.slots & bit == 0)
        };
        Ok(wanted.checks.into_values().filter(is_new).collect())
    }

    /// A change that was forced goes on.
    fn unless_forced(&self, why: String) -> Result<(), String> {
        let forced = self
            .running
            .as_ref()
            .is_some_and(|r| r.change.spec().forced);
        if forced {
            tracing::warn!(why, "forced");
            return Ok(());
        }
        Err(why)
    }
}

async fn ask(own: &Checks) -> Verdict {
    let mut verdict = own.probe.ask().await;
    for _ in 1..TRIES {
        if verdict == Verdict::Well {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        verdict = own.probe.ask().await;
    }
    verdict
}
