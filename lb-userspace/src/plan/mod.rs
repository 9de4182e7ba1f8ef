//! What a configuration would change: the same figures that the guard computes when it seals a slot,
//! before anything is written.
//!
//! A plan has a digest. `apply --plan` names it, and is refused when the change would do anything
//! else by then. Pure: configurations in, a plan out.

mod moved;
pub mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::invariant::{self, Step};
use lb_common::maglev::MaglevError;
use serde::Serialize;

use crate::change::diff::{Difference, diff};
use crate::config::{Config, Digest, FleetSeed, Policy, Protocol, Vip, VipFlag};
use crate::evidence::plan::{Family, Touched};
use crate::evidence::signals::Transport;

/// What becomes of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Only the new configuration has it.
    In,
    /// Only the old one has it.
    Out,
    /// Some of its table moves, or its forwarding mode changes.
    Changed,
    /// Every new flow goes where it went.
    Same,
}

/// A VIP in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VipPlan {
    /// Its name, the new one if it changes.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Share of its lookup table that moves, ppm, rounded up: as the guard counts it.
    pub moved_ppm: u32,
    /// Whether its forwarding mode changes.
    pub encap_changed: bool,
    /// The port-0 VIP of its address that has its flows before, if it comes in, or afterwards, if it
    /// goes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_port: Option<String>,
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Generation that it starts from.
    pub base: u64,
    /// Digest of the configuration that would be applied.
    pub config: Digest,
    /// Class, 0 to 3, as the guard will compute it under the policy.
    pub class: u32,
    /// Every VIP of either configuration, by name.
    pub vips: Vec<VipPlan>,
    /// VIPs that would use a pool of another service than their own.
    pub cross_service: Vec<String>,
    /// What differs, by name.
    pub differences: Vec<Difference>,
}

/// A VIP is known by what clients use, as in the kernel.
type Key = (IpAddr, u16, Protocol);

fn key(vip: &Vip) -> Key {
    (vip.address, vip.port, vip.protocol)
}

/// Where its flows go without it.
fn any_port(vip: &Vip) -> Key {
    (vip.address, 0, vip.protocol)
}

impl Plan {
    /// The plan of going from `old`, which is generation `base`, to `new`.
    ///
    /// # Errors
    /// A pool whose table cannot be filled; the checks refuse such a configuration.
    pub fn of(
        old: &Config,
        new: &Config,
        base: u64,
        seed: FleetSeed,
        policy: &Policy,
    ) -> Result<Self, MaglevError> {
        // Hashing the whole configuration takes as long as all the rest.
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| new.digest());
            let plan = Self::without_digest(old, new, base, seed, policy)?;
            Ok(Self {
                config: digest.join().unwrap_or_else(|_| new.digest()),
                ..plan
            })
        })
    }

    /// All but the configuration's digest.
    fn without_digest(
        old: &Config,
        new: &Config,
        base: u64,
        seed: FleetSeed,
        policy: &Policy,
    ) -> Result<Self, MaglevError> {
        let mut tables = moved::Tables::new(seed);
        let before: BTreeMap<Key, &Vip> = old.vips.iter().map(|vip| (key(vip), vip)).collect();
        let mut vips = Vec::with_capacity(new.vips.len());
        for vip in &new.vips {
            vips.push(match (before.get(&key(vip)), before.get(&any_port(vip))) {
                (Some(was), _) => tables.compare(old, was, new, vip)?,
                (None, Some(was)) => VipPlan {
                    fate: Fate::In,
                    any_port: Some(was.name.clone()),
                    ..tables.compare(old, was, new, vip)?
                },
                (None, None) => VipPlan {
                    fate: Fate::In,
                    ..VipPlan::same(vip)
                },
            });
        }
        let now: BTreeMap<Key, &Vip> = new.vips.iter().map(|vip| (key(vip), vip)).collect();
        let gone = old.vips.iter().filter(|vip| !now.contains_key(&key(vip)));
        vips.extend(gone.map(|vip| VipPlan {
            fate: Fate::Out,
            any_port: now.get(&any_port(vip)).map(|vip| vip.name.clone()),
            ..VipPlan::same(vip)
        }));
        vips.sort_by(|a, b| a.name.cmp(&b.name));
        let class = invariant::classify(&step(&vips), ppm(policy.r1_moved), ppm(policy.r2_moved));
        Ok(Self {
            base,
            config: Digest([0; 32]),
            class: class as u32,
            cross_service: cross_service(new),
            differences: diff(old, new),
            vips,
        })
    }

    /// Digest of the plan: of everything that it says.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The VIPs of `new` whose flows it moves, as they are judged on their traffic.
    pub fn touched(&self, new: &Config) -> Vec<Touched> {
        let gone = self.vips.iter().filter(|vip| vip.fate == Fate::Out);
        let heirs: BTreeSet<&str> = gone.filter_map(|vip| vip.any_port.as_deref()).collect();
        let moved = self.vips.iter().filter(|vip| match vip.fate {
            Fate::In => true,
            Fate::Changed if vip.moved_ppm > 0 || vip.encap_changed => true,
            Fate::Changed | Fate::Same => heirs.contains(vip.name.as_str()),
            Fate::Out => false,
        });
        let touched = moved.filter_map(|plan| {
            let vip = new.vips.iter().find(|vip| vip.name == plan.name)?;
            Some(Touched {
                vip: 0,
                name: vip.name.clone(),
                pool: vip.pool.clone(),
                family: if vip.address.is_ipv4() {
                    Family::Ipv4
                } else {
                    Family::Ipv6
                },
                transport: match vip.protocol {
                    // What nothing remembers is not followed.
                    _ if vip.flags.contains(&VipFlag::Stateless) => Transport::Udp,
                    Protocol::Tcp => Transport::Tcp,
                    Protocol::Udp if vip.flags.contains(&VipFlag::Quic) => Transport::Quic,
                    Protocol::Udp => Transport::Udp,
                },
                in_control: plan.fate != Fate::In || plan.any_port.is_some(),
            })
        });
        touched.collect()
    }

    /// VIPs with this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.vips.iter().filter(|vip| vip.fate == fate).count()
    }

    /// The largest share of one VIP's table that moves, ppm.
    pub fn moved_ppm(&self) -> u32 {
        self.vips.iter().map(|vip| vip.moved_ppm).max().unwrap_or(0)
    }
}

impl VipPlan {
    fn same(vip: &Vip) -> Self {
        Self {
            name: vip.name.clone(),
            fate: Fate::Same,
            moved_ppm: 0,
            encap_changed: false,
            any_port: None,
        }
    }
}

fn ppm(percent: u8) -> u32 {
    u32::from(percent).saturating_mul(10_000)
}

/// The plan in the guard's numbers.
fn step(vips: &[VipPlan]) -> Step {
    let count = |which: &dyn Fn(&&VipPlan) -> bool| {
        u32::try_from(vips.iter().filter(which).count()).unwrap_or(u32::MAX)
    };
    Step {
        added: count(&|vip| vip.fate == Fate::In),
        removed: count(&|vip| vip.fate == Fate::Out),
        changed: count(&|vip| vip.moved_ppm > 0),
        encap: count(&|vip| vip.encap_changed),
        moved_ppm: vips.iter().map(|vip| vip.moved_ppm).max().unwrap_or(0),
    }
}

fn cross_service(config: &Config) -> Vec<String> {
    config
        .vips
        .iter()
        .filter(|vip| {
            config
                .pool(&vip.pool)
                .is_some_and(|pool| pool.service != vip.service)
        })
        .map(|vip| vip.name.clone())
        .collect()
}
