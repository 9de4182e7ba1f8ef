//! Health in the agent: what is checked follows what forwards or is on trial; what the checks find
//! becomes alerts. Who holds a backend back is the runner, which waits for nobody here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use lb_common::control::control_flag;
use lb_common::guard::Op;
use lb_common::slot::{Member, hold, member_state};
use lb_common::{checks, encap};

use super::engine::Engine;
use super::hops::members;
use super::request::Request;
use super::wire::HealthLine;
use crate::config::{Config, Pool};
use crate::health::runner::News;
use crate::health::{BackendSpec, Checks, PoolSpec, Probe, Runner, Told, What};
use crate::kernel::KernelError;
use crate::kernel::checks::CheckProgram;
use crate::kernel::object::Kernel;
use crate::kernel::pins::Pins;
use crate::kernel::readout::{self, SlotOut};
use crate::net;
use crate::sys::boot_ns;

/// Clients' packets are no longer than this.
const CLIENTS: u16 = 1500;
/// Addresses of one pool's VIPs that are asked, at most.
const ADDRESSES: usize = 8;
/// Checks in a row that could not be sent, from which that is told.
const UNSENT: u32 = 3;
/// Time between two looks at that, and between two tries to begin at all.
const EVERY: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(10);
/// The warning that says why nothing is checked.
const WARNING: &str = "health";

/// What the checks of this moment follow from: generations in ACTIVE and on trial.
type Known = (u64, Option<u64>);

/// The checks, once there is something to check.
pub(super) struct Health {
    requests: Sender<Request>,
    running: Option<Running>,
    known: Option<Known>,
    looked: Instant,
    /// When it could not be begun, the time of the next try.
    again: Option<Instant>,
}

struct Running {
    runner: Runner,
    _program: CheckProgram,
}

impl Health {
    pub fn new(requests: Sender<Request>) -> Self {
        Self {
            requests,
            running: None,
            known: None,
            looked: Instant::now(),
            again: None,
        }
    }

    /// Next hops have changed, or something else that checks depend on.
    pub const fn look_anew(&mut self) {
        self.known = None;
    }
}

/// What is to be checked.
#[derive(Default)]
pub(super) struct Wanted {
    pools: BTreeMap<String, PoolSpec>,
    /// By member id.
    pub checks: BTreeMap<u32, Checks>,
}

impl Engine {
    /// Checks what forwards or is on trial, and nothing else.
    pub(super) fn follow_health(&mut self) {
        if self.health.looked.elapsed() >= EVERY {
            self.health.looked = Instant::now();
            self.tell_unsent();
        }
        let Ok(Some(record)) = self.kernel.maps.record() else {
            return;
        };
        let trial = record.flags & control_flag::TRIAL != 0;
        let known = (
            record.active_generation,
            trial.then_some(record.shadow_generation),
        );
        let waits = self.health.again.is_some_and(|at| Instant::now() < at);
        if self.health.known == Some(known) || waits {
            return;
        }
        if self.committed.is_none() && record.active_generation != 0 {
            // What is held back stays so: nobody knows what to ask.
            return;
        }
        self.health.known = Some(known);
        self.health.again = None;
        let shadow = trial.then_some(record.shadow);
        if let Err(why) = self.check_anew(record.active, shadow) {
            tracing::warn!(why, "health is not checked");
            self.warnings
                .insert(WARNING, format!("health is not checked: {why}"));
            // Another try in a while, without hurry.
            self.health.known = None;
            self.health.again = Instant::now().checked_add(AGAIN);
        }
    }

    fn check_anew(&mut self, active: u8, shadow: Option<u8>) -> Result<(), String> {
        let text = |error: KernelError| error.to_string();
        let mut wanted = Wanted::default();
        let trial = self.running.as_ref().and_then(|r| r.config.as_ref());
        // ACTIVE comes last: what is in both is checked as ACTIVE says.
        for (slot, config) in [(shadow, trial), (Some(active), self.committed())] {
            if let (Some(slot), Some(config)) = (slot, config) {
                let layout = readout::read_slot(&self.kernel.maps, slot).map_err(text)?;
                wanted
                    .add(&self.kernel, config, &layout, self.share_ppm())
                    .map_err(text)?;
            }
        }
        self.let_go(&wanted)?;
        if wanted.checks.is_empty() && self.health.running.is_none() {
            self.warnings.remove(WARNING);
            return Ok(());
        }
        self.begin_checks()?;
        let Some(running) = &mut self.health.running else {
            return Ok(());
        };
        let pools = wanted.pools.into_values().collect();
        running
            .runner
            .set(pools, wanted.checks.into_values().collect());
        self.warnings.remove(WARNING);
        self.tell_standing();
        Ok(())
    }

    fn share_ppm(&self) -> u32 {
        let limits = crate::kernel::size::limits(&self.setup.policy);
        limits.ejected_ppm
    }

    /// Who is not checked any more is not held back any more.
    fn let_go(&self, wanted: &Wanted) -> Result<(), String> {
        for (id, member) in members(&self.kernel) {
            let held = member.holds & hold::HEALTH != 0 || member.withheld != 0;
            if held && !wanted.checks.contains_key(&id) {
                let (up, cause) = (u64::from(member_state::UP), u64::from(hold::HEALTH));
                let args = [u64::from(id), up, 0, cause];
                let set = self.kernel.guard.call(Op::SetMember, 0, &args, &[]);
                set.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// The way out of this host, made when there is first something to check.
    pub(super) fn begin_checks(&mut self) -> Result<(), String> {
        if self.health.running.is_some() {
            return Ok(());
        }
        let pins = Pins::new(self.setup.paths.pin_dir());
        let name = self.setup.node.interfaces.first().cloned();
        let name = name.ok_or("agent.toml names no interface")?;
        let link = net::links::read(&name).map_err(|e| e.to_string())?;
        let index = link
            .ok_or_else(|| format!("there is no interface {name}"))?
            .index;
        self.runtime
            .block_on(net::checks::prepare(index))
            .map_err(|error| error.to_string())?;
        let program = CheckProgram::attach(&pins, &self.kernel.node, &name)
            .map_err(|error| error.to_string())?;
        let guard = self.kernel.guard.twin(&pins.program("guard"));
        let guard = guard.map_err(|error| error.to_string())?;
        let requests = self.health.requests.clone();
        let tell = move |news| {
            let _ = requests.send(Request::Health(news));
        };
        self.health.running = Some(Running {
            runner: Runner::start(guard, self.runtime.clone(), tell),
            _program: program,
        });
        Ok(())
    }

    /// Something happened to a backend or a pool.
    pub(super) fn health_news(&mut self, news: &News) {
        let Told {
            pool,
            backend,
            what,
        } = &news.told;
        let took = news.took.as_secs_f64() * 1000.0;
        let name = backend.as_deref().unwrap_or_default();
        let about = ("health", format!("{pool}/{name}"));
        match what {
            What::Down { why, kept: false } => {
                self.begin_purge(pool, name);
                self.alert(
                    about,
                    format!(
                        "backend {name} of pool {pool} is down: {why}; out of the table {took:.2} ms \
                         after the deciding check"
                    ),
                );
            }
            What::Down { why, kept: true } => self.alert(
                about,
                format!(
                    "backend {name} of pool {pool} is down: {why}; it gets flows all the same, for too \
                     many are"
                ),
            ),
            What::Up => self.alert_over(&about, &format!("backend {name} of pool {pool} is back")),
            What::Panic { failing, of } => self.alert(
                ("panic", pool.clone()),
                format!(
                    "PANIC: {failing} of {of} backends of pool {pool} fail, more than health may take \
                     out: all get flows (fail open); look at what they have in common, the checks too"
                ),
            ),
            What::Calm => self.alert_over(
                &("panic", pool.clone()),
                &format!("pool {pool}: those that fail are held back again"),
            ),
        }
        if let Some(evidence) = self.running.as_mut().and_then(|r| r.evidence.as_mut()) {
            evidence.backends_changed();
        }
    }

    /// What an earlier agent has found and still holds; and nothing about who is not checked any more.
    fn tell_standing(&mut self) {
        let lines = self.health_lines();
        for about in self.watching.alerts.of("health") {
            let stands = |line: &HealthLine| about.1 == format!("{}/{}", line.pool, line.backend);
            if !lines.iter().any(stands) {
                self.alert_over(&about, &format!("{} is not checked any more", about.1));
            }
        }
        for about in self.watching.alerts.of("panic") {
            if !lines.iter().any(|line| line.pool == about.1) {
                self.alert_over(&about, &format!("pool {} is not checked any more", about.1));
            }
        }
        let known: BTreeSet<String> = self
            .watching
            .alerts
            .of("health")
            .into_iter()
            .map(|(_, about)| about)
            .collect();
        for line in lines.into_iter().filter(|line| line.state == "down") {
            let about = format!("{}/{}", line.pool, line.backend);
            if !known.contains(&about) {
                let text = format!(
                    "backend {} of pool {} is down since before this agent",
                    line.backend, line.pool
                );
                self.alert(("health", about), text);
            }
        }
    }

    /// Checks that never leave this host prove nothing, and somebody has to know.
    fn tell_unsent(&mut self) {
        let lines = self.health_lines();
        let unsent = lines.iter().filter(|line| line.unsent >= UNSENT);
        let mut pools: BTreeMap<String, String> = BTreeMap::new();
        for line in unsent {
            let why = line.trouble.clone().unwrap_or_default();
            pools.entry(line.pool.clone()).or_insert(why);
        }
        for about in self.watching.alerts.of("health-unsent") {
            if !pools.contains_key(&about.1) {
                self.alert_over(&about, &format!("pool {} is checked again", about.1));
            }
        }
        let standing = self.watching.alerts.of("health-unsent");
        for (pool, why) in pools {
            if !standing.iter().any(|(_, about)| *about == pool) {
                let text = format!("backends of pool {pool} cannot be checked: {why}");
                self.alert(("health-unsent", pool), text);
            }
        }
    }

    /// For `status`.
    pub(super) fn health_lines(&self) -> Vec<HealthLine> {
        let Some(running) = &self.health.running else {
            return Vec::new();
        };
        let now = boot_ns();
        let line = |line: crate::health::Line| HealthLine {
            pool: line.pool,
            backend: line.backend,
            state: line.state.to_owned(),
            held: line.held,
            admitted: line.admitted,
            seconds: now.saturating_sub(line.since_ns) / 1_000_000_000,
            against: line.against,
            unsent: line.unsent,
            trouble: line.trouble,
        };
        running.runner.lines().into_iter().map(line).collect()
    }
}

impl Wanted {
    /// Adds what one slot has.
    pub(super) fn add(
        &mut self,
        kernel: &Kernel,
        config: &Config,
        layout: &SlotOut,
        share_ppm: u32,
    ) -> Result<(), KernelError> {
        for pool in &config.pools {
            let there = layout.pools.iter().find(|own| own.name == pool.name);
            let (Some(health), Some(there)) = (&pool.health, there) else {
                continue;
            };
            let addresses: BTreeSet<IpAddr> = config
                .vips
                .iter()
                .filter(|vip| vip.pool == pool.name)
                .map(|vip| vip.address)
                .collect();
            let in_table: BTreeSet<&str> = pool.in_table().map(|b| b.name.as_str()).collect();
            let mut spec = spec(pool, share_ppm);
            for backend in &there.backends {
                let Some(member) = kernel.maps.member(backend.id) else {
                    continue;
                };
                if !in_table.contains(backend.name.as_str()) {
                    continue;
                }
                if member.holds & hold::NEXT_HOP != 0 || member.next_hop == 0 {
                    spec.lost = spec.lost.saturating_add(1);
                    continue;
                }
                let mtu = kernel.maps.next_hop(u32::from(member.next_hop))?.mtu;
                let longest = longest(pool, &member, mtu);
                let vips = addresses.iter().take(ADDRESSES);
                let probe = Probe {
                    health: health.clone(),
                    identity: pool.identity.clone(),
                    vips: vips.map(|vip| (*vip, longest)).collect(),
                    mark: checks::mark(backend.id),
                };
                let own = Checks {
                    pool: pool.name.clone(),
                    member: backend.id,
                    probe,
                };
                self.checks.insert(backend.id, own);
                spec.backends.push(BackendSpec {
                    name: backend.name.clone(),
                    member: backend.id,
                    held: member.holds & hold::HEALTH != 0,
                    withheld: member.withheld,
                });
            }
            self.join(spec);
        }
        Ok(())
    }

    /// A pool that is in both slots has the backends of both, and ACTIVE's rules.
    fn join(&mut self, mut spec: PoolSpec) {
        if let Some(other) = self.pools.remove(&spec.name) {
            let known: BTreeSet<u32> = spec.backends.iter().map(|b| b.member).collect();
            let more = other.backends.into_iter();
            let more: Vec<_> = more.filter(|b| !known.contains(&b.member)).collect();
            let count = u32::try_from(more.len()).unwrap_or(u32::MAX);
            spec.members = spec.members.saturating_add(count);
            spec.backends.extend(more);
        }
        self.pools.insert(spec.name.clone(), spec);
    }
}

fn spec(pool: &Pool, share_ppm: u32) -> PoolSpec {
    let (rise, fall) = pool.health.as_ref().map_or((1, 1), |h| (h.rise, h.fall));
    PoolSpec {
        name: pool.name.clone(),
        rise,
        fall,
        slow_start: pool.slow_start,
        share_ppm,
        members: u32::try_from(pool.in_table().count()).unwrap_or(u32::MAX),
        lost: 0,
        backends: Vec::new(),
    }
}

/// The longest packet of a client that is sent on to this backend.
fn longest(pool: &Pool, member: &Member, hop_mtu: u16) -> u16 {
    let overhead = encap::added(member.forward, member.address.is_v4());
    let mtu = pool.mtu.map_or(hop_mtu, |own| own.min(hop_mtu));
    mtu.saturating_sub(overhead).min(CLIENTS)
}
