//! Flows of a backend that has died are forgotten, also those that are silent: when it is back, they are
//! chosen for anew as those that spoke meanwhile were.
//!
//! What goes is the guard's word (`Op::Sweep`: the backend is down, its pool does not keep flows of such). The
//! kernel's timer sweeps the whole table about once a minute; this has it done at once, a part each round.

use std::collections::BTreeSet;

use serde_json::json;

use super::engine::Engine;
use crate::change::actor::Actor;
use crate::change::journal::Kind;
use crate::config::{OnDead, Pool};
use crate::kernel::KernelError;
use crate::kernel::stage::sweep_part;

/// Parts of the flow table in one round: a few per cent of one CPU.
const PARTS: usize = 16;

/// A purge that is under way.
#[derive(Debug)]
pub(super) struct Purge {
    /// `POOL/BACKEND` of the dead.
    backends: BTreeSet<String>,
    /// Sweeps that are complete when it is done.
    until: u32,
    /// Flows that had been purged before.
    before: u64,
}

impl Engine {
    /// A backend has died: its flows are to go, if its pool lets them.
    pub(super) fn begin_purge(&mut self, pool: &str, backend: &str) {
        let keeps = |pool: &Pool| pool.on_dead == OnDead::Keep;
        if self
            .committed()
            .and_then(|config| config.pool(pool))
            .is_some_and(keeps)
        {
            return;
        }
        if let Err(error) = self.note_purge(format!("{pool}/{backend}")) {
            tracing::warn!(%error, "the timer's sweep takes the flows of {pool}/{backend} out");
        }
    }

    fn note_purge(&mut self, backend: String) -> Result<(), KernelError> {
        let maps = &self.kernel.maps;
        // One sweep is under way, and has gone past some lines.
        let until = maps.control()?.sweeps.wrapping_add(2);
        let mut purge = match self.purge.take() {
            Some(purge) => purge,
            None => Purge {
                backends: BTreeSet::new(),
                until,
                before: maps.flow_room()?.purged,
            },
        };
        purge.until = until;
        purge.backends.insert(backend);
        self.purge = Some(purge);
        Ok(())
    }

    /// The next parts of the table.
    pub(super) fn purge_some(&mut self) {
        let Some(purge) = &self.purge else {
            return;
        };
        for _ in 0..PARTS {
            match sweep_part(&self.kernel) {
                Ok(done) if is_before(done, purge.until) => {}
                Ok(_) => return self.purge_done(),
                Err(error) => {
                    tracing::warn!(%error, "a sweep of the flow table; the timer's goes on");
                    self.purge = None;
                    return;
                }
            }
        }
    }

    fn purge_done(&mut self) {
        let Some(purge) = self.purge.take() else {
            return;
        };
        let now = self.kernel.maps.flow_room().map(|room| room.purged);
        let flows = now.map_or(0, |now| now.wrapping_sub(purge.before));
        tracing::info!(flows, backends = ?purge.backends, "flows of dead backends forgotten");
        if flows > 0 {
            let body = json!({"backends": purge.backends, "flows": flows});
            self.write_down(Kind::Purged, Actor::me(), body);
        }
    }
}

/// Counts of sweeps come round after 2^32.
const fn is_before(done: u32, until: u32) -> bool {
    until.wrapping_sub(done).wrapping_sub(1) < u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::is_before;

    #[test]
    fn a_purge_ends_with_its_sweep_also_where_counts_come_round() {
        for until in [2, 7, 0, 1, u32::MAX] {
            assert!(is_before(until.wrapping_sub(2), until));
            assert!(is_before(until.wrapping_sub(1), until));
            assert!(!is_before(until, until));
            assert!(
                !is_before(until.wrapping_add(5), until),
                "the timer sweeps, too"
            );
        }
    }
}
