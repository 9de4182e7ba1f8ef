//! Rules about pools, their lookup tables and the kernel's capacity.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::maglev::{MAX_TABLE, MIN_TABLE, is_prime, is_table_size};

use super::rules::{
    ENCAP_SOURCE, HEALTH_TIMING, MAX_SHARE, MIN_BACKENDS, NO_BACKEND, NO_ROOM, ONE_BACKEND,
    TABLE_SIZE, TABLE_TOO_SMALL, TABLES_FULL,
};
use crate::config::{Draft, DraftPool, Forward, Log, NodeConfig, Pool};
use crate::kernel::server_ids;

/// Entries that one element of a lookup table holds; tables take whole elements.
const CHUNK: u64 = lb_common::slot::CHUNK_ENTRIES as u64;
/// Most backends of a pool: their numbers are u16, and 0 means none.
const MAX_BACKENDS: usize = 65_535;

/// Everything about one pool.
pub fn one(draft: &DraftPool, node: &NodeConfig, log: &mut Log) {
    let active = draft.pool.in_table().count();
    if active == 0 {
        no_backend(draft, log);
    } else {
        enough_backends(draft, active, log);
    }
    if is_table_size(draft.pool.table_size) {
        if active > 0 {
            shares(draft, log);
        }
    } else {
        table_size(draft, log);
    }
    encap_source(draft, node, log);
    health_timing(draft, log);
}

fn no_backend(draft: &DraftPool, log: &mut Log) {
    let count = draft.pool.backends.len();
    let why = match count {
        0 => "it has none".to_owned(),
        _ => format!("all {count} have weight 0, or are drained or disabled"),
    };
    log.add(
        &NO_BACKEND,
        draft.lines.header(),
        format_args!(
            "pool `{}` has no backend that takes new flows: {why}",
            draft.pool.name
        ),
        format_args!("{}", NO_BACKEND.fix),
    );
}

fn enough_backends(draft: &DraftPool, active: usize, log: &mut Log) {
    let (name, min) = (&draft.pool.name, draft.pool.min_backends);
    if u32::try_from(active).is_ok_and(|active| active < min) {
        log.add(
            &MIN_BACKENDS,
            draft.lines.of("min_backends"),
            format_args!("pool `{name}` has {active} active backends, min_backends is {min}"),
            format_args!("{}", MIN_BACKENDS.fix),
        );
    } else if active == 1 {
        log.add(
            &ONE_BACKEND,
            draft.lines.header(),
            format_args!("pool `{name}` has only one active backend"),
            format_args!("{}", ONE_BACKEND.fix),
        );
    }
}

fn table_size(draft: &DraftPool, log: &mut Log) {
    let size = draft.pool.table_size;
    let wanted = size.clamp(MIN_TABLE, MAX_TABLE);
    let below = (MIN_TABLE..=wanted)
        .rev()
        .find(|n| is_prime(*n))
        .unwrap_or(MIN_TABLE);
    let above = (wanted..=MAX_TABLE)
        .find(|n| is_prime(*n))
        .unwrap_or(MAX_TABLE);
    let near = if below == above {
        below.to_string()
    } else {
        format!("{below} or {above}")
    };
    let problem = if wanted == size {
        "not a prime"
    } else {
        "out of range"
    };
    log.add(
        &TABLE_SIZE,
        draft.lines.of("table_size"),
        format_args!(
            "pool `{}` has table_size {size}, which is {problem}",
            draft.pool.name
        ),
        format_args!("Nearest that works: {near}. 65537 suits most pools."),
    );
}

/// Shares of single backends: at least one entry, at most the cap.
fn shares(draft: &DraftPool, log: &mut Log) {
    let pool = &draft.pool;
    let (size, sum) = (u128::from(pool.table_size), u128::from(pool.weight_sum()));
    for (backend, lines) in pool.backends.iter().zip(&draft.backends) {
        let weight = u128::from(backend.table_weight());
        if weight > 0 && size.saturating_mul(weight) < sum {
            log.add(
                &TABLE_TOO_SMALL,
                lines.of("weight"),
                format_args!(
                    "backend `{}` in pool `{}` has weight {weight} of {sum}: less than one of \
                     the table's {size} entries",
                    backend.name, pool.name
                ),
                format_args!("{}", TABLE_TOO_SMALL.fix),
            );
        }
        let Some(cap) = pool.max_share_ppm.map(u128::from) else {
            continue;
        };
        if weight.saturating_mul(1_000_000) > sum.saturating_mul(cap) {
            let percent = weight.saturating_mul(100).checked_div(sum).unwrap_or(0);
            log.add(
                &MAX_SHARE,
                lines.of("weight"),
                format_args!(
                    "backend `{}` has {percent} % of pool `{}`, max_share is {} %",
                    backend.name,
                    pool.name,
                    f64::from(pool.max_share_ppm.unwrap_or(0)) / 10_000.0
                ),
                format_args!("{}", MAX_SHARE.fix),
            );
        }
    }
}

fn encap_source(draft: &DraftPool, node: &NodeConfig, log: &mut Log) {
    if draft.pool.forward == Forward::L2 {
        return;
    }
    let lacks = |v4: bool| {
        let there = if v4 {
            node.encap_source_v4.is_some()
        } else {
            node.encap_source_v6.is_some()
        };
        !there
            && draft
                .pool
                .backends
                .iter()
                .any(|b| b.address.is_ipv4() == v4)
    };
    for (v4, family, key) in [
        (true, "IPv4", "encap_source_v4"),
        (false, "IPv6", "encap_source_v6"),
    ] {
        if lacks(v4) {
            log.add(
                &ENCAP_SOURCE,
                draft.lines.of("forward"),
                format_args!(
                    "pool `{}` sends {} to {family} backends, but agent.toml has no {key}",
                    draft.pool.name, draft.pool.forward
                ),
                format_args!(
                    "Add {key} = \"<an address of this host>\" to agent.toml, then restart the \
                     agent."
                ),
            );
        }
    }
}

fn health_timing(draft: &DraftPool, log: &mut Log) {
    let Some(health) = draft
        .pool
        .health
        .as_ref()
        .filter(|h| h.timeout >= h.interval)
    else {
        return;
    };
    log.add(
        &HEALTH_TIMING,
        draft.lines.of("health"),
        format_args!(
            "the health check of pool `{}` may take {}, but runs every {}",
            draft.pool.name,
            humantime::format_duration(health.timeout),
            humantime::format_duration(health.interval)
        ),
        format_args!("{}", HEALTH_TIMING.fix),
    );
}

/// All of it fits the tables of this host.
pub fn capacity(draft: &Draft, node: &NodeConfig, log: &mut Log) {
    let pools = || draft.pools.iter().map(|p| &p.pool);
    let backends: usize = pools().map(|pool| pool.backends.len()).sum();
    let on_segment: BTreeSet<IpAddr> = pools()
        .filter(|pool| pool.forward == Forward::L2)
        .flat_map(|pool| pool.backends.iter().map(|b| b.address))
        .collect();
    let entries: u64 = pools().map(entries_of).fold(0, u64::saturating_add);
    let tables = &node.tables;
    let limits = [
        ("VIPs", draft.vips.len() as u64, "vips", tables.vips),
        ("pools", draft.pools.len() as u64, "pools", tables.pools),
        ("backends", backends as u64, "backends", tables.backends),
        (
            "l2 backends",
            on_segment.len() as u64,
            "nexthops",
            tables.nexthops,
        ),
        (
            "lookup table entries",
            entries,
            "lookup_entries",
            tables.lookup_entries,
        ),
    ];
    for (what, count, key, limit) in limits {
        if count > u64::from(limit) {
            log.add(
                &TABLES_FULL,
                0,
                format_args!("{count} {what}, but the kernel table has room for {limit}"),
                format_args!("Raise `{key}` in agent.toml [tables] and reload, or use fewer."),
            );
        }
    }
    room_for_a_change(entries, tables.lookup_entries.into(), log);
    for draft in &draft.pools {
        numbers_suffice(draft, log);
    }
}

fn room_for_a_change(entries: u64, limit: u64, log: &mut Log) {
    if entries <= limit && entries.saturating_mul(3) > limit {
        log.add(
            &NO_ROOM,
            0,
            format_args!(
                "the pools need {entries} lookup table entries; three times as many do not fit \
                 the {limit} there are"
            ),
            format_args!("{}", NO_ROOM.fix),
        );
    }
}

fn numbers_suffice(draft: &DraftPool, log: &mut Log) {
    if draft.pool.backends.len() > MAX_BACKENDS {
        log.add(
            &TABLES_FULL,
            draft.lines.header(),
            format_args!(
                "pool `{}` has more than {MAX_BACKENDS} backends",
                draft.pool.name
            ),
            format_args!("Split the pool."),
        );
    }
}

/// Lookup table and index of server ids.
fn entries_of(pool: &Pool) -> u64 {
    let ids = pool.backends.iter().filter(|b| b.quic_id.is_some()).count();
    let table = u64::from(pool.table_size)
        .div_ceil(CHUNK)
        .saturating_mul(CHUNK);
    table.saturating_add(server_ids::entries(ids) as u64)
}
