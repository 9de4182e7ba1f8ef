//! Watching the traffic between changes, once a second: how much there is, backends that are worse
//! than the rest of their pool, handshakes that fail, VIPs that fall silent. It tells, and does nothing.

use std::collections::BTreeMap;

use lb_common::SLOTS;
use lb_common::control::{ControlRecord, control_flag};
use lb_common::guard::Op;

use super::alerts::Alerts;
use super::engine::Engine;
use super::floods::FloodWatch;
use super::wire::Alert;
use crate::change::Now;
use crate::evidence::burn::{Burn, BurnWatch};
use crate::evidence::counts::{Counts, Raw};
use crate::evidence::proof::Seen;
use crate::evidence::rates::Rates;
use crate::evidence::tracker::{Timing, Tracker};
use crate::evidence::volume::VolumeWatch;
use crate::evidence::watching::{BackendFlows, PoolWatch};
use crate::kernel::KernelError;
use crate::kernel::object::Kernel;
use crate::kernel::readout::{self, SlotOut};

/// Time between two looks, ns.
const EVERY_NS: u64 = 1_000_000_000;
/// Share of handshakes that may fail: clients give up and scanners ask everywhere.
const ALLOWED: f64 = 0.01;
/// Watched flows from which their failing share is told.
const ENOUGH: u64 = 200;

/// What is known of the traffic.
#[derive(Default)]
pub(super) struct Watching {
    looked_ns: u64,
    /// What forwards: its generation, and it.
    layout: Option<(u64, SlotOut)>,
    rates: Rates,
    volumes: BTreeMap<String, VolumeWatch>,
    burns: BTreeMap<String, BurnWatch>,
    /// Mature flows and failed ones of each VIP since the agent started.
    totals: BTreeMap<String, (u64, u64)>,
    follow: Option<Follow>,
    pub alerts: Alerts,
    pub floods: FloodWatch,
    /// The last trouble, so that it is told once.
    trouble: Option<String>,
}

/// Flows counted since the last trial.
struct Follow {
    tracker: Tracker,
    pools: BTreeMap<String, PoolWatch>,
    /// What is in the totals already.
    told: BTreeMap<u16, (u64, u64)>,
}

impl Watching {
    /// How much traffic there is.
    pub fn seen(&self) -> Seen {
        let failing = |(name, (flows, failed)): (&String, &(u64, u64))| {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = *failed as f64 / *flows as f64;
            (*flows >= ENOUGH).then(|| (name.clone(), share))
        };
        Seen {
            flows_per_second: self.rates.per_second(),
            failing: self.totals.iter().filter_map(failing).collect(),
        }
    }

    /// What is odd.
    pub fn alerts(&self) -> Vec<Alert> {
        self.alerts.all()
    }
}

impl Engine {
    /// Looks at the traffic, once a second.
    pub(super) fn watch_traffic(&mut self) {
        let now = Now::read().boot_ns;
        if now.saturating_sub(self.watching.looked_ns) < EVERY_NS {
            return;
        }
        self.watching.looked_ns = now;
        let trouble = self.look_at_traffic(now).err().map(|e| e.to_string());
        if let Some(error) = &trouble
            && self.watching.trouble != trouble
        {
            tracing::warn!(error, "the traffic cannot be watched");
        }
        self.watching.trouble = trouble;
    }

    fn look_at_traffic(&mut self, now: u64) -> Result<(), KernelError> {
        let Some(record) = self.kernel.maps.record()? else {
            return Ok(());
        };
        let known = self.watching.layout.take();
        let same = known.filter(|(generation, _)| *generation == record.active_generation);
        let layout = if let Some((_, layout)) = same {
            layout
        } else {
            self.watching.follow = None;
            readout::read_slot(&self.kernel.maps, record.active)?
        };
        let looked = self.look_at(&record, &layout, now);
        self.watching.layout = Some((record.active_generation, layout));
        looked
    }

    fn look_at(
        &mut self,
        record: &ControlRecord,
        layout: &SlotOut,
        now: u64,
    ) -> Result<(), KernelError> {
        self.look_for_floods()?;
        self.look_at_redirects()?;
        self.measure_rates(layout, now)?;
        self.volumes(layout);
        if record.flags & control_flag::TRIAL != 0 {
            // The trial has the counters.
            self.watching.follow = None;
            return Ok(());
        }
        self.set_watch(record)?;
        if self.setup.policy.evidence.watch == 0 {
            self.watching.follow = None;
            return Ok(());
        }
        let raw = read(&self.kernel, layout)?;
        let Some(mut follow) = self.watching.follow.take() else {
            self.watching.follow = Some(self.begin_to_follow(&raw, now));
            return Ok(());
        };
        let counts = follow.tracker.round(&raw, now).clone();
        self.handshakes(layout, &counts, &mut follow, now);
        self.backends(layout, &counts, &mut follow, now);
        self.watching.follow = Some(follow);
        Ok(())
    }

    fn begin_to_follow(&self, raw: &Raw, now: u64) -> Follow {
        let within = self.setup.policy.evidence.handshake_within;
        let mut tracker = Tracker::new(Timing {
            within_ns: u64::try_from(within.as_nanos()).unwrap_or(u64::MAX),
            settle_ns: 0,
        });
        tracker.begin_stage(raw, now);
        Follow {
            tracker,
            pools: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Has the kernel follow what the policy says.
    fn set_watch(&self, record: &ControlRecord) -> Result<(), KernelError> {
        let policy = &self.setup.policy.evidence;
        let within = u32::try_from(policy.handshake_within.as_millis()).unwrap_or(u32::MAX);
        let wanted = match policy.watch {
            0 => record.unwatched(),
            one_of => record.watching(one_of.trailing_zeros(), within),
        };
        if wanted == *record {
            return Ok(());
        }
        let on = u64::from(policy.watch != 0);
        let sampling = u64::from(policy.watch.max(1).trailing_zeros());
        let args = [on, sampling, u64::from(within)];
        self.kernel.guard.call(Op::Watch, 0, &args, &[]).map(drop)
    }

    fn measure_rates(&mut self, layout: &SlotOut, now: u64) -> Result<(), KernelError> {
        let mut counters = Vec::with_capacity(layout.vips.len());
        for vip in layout.vips.iter().filter(|vip| vip.protocol == "tcp") {
            let mut syns = 0_u64;
            for slot in 0..u32::try_from(SLOTS).unwrap_or(0) {
                let maps = &self.kernel.maps;
                let own = maps.vip_counters(&self.kernel.node, slot, vip.number)?;
                syns = syns.wrapping_add(own.syns);
            }
            counters.push((vip.name.as_str(), syns));
        }
        self.watching.rates.round(counters, now);
        Ok(())
    }

    /// S13.
    fn volumes(&mut self, layout: &SlotOut) {
        let rates = self.watching.rates.per_second();
        let watches = &mut self.watching.volumes;
        watches.retain(|name, _| layout.vips.iter().any(|vip| vip.name == *name));
        let drops: Vec<_> = rates
            .into_iter()
            .filter_map(|(name, rate)| {
                let fresh = || VolumeWatch::new(name.clone());
                watches
                    .entry(name.clone())
                    .or_insert_with(fresh)
                    .round(rate)
            })
            .collect();
        for drop in drops {
            let about = ("volume", drop.vip.clone());
            if drop.begins {
                self.alert(about, drop.to_string());
            } else {
                self.alert_over(&about, &drop.to_string());
            }
        }
        self.forget("volume", |vip| {
            layout.vips.iter().any(|known| known.name == vip)
        });
    }

    /// S1: two windows of handshakes that fail.
    fn handshakes(&mut self, layout: &SlotOut, counts: &Counts, follow: &mut Follow, now: u64) {
        let mut burns = Vec::new();
        for vip in layout.vips.iter().filter(|vip| vip.protocol == "tcp") {
            let Some([control, _]) = counts.vips.get(&vip.number) else {
                continue;
            };
            let failed = control.started.saturating_sub(control.completed);
            let last = follow.told.insert(vip.number, (control.started, failed));
            let last = last.unwrap_or_default();
            let total = self.watching.totals.entry(vip.name.clone()).or_default();
            // What completes late makes failures fewer again: totals only rise.
            total.0 = total
                .0
                .saturating_add(control.started.saturating_sub(last.0));
            total.1 = total.1.saturating_add(failed.saturating_sub(last.1));
            let (flows, failed) = *total;
            let fresh = || BurnWatch::new(vip.name.clone(), ALLOWED);
            let watch = self.watching.burns.entry(vip.name.clone());
            burns.extend(watch.or_insert_with(fresh).round(flows, failed, now));
        }
        for burn in burns {
            self.tell_burn(&burn);
        }
    }

    fn tell_burn(&mut self, burn: &Burn) {
        // A page and a ticket about one VIP are two alerts.
        let about = (urgency(burn), burn.vip.clone());
        if burn.begins {
            let mut text = burn.to_string();
            let rate = self.watching.rates.per_second().get(&burn.vip).copied();
            let watch = self.watching.volumes.get(&burn.vip);
            if let (Some(rate), Some(usual)) = (rate, watch.and_then(VolumeWatch::usual)) {
                text = format!("{text}; new flows: {rate:.1} a second, {usual:.1} are usual");
            }
            self.alert(about, text);
        } else {
            self.alert_over(&about, &burn.to_string());
        }
    }

    /// S12 and S1: each backend against the rest of its pool.
    fn backends(&mut self, layout: &SlotOut, counts: &Counts, follow: &mut Follow, now: u64) {
        let (mut odd, mut standing) = (Vec::new(), Vec::new());
        for pool in &layout.pools {
            let flows = |backend: &readout::BackendOut| {
                let [control, _] = counts.members.get(&backend.id)?;
                Some(BackendFlows {
                    name: backend.name.clone(),
                    flows: control.mature,
                    completed: control.completed.min(control.mature),
                })
            };
            let flows: Vec<_> = pool.backends.iter().filter_map(flows).collect();
            let fresh = || PoolWatch::new(pool.name.clone());
            let watch = follow.pools.entry(pool.name.clone());
            let watch = watch.or_insert_with(fresh);
            odd.extend(watch.round(&flows, now));
            let about = |name: &str| format!("{}/{name}", pool.name);
            standing.extend(watch.standing(now).map(about));
        }
        for odd in odd {
            let about = ("backend", format!("{}/{}", odd.pool, odd.backend));
            self.alert(about, odd.to_string());
        }
        self.forget("backend", |about| standing.iter().any(|name| name == about));
    }

    /// Ends alerts of a kind that do not stand any more.
    fn forget(&mut self, kind: &str, stands: impl Fn(&str) -> bool) {
        for about in self.watching.alerts.of(kind) {
            if !stands(&about.1) {
                let text = format!("nothing odd about {} any more", about.1);
                self.alert_over(&about, &text);
            }
        }
    }
}

const fn urgency(burn: &Burn) -> &'static str {
    match burn.urgency {
        crate::evidence::burn::Urgency::Page => "handshakes",
        crate::evidence::burn::Urgency::Ticket => "handshakes-slowly",
    }
}

fn read(kernel: &Kernel, layout: &SlotOut) -> Result<Raw, KernelError> {
    let mut raw = Raw::default();
    for vip in &layout.vips {
        let arms = kernel.maps.evidence(&kernel.node, vip.number)?;
        raw.vips.insert(vip.number, arms);
    }
    for backend in layout.pools.iter().flat_map(|pool| &pool.backends) {
        let arms = kernel.maps.member_evidence(&kernel.node, backend.id)?;
        raw.members.insert(backend.id, arms);
    }
    Ok(raw)
}
