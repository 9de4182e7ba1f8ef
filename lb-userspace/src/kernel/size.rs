//! From `agent.toml` to the sizes and keys that the object is loaded with.

use std::time::Duration;

use lb_common::SLOTS;
use lb_common::address::Address;
use lb_common::flow::ORPHAN;
use lb_common::flow_table::{BLOCK_LINES, LOAD, MAX_LINES};
use lb_common::slot::{CHUNK_ENTRIES, Node};

use super::KernelError;
use super::object::{Limits, draw_keys};
use crate::config::{NodeConfig, Policy};

/// Places in a slot's VIP table for each VIP: so few that one overflows its probes in less than one
/// of a thousand full tables.
const PLACES_PER_VIP: u32 = 16;

/// Sizes by `agent.toml`, keys drawn anew.
pub fn node(config: &NodeConfig) -> Result<Node, KernelError> {
    let tables = &config.tables;
    let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
    let chunk = u32::try_from(CHUNK_ENTRIES).unwrap_or(32);
    let (source_v4, source_v4_mask) = source_v4(config);
    let (source_v6, source_v6_mask) = source_v6(config);
    draw_keys(Node {
        fleet_key: config.fleet_seed.get(),
        vip_places: tables
            .vips
            .saturating_mul(PLACES_PER_VIP)
            .next_power_of_two(),
        vips: tables.vips.min(u32::from(u16::MAX)),
        pools: tables.pools.min(u32::from(u16::MAX)),
        // Id 0 is "none"; the pools' regions leave room to grow.
        members: tables.backends.saturating_add(1).min(ORPHAN),
        tables: tables.pools.saturating_mul(slots).saturating_add(1),
        chunks: tables.lookup_entries.div_ceil(chunk).max(1),
        next_hops: tables.nexthops.saturating_add(1).min(u32::from(u16::MAX)),
        flow_lines: tables
            .flows
            .div_ceil(LOAD)
            .next_power_of_two()
            .clamp(BLOCK_LINES, MAX_LINES),
        flood_rate: tables.flood_rate,
        source_v4,
        source_v4_mask,
        source_v6,
        source_v6_mask,
        ..Node::default()
    })
}

fn source_v4(config: &NodeConfig) -> (u32, u32) {
    let Some(prefix) = config.encap_source_v4 else {
        return (0, 0);
    };
    let host = u32::MAX.checked_shr(u32::from(prefix.len)).unwrap_or(0);
    (u32::from_ne_bytes(prefix.address.octets()), host.to_be())
}

fn source_v6(config: &NodeConfig) -> ([u32; 4], u32) {
    let Some(prefix) = config.encap_source_v6 else {
        return ([0; 4], 0);
    };
    // Entropy goes into the last 32 bits, as far as they are the prefix's own.
    let host = u32::MAX
        .checked_shr(u32::from(prefix.len).saturating_sub(96))
        .unwrap_or(0);
    (Address::v6(prefix.address.octets()).words(), host.to_be())
}

/// What `policy.toml` tells the guard.
pub fn limits(policy: &Policy) -> Limits {
    let ppm = |percent: u8| u32::from(percent).saturating_mul(10_000);
    let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    Limits {
        digest: policy.digest().0,
        r1_ppm: ppm(policy.r1_moved),
        r2_ppm: ppm(policy.r2_moved),
        max_deadline_ms: millis(policy.confirm_within_max),
        flips: policy.changes,
        flip_every_ms: millis(policy.change_every),
        ejected_ppm: ppm(policy.ejected_max),
        hard_events: policy.hard_events,
        ..Limits::default()
    }
}
