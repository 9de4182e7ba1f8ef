//! What lies in the kernel, as data: for `status`, tests and drift checks. Needs the pins alone.

use std::net::IpAddr;

use lb_common::control::{Cause, NO_SLOT, control_flag};
use lb_common::counter::{Reason, Verdict};
use lb_common::slot::{Member, PoolEntry, forward_mode, member_state, next_hop_flag, vip_kind};
use lb_common::{SLOTS, TEST_SET};
use serde::Serialize;

use super::KernelError;
use super::maps::Maps;
use crate::config::Digest;

/// One generation in a slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotOut {
    /// Slot number.
    pub slot: u8,
    /// Generation.
    pub generation: u64,
    /// Digest of the configuration.
    pub digest: String,
    /// VIPs.
    pub vips: Vec<VipOut>,
    /// Pools.
    pub pools: Vec<PoolOut>,
}

/// A VIP.
#[derive(Clone, Debug, Serialize)]
pub struct VipOut {
    /// Number.
    #[serde(skip)]
    pub number: u16,
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Port, 0 = any.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Pool.
    pub pool: String,
    /// Packets forwarded since load, by this slot.
    pub packets: u64,
    /// Bytes forwarded since load, by this slot.
    pub bytes: u64,
    /// TCP SYNs among them.
    pub syns: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// A pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolOut {
    /// Name.
    pub name: String,
    /// Forwarding mode.
    pub forward: &'static str,
    /// Backends.
    pub backends: Vec<BackendOut>,
}

/// A backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendOut {
    /// Member id.
    #[serde(skip)]
    pub id: u32,
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Weight.
    pub weight: u32,
    /// `up`, `drain` or `down`.
    pub state: &'static str,
    /// Whether the next hop's address is known.
    pub next_hop: bool,
    /// Packets sent to it since load, by this slot.
    pub packets: u64,
}

/// The trial.
#[derive(Clone, Debug, Serialize)]
pub struct TrialOut {
    /// Share of new flows, ppm.
    pub share_ppm: u64,
    /// Milliseconds to the confirm deadline.
    pub deadline_in_ms: u64,
    /// Milliseconds to the end of the lease; `None` if none is armed.
    pub lease_in_ms: Option<u64>,
    /// Class the guard computed.
    pub class: u32,
}

/// How the last change or generation ended.
#[derive(Clone, Debug, Serialize)]
pub struct EndOut {
    /// Generation.
    pub generation: u64,
    /// Why.
    pub cause: &'static str,
    /// Who: a user id; `None` = the kernel.
    pub by_uid: Option<u32>,
    /// Seconds ago.
    pub seconds_ago: u64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct KernelOut {
    /// Layout number of the pins.
    pub abi: u32,
    /// Committed.
    pub active: SlotOut,
    /// Last known good.
    pub lkg: Option<SlotOut>,
    /// On trial.
    pub shadow: Option<SlotOut>,
    /// The trial, if one lives.
    pub trial: Option<TrialOut>,
    /// The last end.
    pub last_end: Option<EndOut>,
    /// Whether forward flips are frozen.
    pub frozen: bool,
    /// Whether the breaker has tripped and nobody has acknowledged it.
    pub latched: bool,
    /// Digest of the policy that holds.
    pub policy: String,
    /// Milliseconds since the deadman's timer last ticked.
    pub timer_ms_ago: u64,
    /// Times that the timer had to be started again.
    pub timer_restarts: u64,
    /// The flow table.
    pub flows: FlowsOut,
    /// Packets by outcome since load, over all slots.
    pub reasons: Vec<ReasonOut>,
}

/// The flow table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FlowsOut {
    /// Flows that are remembered, about.
    pub remembered: u64,
    /// Flows of dead backends that were forgotten by sweeps, since load.
    pub purged: u64,
}

/// Packets of one outcome.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonOut {
    /// Name.
    pub reason: &'static str,
    /// `forward`, `reply`, `pass` or `drop`.
    pub verdict: &'static str,
    /// Packets.
    pub packets: u64,
}

/// Reads everything.
pub fn read(maps: &Maps) -> Result<KernelOut, KernelError> {
    let record = maps
        .record()?
        .ok_or_else(|| KernelError::NoAnswer("the guard has not been started".to_owned()))?;
    let (control, room) = (maps.control()?, maps.flow_room()?);
    let now = crate::sys::boot_ns();
    let in_ms = |due: u64| due.saturating_sub(now) / 1_000_000;
    let on_trial = record.flags & control_flag::TRIAL != 0 && record.trial_lives(now);
    let trial = if on_trial {
        Some(TrialOut {
            share_ppm: u64::from(record.share) * 1_000_000
                / u64::from(lb_common::control::SHARE_ALL),
            deadline_in_ms: in_ms(record.deadline_ns),
            lease_in_ms: (record.lease_ns != 0).then(|| in_ms(record.lease_ns)),
            class: maps.header(record.shadow)?.class,
        })
    } else {
        None
    };
    let last_end = (record.ended_ns != 0).then(|| EndOut {
        generation: record.ended_generation,
        cause: Cause::from_code(record.cause).as_str(),
        by_uid: (record.ended_by != u32::MAX).then_some(record.ended_by),
        seconds_ago: now.saturating_sub(record.ended_ns) / 1_000_000_000,
    });
    let optional = |slot: u8, there: bool| -> Result<Option<SlotOut>, KernelError> {
        if there && slot != NO_SLOT {
            read_slot(maps, slot).map(Some)
        } else {
            Ok(None)
        }
    };
    Ok(KernelOut {
        abi: lb_common::ABI,
        active: read_slot(maps, record.active)?,
        lkg: optional(record.lkg, true)?,
        shadow: optional(record.shadow, on_trial)?,
        trial,
        last_end,
        frozen: record.flags & control_flag::FROZEN != 0,
        latched: record.flags & control_flag::LATCHED != 0,
        policy: Digest(maps.policy()?.digest).to_string(),
        timer_ms_ago: now.saturating_sub(control.ticked_ns.max(control.started_ns)) / 1_000_000,
        timer_restarts: control.restarts,
        flows: FlowsOut {
            remembered: room.entries,
            purged: room.purged,
        },
        reasons: read_reasons(maps)?,
    })
}

fn read_reasons(maps: &Maps) -> Result<Vec<ReasonOut>, KernelError> {
    let mut sums = vec![0u64; lb_common::counter::REASONS];
    for set in 0..TEST_SET {
        for (sum, count) in sums.iter_mut().zip(maps.reasons(set)?.packets) {
            *sum = sum.wrapping_add(count);
        }
    }
    Ok(Reason::ALL
        .iter()
        .filter_map(|reason| {
            let packets = *sums.get(*reason as usize)?;
            (packets > 0).then(|| ReasonOut {
                reason: reason.label(),
                verdict: verdict(*reason),
                packets,
            })
        })
        .collect())
}

fn verdict(reason: Reason) -> &'static str {
    match reason.verdict() {
        Verdict::Forward => "forward",
        Verdict::Reply => "reply",
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    }
}

/// Reads one slot.
pub fn read_slot(maps: &Maps, slot: u8) -> Result<SlotOut, KernelError> {
    let node = maps.node()?;
    let header = maps.header(slot)?;
    let mut vips = Vec::new();
    for place in 0..node.vip_places {
        let Some(entry) = maps.vip(&node, slot, place) else {
            break;
        };
        if entry.kind != vip_kind::VIP {
            continue;
        }
        let counters = maps.vip_counters(&node, u32::from(slot), entry.vip)?;
        vips.push(VipOut {
            number: entry.vip,
            name: maps.vip_name(entry.vip)?,
            address: entry.address.into(),
            port: u16::from_be(entry.port),
            protocol: if entry.protocol == lb_common::wire::ip_proto::TCP {
                "tcp"
            } else {
                "udp"
            },
            pool: maps.pool_name(entry.pool)?,
            packets: counters.packets,
            bytes: counters.bytes,
            syns: counters.syns,
            dropped: counters.dropped,
        });
    }
    vips.sort_by(|a, b| a.name.cmp(&b.name));
    let mut pools = Vec::new();
    for number in 0..u16::try_from(node.pools).unwrap_or(u16::MAX) {
        let entry = maps.pool(&node, slot, number)?;
        if entry.table != 0 && entry.generation == header.generation {
            pools.push(read_pool(maps, slot, number, &entry)?);
        }
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(SlotOut {
        slot,
        generation: header.generation,
        digest: Digest(header.digest).to_string(),
        vips,
        pools,
    })
}

fn read_pool(
    maps: &Maps,
    slot: u8,
    number: u16,
    entry: &PoolEntry,
) -> Result<PoolOut, KernelError> {
    let node = maps.node()?;
    let bit = 1u8.checked_shl(u32::from(slot)).unwrap_or(0);
    let mut backends = Vec::new();
    for id in entry.member_base..=entry.member_base.saturating_add(entry.member_limit) {
        let Some(member) = maps
            .member(id)
            .filter(|m| m.slots & bit != 0 && m.pool == number)
        else {
            continue;
        };
        let resolved = match member.next_hop {
            0 => false,
            hop => maps.next_hop(u32::from(hop))?.flags & next_hop_flag::RESOLVED != 0,
        };
        backends.push(BackendOut {
            id,
            name: maps.member_name(id)?,
            address: member.address.into(),
            weight: weight(&member, slot),
            state: state(&member, bit),
            next_hop: resolved,
            packets: maps.member_counters(&node, u32::from(slot), id)?.packets,
        });
    }
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    let forward = match entry.forward {
        forward_mode::L2 => "l2",
        forward_mode::GUE => "gue",
        _ => "ipip",
    };
    Ok(PoolOut {
        name: maps.pool_name(number)?,
        forward,
        backends,
    })
}

fn weight(member: &Member, slot: u8) -> u32 {
    let own = member.weights.get(usize::from(slot));
    own.copied().unwrap_or_default()
}

fn state(member: &Member, bit: u8) -> &'static str {
    match member.state {
        member_state::DOWN => "down",
        _ if member.drains & bit != 0 || member.state == member_state::DRAIN => "drain",
        _ => "up",
    }
}

const _: () = assert!(SLOTS == 3);
