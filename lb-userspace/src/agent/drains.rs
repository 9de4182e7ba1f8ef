//! Backends that are drained by command: they keep their flows and get no new ones.
//!
//! A drain is part of no generation. The guard holds the member back in every slot that has it, the
//! journal says who and why, and so it outlives changes, the agent and a reboot.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use lb_common::guard::Op;
use lb_common::slot::{hold, member_state};
use serde_json::json;

use super::engine::Engine;
use super::hops::members;
use super::wire::{Answer, Drain, DrainLine, Drained};
use crate::change::actor::Actor;
use crate::change::journal::{Entry, Kind};
use crate::change::reason::reason;
use crate::exit::ExitCode;
use crate::kernel::image::Image;
use crate::kernel::{KernelError, flows};

/// A flow that was silent for so long is gone, if its pool says nothing else.
const IDLE: Duration = Duration::from_mins(2);

/// A member of the kernel by its names.
#[derive(Clone, Debug)]
struct Named {
    id: u32,
    pool: String,
    backend: String,
    drained: bool,
}

/// Pool and backend.
type Key = (String, String);

/// Why a drain is refused, and the exit code of the command.
type No = (String, ExitCode);

impl Engine {
    /// Drains a backend or takes it back: acts first, then writes it down.
    pub(super) fn drain(&mut self, asked: &Drain, by: Actor) -> Drained {
        let (pool, members, answer) = match self.try_drain(asked, by) {
            Ok((pool, members, message)) => {
                let exit = ExitCode::Done.code();
                let done = true;
                (
                    pool,
                    members,
                    Answer {
                        done,
                        message,
                        exit,
                    },
                )
            }
            Err((message, exit)) => {
                let answer = Answer {
                    done: false,
                    message,
                    exit: exit.code(),
                };
                (asked.pool.clone().unwrap_or_default(), Vec::new(), answer)
            }
        };
        let idle_ms = self.idle_of(&pool).as_millis();
        Drained {
            answer,
            pool,
            members,
            idle_ms: u64::try_from(idle_ms).unwrap_or(u64::MAX),
        }
    }

    fn try_drain(&mut self, asked: &Drain, by: Actor) -> Result<(String, Vec<u32>, String), No> {
        if let Some(Err(why)) = asked.why.as_deref().map(reason) {
            return Err((format!("the reason: {why}"), ExitCode::Usage));
        }
        let internal = |error: KernelError| (error.to_string(), ExitCode::Internal);
        let all = self.named_members().map_err(internal)?;
        let (pool, backend) = self.meant(asked, &all)?;
        let key = (pool.clone(), backend.clone());
        let own: Vec<Named> = all
            .into_iter()
            .filter(|member| member.pool == pool && member.backend == backend)
            .collect();
        let ids: Vec<u32> = own.iter().map(|member| member.id).collect();
        let what = format!("backend {backend} of pool {pool}");
        let standing = self.ledger.drains.get(&key);
        let (held, known) = (own.iter().all(|m| m.drained), standing.is_some());
        if asked.on && known && held {
            let who = standing
                .map(|drain| drain.by.user.clone())
                .unwrap_or_default();
            return Ok((pool, ids, format!("{what} is drained already, by {who}")));
        }
        if !asked.on && !known && !own.iter().any(|m| m.drained) {
            let text = format!(
                "{what} is not drained by command; what services.toml says of it is changed by \
                 `lbguard apply`"
            );
            return Err((text, ExitCode::Refused));
        }
        self.hold(&own, asked.on)
            .map_err(|error| (format!("{what}: {}", told(&error)), ExitCode::Refused))?;
        if let Some(evidence) = self.running.as_mut().and_then(|r| r.evidence.as_mut()) {
            evidence.backends_changed();
        }
        let done = self.drain_message(asked.on, &what, &ids);
        let entry = Entry {
            kind: Kind::Drain,
            change: None,
            generation: None,
            actor: by,
            why: asked.why.clone(),
            body: json!({"pool": pool, "backend": backend, "on": asked.on}),
        };
        let message = match self.append(entry) {
            Ok(()) => done,
            Err(why) => format!(
                "{done}. In the kernel, not yet in the journal, so that a reboot would undo it: {why}"
            ),
        };
        Ok((pool, ids, message))
    }

    fn drain_message(&self, on: bool, what: &str, ids: &[u32]) -> String {
        if !on {
            return format!("{what} takes new flows again, as its health and services.toml let it");
        }
        let idle = u64::try_from(IDLE.as_nanos()).unwrap_or(u64::MAX);
        match flows::count(&self.kernel.maps, ids, idle) {
            Ok(0) => format!("{what} takes no new flows, and has none"),
            Ok(1) => format!("{what} takes no new flows; 1 still goes to it"),
            Ok(count) => format!("{what} takes no new flows; {count} still go to it"),
            Err(_) => format!("{what} takes no new flows"),
        }
    }

    /// Which backend is meant.
    fn meant(&self, asked: &Drain, all: &[Named]) -> Result<Key, No> {
        let there = all.iter().map(|m| (m.pool.clone(), m.backend.clone()));
        let drained = self.ledger.drains.keys().filter(|_| !asked.on).cloned();
        let known: BTreeSet<Key> = there.chain(drained).collect();
        let named: Vec<&Key> = known
            .iter()
            .filter(|(_, backend)| *backend == asked.backend)
            .collect();
        let mut fits: Vec<&Key> = named
            .iter()
            .copied()
            .filter(|(pool, _)| asked.pool.as_ref().is_none_or(|meant| meant == pool))
            .collect();
        if !asked.on && fits.len() > 1 {
            // Only what is drained can be taken back.
            fits.retain(|key| self.ledger.drains.contains_key(*key));
        }
        let pools = || {
            let names: Vec<&str> = named.iter().map(|(pool, _)| pool.as_str()).collect();
            names.join(", ")
        };
        match (fits.as_slice(), named.is_empty()) {
            ([one], _) => Ok((*one).clone()),
            ([], true) => Err((
                format!(
                    "no slot has a backend {} (`lbguard status` lists them; a disabled one takes \
                     nothing anyway)",
                    asked.backend
                ),
                ExitCode::Refused,
            )),
            ([], false) if asked.pool.is_none() => Err((
                format!("no backend {} is drained by command", asked.backend),
                ExitCode::Refused,
            )),
            ([], false) => Err((
                format!("backend {} is of pool {}", asked.backend, pools()),
                ExitCode::Refused,
            )),
            _ => Err((
                format!(
                    "{} pools have a backend {}: say which with --pool: {}",
                    fits.len(),
                    asked.backend,
                    pools()
                ),
                ExitCode::Usage,
            )),
        }
    }

    /// Holds all members, or lets go of them; none if the guard refuses one.
    fn hold(&self, own: &[Named], on: bool) -> Result<(), KernelError> {
        let state = if on {
            member_state::DRAIN
        } else {
            member_state::UP
        };
        let set = |id: u32, state: u8| {
            let cause = u64::from(hold::OPERATOR);
            let args = [u64::from(id), u64::from(state), 0, cause];
            self.kernel.guard.call(Op::SetMember, 0, &args, &[])
        };
        let mut done: Vec<&Named> = Vec::new();
        for member in own.iter().filter(|member| member.drained != on) {
            if let Err(error) = set(member.id, state) {
                for before in done {
                    let _ = set(before.id, member_state::UP);
                }
                return Err(error);
            }
            done.push(member);
        }
        Ok(())
    }

    /// Every member that some slot has, with its names.
    fn named_members(&self) -> Result<Vec<Named>, KernelError> {
        let named = |(id, member): (u32, lb_common::slot::Member)| {
            Ok(Named {
                id,
                pool: self.kernel.maps.pool_name(member.pool)?,
                backend: self.kernel.maps.member_name(id)?,
                drained: member.holds & hold::OPERATOR != 0,
            })
        };
        members(&self.kernel).into_iter().map(named).collect()
    }

    /// What is staged anew is held from its first packet on.
    pub(super) fn hold_drained(&self, image: &mut Image) {
        for pool in &mut image.pools {
            for backend in &mut pool.members {
                let key = (pool.name.clone(), backend.name.clone());
                if self.ledger.drains.contains_key(&key) {
                    let member = &mut backend.member;
                    member.holds = member_state::held_without_hop(member.state) | hold::OPERATOR;
                    member.state = member_state::of(member.holds);
                }
            }
        }
    }

    /// Where something forwards, the kernel's word is written down; after a reboot it knows nothing.
    pub(super) fn reconcile_drains(&mut self) -> anyhow::Result<()> {
        let forwards = self.kernel.maps.record()?;
        if forwards.is_none_or(|record| record.active_generation == 0) {
            return Ok(());
        }
        let all = self.named_members()?;
        let (mut held, mut free) = (BTreeSet::new(), BTreeSet::new());
        for member in all {
            let side = if member.drained { &mut held } else { &mut free };
            side.insert((member.pool, member.backend));
        }
        let known: BTreeSet<Key> = self.ledger.drains.keys().cloned().collect();
        let found = held.difference(&known).map(|key| (key, true));
        let gone = known.intersection(&free).filter(|key| !held.contains(*key));
        let news: Vec<_> = found
            .chain(gone.map(|key| (key, false)))
            .map(|(key, on)| (key.clone(), on))
            .collect();
        for ((pool, backend), on) in news {
            let body = json!({
                "pool": pool, "backend": backend, "on": on, "found": "in the kernel",
            });
            self.write_down(Kind::Drain, Actor::kernel(), body);
        }
        Ok(())
    }

    /// Time after which a flow of a pool counts as gone.
    fn idle_of(&self, pool: &str) -> Duration {
        let config = self.committed();
        let pool = config.and_then(|config| config.pool(pool));
        pool.and_then(|pool| pool.idle_timeout).unwrap_or(IDLE)
    }

    /// What is drained, for `status`.
    pub(super) fn drain_lines(&self) -> Vec<DrainLine> {
        if self.ledger.drains.is_empty() {
            return Vec::new();
        }
        let all = self.named_members().unwrap_or_default();
        let line = |((pool, backend), drain): (&Key, &crate::change::ledger::Drain)| {
            let own = all
                .iter()
                .filter(|m| m.pool == *pool && m.backend == *backend);
            let ids: Vec<u32> = own.map(|member| member.id).collect();
            let idle = u64::try_from(self.idle_of(pool).as_nanos()).unwrap_or(u64::MAX);
            let flows = flows::count(&self.kernel.maps, &ids, idle);
            DrainLine {
                pool: pool.clone(),
                backend: backend.clone(),
                by: drain.by.user.clone(),
                why: drain.why.clone(),
                since: drain.time,
                flows: flows.ok().filter(|_| !ids.is_empty()),
            }
        };
        self.ledger.drains.iter().map(line).collect()
    }

    /// Pools of a configuration in which a new flow would find nobody but drained backends.
    pub(super) fn all_drained(&self, config: &crate::config::Config) -> Option<String> {
        let key = |pool: &str, backend: &str| (pool.to_owned(), backend.to_owned());
        let pool = config.pools.iter().find(|pool| {
            let mut there = pool.in_table().peekable();
            there.peek().is_some()
                && there.all(|backend| {
                    let key = key(&pool.name, &backend.name);
                    self.ledger.drains.contains_key(&key)
                })
        })?;
        let mut text = format!(
            "pool {} would have drained backends only, {} of {}:",
            pool.name,
            pool.in_table().count(),
            pool.in_table().count()
        );
        for backend in pool.in_table() {
            let _ = write!(text, " {}", backend.name);
        }
        text.push_str("; `lbguard undrain` one of them, or leave another one in");
        Some(text)
    }
}

fn told(error: &KernelError) -> String {
    match error {
        KernelError::Refused(refused) => refused.reason(),
        other => other.to_string(),
    }
}
