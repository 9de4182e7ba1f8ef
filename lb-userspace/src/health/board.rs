//! A pool's health: which backends the kernel should hold back, and how much of the new flows those
//! that came back should get.
//!
//! A pool is never emptied: when more backends fail than policy lets go, none is held back (fail
//! open), and that is told loudly. More than half of a pool failing at once is rather the checks, or
//! something behind all of them, than as many servers.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::invariant::may_eject;

use super::machine::{Machine, Turn, Verdict};

/// Share of its new flows that a backend gets at once when it comes back, in 256ths.
const FIRST: u64 = 26;
const ALL: u64 = 256;

/// A pool that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its name.
    pub name: String,
    /// Successes in a row that bring a backend back.
    pub rise: u32,
    /// Failures in a row that take one out.
    pub fall: u32,
    /// Time in which one that came back gets its full share.
    pub slow_start: Option<Duration>,
    /// Share of a pool that health may take out, ppm.
    pub share_ppm: u32,
    /// Backends that new flows may go to, whether they are checked or not.
    pub members: u32,
    /// Those of them that are down for want of a next hop.
    pub lost: u32,
    /// Those that are checked.
    pub backends: Vec<BackendSpec>,
}

/// A backend that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Its name.
    pub name: String,
    /// Its member id.
    pub member: u32,
    /// Whether the kernel holds it back for its health.
    pub held: bool,
    /// Parts of 256 of new flows that it does not get.
    pub withheld: u8,
}

/// What the kernel should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The pool.
    pub pool: String,
    /// The member.
    pub member: u32,
    /// Whether it is held back.
    pub held: bool,
    /// Parts of 256 of new flows that it does not get.
    pub withheld: u8,
}

/// What people should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The pool.
    pub pool: String,
    /// The backend; none if it is about the pool.
    pub backend: Option<String>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A backend is down, and why; `kept`: it gets flows all the same, because too many are.
    Down {
        /// The last failure.
        why: String,
        /// Fail open.
        kept: bool,
    },
    /// It is back.
    Up,
    /// So many of so many fail: none is held back any more.
    Panic {
        /// How many fail.
        failing: u32,
        /// Of how many.
        of: u32,
    },
    /// No longer so.
    Calm,
}

/// A backend as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// See [`Machine::state`].
    pub state: &'static str,
    /// Whether the kernel holds it back.
    pub held: bool,
    /// Share of its new flows that it gets, percent.
    pub admitted: u8,
    /// Since when, boot-clock ns.
    pub since_ns: u64,
    /// Results in a row that speak against its state.
    pub against: u32,
    /// The last failure or obstacle, if the last check had one.
    pub trouble: Option<String>,
    /// Checks in a row that could not be sent.
    pub unsent: u32,
}

#[derive(Clone, Debug)]
struct Backend {
    spec: BackendSpec,
    machine: Machine,
    /// When it came back, boot-clock ns, while it is slow to start.
    ramp_ns: Option<u64>,
}

#[derive(Clone, Debug)]
struct Pool {
    spec: PoolSpec,
    backends: BTreeMap<u32, Backend>,
    /// The guard knows of more that are down than we do.
    refused: bool,
    panic: bool,
}

/// All pools that are checked.
#[derive(Clone, Debug, Default)]
pub struct Board {
    pools: BTreeMap<String, Pool>,
}

impl Board {
    /// What is checked from here on. Who was known stays as it was.
    pub fn set(&mut self, specs: Vec<PoolSpec>, now_ns: u64) {
        let mut before = std::mem::take(&mut self.pools);
        for spec in specs {
            let known = before.remove(&spec.name);
            self.pools
                .insert(spec.name.clone(), Pool::of(spec, known, now_ns));
        }
    }

    /// Takes a result.
    pub fn take(&mut self, pool: &str, member: u32, verdict: Verdict, now_ns: u64) -> Option<Turn> {
        let pool = self.pools.get_mut(pool)?;
        let (rise, fall) = (pool.spec.rise, pool.spec.fall);
        let slow = pool.spec.slow_start.is_some();
        let backend = pool.backends.get_mut(&member)?;
        let turn = backend.machine.take(verdict, rise, fall, now_ns)?;
        backend.ramp_ns = (turn == Turn::Up && slow).then_some(now_ns);
        pool.refused = false;
        Some(turn)
    }

    /// What the kernel should be told now: who is let go of comes first.
    pub fn wishes(&mut self, now_ns: u64) -> Vec<Set> {
        let mut wishes: Vec<Set> = self
            .pools
            .values_mut()
            .flat_map(|pool| pool.wishes(now_ns))
            .collect();
        wishes.sort_by_key(|set| set.held);
        wishes
    }

    /// The kernel was told.
    pub fn done(&mut self, set: &Set) {
        let pool = self.pools.get_mut(&set.pool);
        if let Some(backend) = pool.and_then(|pool| pool.backends.get_mut(&set.member)) {
            backend.spec.held = set.held;
            backend.spec.withheld = set.withheld;
        }
    }

    /// The guard has refused to take one more out of a pool: all are kept.
    pub fn refused(&mut self, pool: &str) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.refused = true;
        }
    }

    /// Pools that begin or cease to fail open, once [`Board::wishes`] are fulfilled.
    pub fn panics(&mut self) -> Vec<Told> {
        let news = self.pools.values_mut().filter_map(Pool::news);
        news.collect()
    }

    /// What to tell of a turn.
    pub fn tell(&self, pool: &str, member: u32, turn: Turn) -> Option<Told> {
        let own = self.pools.get(pool)?;
        let backend = own.backends.get(&member)?;
        let what = match turn {
            Turn::Up => What::Up,
            Turn::Down => What::Down {
                why: trouble(&backend.machine).unwrap_or_default(),
                kept: !backend.spec.held,
            },
        };
        Some(Told {
            pool: pool.to_owned(),
            backend: Some(backend.spec.name.clone()),
            what,
        })
    }

    /// Whether somebody is slow to start, so that time alone changes something.
    pub fn ramps(&self) -> bool {
        let backends = self.pools.values().flat_map(|pool| pool.backends.values());
        backends
            .into_iter()
            .any(|backend| backend.ramp_ns.is_some())
    }

    /// Everybody, by pool and name.
    pub fn lines(&self) -> Vec<Line> {
        let line = |pool: &Pool, backend: &Backend| Line {
            pool: pool.spec.name.clone(),
            backend: backend.spec.name.clone(),
            state: backend.machine.state(),
            held: backend.spec.held,
            admitted: percent(backend.spec.withheld),
            since_ns: backend.machine.since_ns(),
            against: backend.machine.against(),
            trouble: trouble(&backend.machine),
            unsent: backend.machine.unsent(),
        };
        let mut lines: Vec<Line> = self
            .pools
            .values()
            .flat_map(|pool| pool.backends.values().map(move |b| line(pool, b)))
            .collect();
        lines.sort_by(|a, b| (&a.pool, &a.backend).cmp(&(&b.pool, &b.backend)));
        lines
    }
}

impl Pool {
    fn of(spec: PoolSpec, known: Option<Self>, now_ns: u64) -> Self {
        let (mut before, was) = known.map_or_else(
            || (BTreeMap::new(), None),
            |pool| (pool.backends, Some((pool.panic, pool.refused, pool.spec))),
        );
        let same_pace = |old: &PoolSpec| (old.rise, old.fall) == (spec.rise, spec.fall);
        let keep_counts = was.as_ref().is_none_or(|(_, _, old)| same_pace(old));
        let backends = spec
            .backends
            .iter()
            .map(|own| {
                let fresh = || Backend {
                    machine: Machine::new(own.held, now_ns),
                    ramp_ns: resumed(own.withheld, spec.slow_start, now_ns),
                    spec: own.clone(),
                };
                let mut backend = before.remove(&own.member).unwrap_or_else(fresh);
                backend.spec = own.clone();
                if !keep_counts {
                    backend.machine.checked_anew();
                }
                (own.member, backend)
            })
            .collect();
        let (panic, refused) = was.map_or((false, false), |(panic, refused, _)| (panic, refused));
        Self {
            spec,
            backends,
            refused,
            panic,
        }
    }

    fn failing(&self) -> u32 {
        let failing = self.backends.values().filter(|b| !b.machine.is_up());
        u32::try_from(failing.count()).unwrap_or(u32::MAX)
    }

    /// Whether as many as fail may be taken out.
    fn bearable(&self) -> bool {
        let down = self.failing().saturating_add(self.spec.lost);
        down == 0
            || may_eject(
                down.saturating_sub(1),
                self.spec.members,
                self.spec.share_ppm,
            )
    }

    fn fails_open(&self) -> bool {
        self.failing() > 0 && (self.refused || !self.bearable())
    }

    fn wishes(&mut self, now_ns: u64) -> Vec<Set> {
        let open = self.fails_open();
        let slow_start = self.spec.slow_start;
        let mut wishes = Vec::new();
        for (member, backend) in &mut self.backends {
            let held = !backend.machine.is_up() && !open;
            let withheld = match (backend.ramp_ns, slow_start) {
                (Some(since), Some(total)) if !open => ramp(now_ns.saturating_sub(since), total),
                _ => 0,
            };
            if withheld == 0 {
                backend.ramp_ns = None;
            }
            if (held, withheld) != (backend.spec.held, backend.spec.withheld) {
                wishes.push(Set {
                    pool: self.spec.name.clone(),
                    member: *member,
                    held,
                    withheld,
                });
            }
        }
        wishes
    }

    fn news(&mut self) -> Option<Told> {
        let open = self.fails_open();
        if open == std::mem::replace(&mut self.panic, open) {
            return None;
        }
        let what = if open {
            What::Panic {
                failing: self.failing().saturating_add(self.spec.lost),
                of: self.spec.members,
            }
        } else {
            What::Calm
        };
        Some(Told {
            pool: self.spec.name.clone(),
            backend: None,
            what,
        })
    }
}

/// Parts of 256 that are withheld so long after a backend came back.
fn ramp(elapsed_ns: u64, total: Duration) -> u8 {
    let total_ns = u64::try_from(total.as_nanos()).unwrap_or(u64::MAX).max(1);
    if elapsed_ns >= total_ns {
        return 0;
    }
    let part = u128::from(elapsed_ns) * u128::from(ALL) / u128::from(total_ns);
    let admitted = u64::try_from(part).unwrap_or(ALL).clamp(FIRST, ALL);
    u8::try_from(ALL.saturating_sub(admitted)).unwrap_or(u8::MAX)
}

/// When a backend came back of which an earlier agent has withheld a part.
fn resumed(withheld: u8, slow_start: Option<Duration>, now_ns: u64) -> Option<u64> {
    let total = u64::try_from(slow_start?.as_nanos()).ok()?;
    if withheld == 0 {
        return None;
    }
    let admitted = ALL.saturating_sub(u64::from(withheld));
    Some(now_ns.saturating_sub(total / ALL * admitted))
}

fn percent(withheld: u8) -> u8 {
    let admitted = ALL.saturating_sub(u64::from(withheld));
    u8::try_from(admitted * 100 / ALL).unwrap_or(100)
}

fn trouble(machine: &Machine) -> Option<String> {
    match machine.last() {
        Some(Verdict::Ill(why) | Verdict::Unsent(why)) => Some(why.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
