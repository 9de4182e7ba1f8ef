//! Next hops of backends: resolved before a slot is staged, and kept fresh in the kernel's overlay.
//!
//! A next hop that stops answering keeps its last address: with nothing better, sending there is
//! right, and the packets that get no answer show in the counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::Duration;

use lb_common::guard::Op;
use lb_common::slot::{Member, forward_mode, hold, member_state};
use zerocopy::IntoBytes;

use super::engine::Engine;
use super::request::Request;
use crate::config::{Backend, BackendState, Config, Forward, NodeConfig, Pool};
use crate::kernel::KernelError;
use crate::kernel::object::Kernel;
pub use crate::net::Changed;
use crate::net::{NextHopTable, Record, Resolution, Settings, Target, Watcher};

/// How long a silent neighbour is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The watcher and the numbers it has led to.
pub struct Hops {
    watcher: Watcher,
    table: NextHopTable,
}

/// The target of a backend.
pub fn target(pool: &Pool, backend: &Backend) -> Target {
    Target {
        address: backend.address,
        direct: pool.forward == Forward::L2,
    }
}

fn target_of(member: &Member) -> Target {
    Target {
        address: member.address.into(),
        direct: member.forward == forward_mode::L2,
    }
}

impl Hops {
    /// Starts watching; news go to the engine. Numbers that the kernel's members have are kept.
    pub fn start(
        node: &NodeConfig,
        kernel: &Kernel,
        runtime: &tokio::runtime::Handle,
        requests: Sender<Request>,
    ) -> anyhow::Result<Self> {
        let settings = Settings {
            interfaces: node.interfaces.clone(),
            gateways: node.gateways.clone(),
        };
        let (watcher, mut changes) = runtime.block_on(Watcher::start(settings))?;
        runtime.spawn(async move {
            while let Some(changed) = changes.recv().await {
                if requests.send(Request::Hop(changed)).is_err() {
                    break;
                }
            }
        });
        let mut table = NextHopTable::new(kernel.node.next_hops);
        for (_, member) in members(kernel) {
            if member.next_hop != 0 {
                let hop = kernel.maps.next_hop(u32::from(member.next_hop))?;
                table.adopt(target_of(&member), member.next_hop, &hop);
            }
        }
        Ok(Self { watcher, table })
    }

    /// Number of a backend's next hop, if it has ever been resolved.
    pub fn number(&self, target: Target) -> Option<u16> {
        self.table.number(target)
    }

    /// Resolves every backend of a configuration; what could not be, with the reason.
    pub fn resolve(
        &mut self,
        runtime: &tokio::runtime::Handle,
        kernel: &Kernel,
        config: &Config,
    ) -> Result<BTreeMap<Target, String>, KernelError> {
        let targets: BTreeSet<Target> = config
            .pools
            .iter()
            .flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
            .filter(|(_, backend)| backend.state != BackendState::Disabled)
            .map(|(pool, backend)| target(pool, backend))
            .collect();
        let found = runtime
            .block_on(self.watcher.resolve(targets, PATIENCE))
            .map_err(|error| KernelError::Capacity(format!("resolve next hops: {error}")))?;
        let mut unresolved = BTreeMap::new();
        for (target, resolution) in found {
            if let Err(why) = self.note(kernel, target, &resolution)? {
                unresolved.insert(target, why);
            }
        }
        Ok(unresolved)
    }

    /// Takes note of one resolution and writes what follows from it.
    fn note(
        &mut self,
        kernel: &Kernel,
        target: Target,
        resolution: &Resolution,
    ) -> Result<Result<u16, String>, KernelError> {
        match resolution {
            Err(why) => Ok(Err(why.to_string())),
            Ok(resolved) => {
                let placed = self
                    .table
                    .set(target, resolved)
                    .map_err(|full| KernelError::Capacity(full.to_string()))?;
                write(kernel, &placed.writes)?;
                Ok(Ok(placed.number))
            }
        }
    }
}

fn write(kernel: &Kernel, writes: &[(u16, Record)]) -> Result<(), KernelError> {
    let now_s = u32::try_from(crate::sys::boot_ns() / 1_000_000_000).unwrap_or(u32::MAX);
    for (number, record) in writes {
        let hop = record.as_next_hop(now_s);
        kernel
            .guard
            .call(Op::PutNextHops, 0, &[u64::from(*number), 1], hop.as_bytes())?;
    }
    Ok(())
}

/// Members that some slot has.
pub(super) fn members(kernel: &Kernel) -> Vec<(u32, Member)> {
    (1..kernel.node.members)
        .filter_map(|id| Some((id, kernel.maps.member(id)?)))
        .filter(|(_, member)| member.slots != 0)
        .collect()
}

impl Engine {
    /// Refuses a backend that is new and cannot be reached: one that was there keeps its last
    /// address.
    pub(super) fn refuse_unresolved(
        config: &Config,
        committed: Option<&Config>,
        unresolved: &BTreeMap<Target, String>,
    ) -> Result<(), KernelError> {
        let known: BTreeSet<(&str, IpAddr)> = committed
            .iter()
            .flat_map(|config| &config.pools)
            .flat_map(|pool| pool.backends.iter().map(|b| (b.name.as_str(), b.address)))
            .collect();
        for pool in &config.pools {
            for backend in pool.in_table() {
                let Some(why) = unresolved.get(&target(pool, backend)) else {
                    continue;
                };
                if known.contains(&(backend.name.as_str(), backend.address)) {
                    continue;
                }
                return Err(KernelError::Capacity(format!(
                    "backend {} ({}) of pool {} cannot be reached: {why}; mend that, or leave the \
                     backend out, or stage it as down with --force-unsafe",
                    backend.name, backend.address, pool.name
                )));
            }
        }
        Ok(())
    }

    /// A next hop is another now: the overlay follows.
    pub(super) fn hop_changed(&mut self, changed: &Changed) {
        let target = changed.target;
        let number = match self.hops.note(&self.kernel, target, &changed.resolution) {
            Ok(Ok(number)) => number,
            Ok(Err(why)) => {
                tracing::warn!(backend = %target.address, %why, "next hop lost; its last address stays");
                return;
            }
            Err(error) => {
                tracing::warn!(backend = %target.address, %error, "next hop not written");
                return;
            }
        };
        self.health.look_anew();
        for (id, member) in members(&self.kernel) {
            let held = member.holds & hold::NEXT_HOP != 0;
            if target_of(&member) != target || !(held || member.next_hop != number) {
                continue;
            }
            let (up, cause) = (u64::from(member_state::UP), u64::from(hold::NEXT_HOP));
            let args = [u64::from(id), up, u64::from(number), cause];
            if let Err(error) = self.kernel.guard.call(Op::SetMember, 0, &args, &[]) {
                tracing::warn!(backend = %target.address, %error, "next hop not set");
            }
            if held && let Some(evidence) = self.running.as_mut().and_then(|r| r.evidence.as_mut())
            {
                evidence.backends_changed();
            }
        }
    }

    /// Watches the next hops of what forwards or is on trial, and of nothing else.
    pub(super) fn watch_hops(&mut self) {
        let targets: BTreeSet<Target> = members(&self.kernel)
            .iter()
            .map(|(_, member)| target_of(member))
            .collect();
        if let Err(error) = self.runtime.block_on(self.hops.watcher.track(targets)) {
            tracing::warn!(%error, "next hops are not watched");
            self.warnings
                .insert("hops", format!("next hops are not watched: {error}"));
        }
    }
}
