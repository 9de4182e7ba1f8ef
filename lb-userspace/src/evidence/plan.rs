//! What a change touches, and how sure a verdict has to be.

use serde::Serialize;

use super::noninferiority::Margin;
use super::shares::PoolShares;
use super::signals::Transport;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Its name in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// A VIP whose flows a change may move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Touched {
    /// Its id.
    pub vip: u16,
    /// Its name.
    pub name: String,
    /// Its pool in the new configuration.
    pub pool: String,
    /// Its family.
    pub family: Family,
    /// Whose signals it has. A VIP with flag `stateless` has those of UDP: its flows are not followed.
    pub transport: Transport,
    /// Whether the running configuration has it: a new one has no control arm.
    pub in_control: bool,
}

impl Touched {
    /// Whether traffic can prove it good. Others pass as "probe-verified".
    pub fn provable(&self) -> bool {
        self.in_control && self.transport != Transport::Udp
    }
}

/// All that the judge is told beforehand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// VIPs that the change touches.
    pub vips: Vec<Touched>,
    /// Pools that the change touches, for S11 and S12; may be empty.
    pub pools: Vec<PoolShares>,
    /// Chance that a harmless change is found guilty, over all of its steps.
    pub alpha: f64,
    /// Chance that an arm that is worse by `delta` passes a step.
    pub beta: f64,
    /// Difference of failing shares that a pass rules out.
    pub delta: f64,
    /// Smallest difference of shares that is acted on.
    pub floor: f64,
    /// The same for S4, S5 and S11, where distributions are compared.
    pub shape_floor: f64,
    /// Largest share of new flows that may go unfollowed.
    pub untracked: f64,
    /// Steps that there will be.
    pub steps: u32,
    /// Longest time of a step, ns.
    pub step_within_ns: u64,
    /// Shortest time of a step with VIPs that traffic can't prove, ns.
    pub dwell_ns: u64,
}

impl Plan {
    /// With the usual limits: alpha and beta 0.001, delta 5 points, floors 2 and 10 points, 5 %
    /// unfollowed; one step of ten minutes at most.
    pub fn new(vips: Vec<Touched>, pools: Vec<PoolShares>) -> Self {
        Self {
            vips,
            pools,
            alpha: 1e-3,
            beta: 1e-3,
            delta: 0.05,
            floor: 0.02,
            shape_floor: 0.10,
            untracked: 0.05,
            steps: 1,
            step_within_ns: 600_000_000_000,
            dwell_ns: 0,
        }
    }

    /// What a pass has to rule out.
    pub fn margin(&self) -> Margin {
        Margin {
            delta: self.delta,
            beta: self.beta,
        }
    }

    /// alpha of one step.
    pub(super) fn step_alpha(&self) -> f64 {
        self.alpha / f64::from(self.steps.max(1))
    }

    /// VIPs that can be compared: each has the same part of alpha.
    pub(super) fn strata(&self) -> u64 {
        self.vips.iter().filter(|vip| vip.in_control).count() as u64
    }

    /// Backends looked at by S11 and S12.
    pub(super) fn members(&self) -> u64 {
        self.pools
            .iter()
            .map(|pool| pool.members.len() as u64)
            .fold(0, u64::saturating_add)
    }
}
