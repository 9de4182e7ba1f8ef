//! Rules about what a VIP's flags and a pool's keys make of flows.

use std::time::Duration;

use super::rules::{FLAGS_CONFLICT, HASH_DPORT_PORT, IDLE_TIMEOUT, MTU_TOO_SMALL, STATELESS_FLOWS};
use crate::config::{Draft, DraftPool, Lines, Log, OnDead, Pool, Vip, VipFlag};

/// The longest `idle_timeout`: the flow table counts 64 steps of 17.2 s, and a flow is kept for two
/// more than it must.
const LONGEST_IDLE: Duration = Duration::from_mins(15);
/// Smallest packets that must fit: RFC 791 (3.1), RFC 8200 (5).
const SMALLEST: [(bool, u16, &str); 2] = [(true, 576, "IPv4"), (false, 1280, "IPv6")];

/// The flags of one VIP.
pub fn vip(vip: &Vip, lines: &Lines, log: &mut Log) {
    let has = |flag| vip.flags.contains(&flag);
    if !has(VipFlag::HashDport) {
        return;
    }
    for other in [VipFlag::ClientAffinity, VipFlag::Quic] {
        if has(other) {
            log.add(
                &FLAGS_CONFLICT,
                lines.of("flags"),
                format_args!(
                    "VIP `{}` has flags `{}` and `{other}`, which contradict each other",
                    vip.name,
                    VipFlag::HashDport
                ),
                format_args!("{}", FLAGS_CONFLICT.fix),
            );
        }
    }
    if vip.port != 0 {
        log.add(
            &HASH_DPORT_PORT,
            lines.of("flags"),
            format_args!(
                "VIP `{}` has flag `{}` and port {}: all of it would go to one backend",
                vip.name,
                VipFlag::HashDport,
                vip.port
            ),
            format_args!("{}", HASH_DPORT_PORT.fix),
        );
    }
}

/// The keys of one pool.
pub fn pool(draft: &DraftPool, log: &mut Log) {
    let pool = &draft.pool;
    let Some(timeout) = pool.idle_timeout.filter(|time| *time > LONGEST_IDLE) else {
        return;
    };
    log.add(
        &IDLE_TIMEOUT,
        draft.lines.of("idle_timeout"),
        format_args!(
            "pool `{}` has idle_timeout {}, at most {} can be kept",
            pool.name,
            humantime::format_duration(timeout),
            humantime::format_duration(LONGEST_IDLE)
        ),
        format_args!("{}", IDLE_TIMEOUT.fix),
    );
}

/// What depends on who uses a pool.
pub fn uses(draft: &Draft, log: &mut Log) {
    for pool in &draft.pools {
        let vips = || {
            let uses = |vip: &&(Vip, Lines)| vip.0.pool == pool.pool.name;
            draft.vips.iter().filter(uses).map(|(vip, _)| vip)
        };
        for (v4, smallest, family) in SMALLEST {
            if vips().any(|vip| vip.address.is_ipv4() == v4) {
                mtu(pool, smallest, family, log);
            }
        }
        let stateless = vips().find(|vip| vip.flags.contains(&VipFlag::Stateless));
        if let Some(vip) = stateless {
            remembered(pool, vip, log);
        }
    }
}

fn mtu(draft: &DraftPool, smallest: u16, family: &str, log: &mut Log) {
    let pool = &draft.pool;
    let Some(mtu) = pool.mtu else {
        return;
    };
    let overhead = pool
        .backends
        .iter()
        .map(|backend| pool.forward.overhead(backend.address))
        .max()
        .unwrap_or(0);
    let need = smallest.saturating_add(overhead);
    if mtu < need {
        log.add(
            &MTU_TOO_SMALL,
            draft.lines.of("mtu"),
            format_args!(
                "pool `{}` has mtu {mtu}; {family} with {overhead} bytes of outer header needs \
                 {need}",
                pool.name
            ),
            format_args!("Raise it to {need} at least, or remove it."),
        );
    }
}

/// Keys that speak of remembered flows mean nothing where none are.
fn remembered(draft: &DraftPool, vip: &Vip, log: &mut Log) {
    let Pool {
        on_dead,
        idle_timeout,
        name,
        ..
    } = &draft.pool;
    let keys = [
        ("on_dead", *on_dead != OnDead::Move),
        ("idle_timeout", idle_timeout.is_some()),
    ];
    for (key, _) in keys.into_iter().filter(|(_, set)| *set) {
        log.add(
            &STATELESS_FLOWS,
            draft.lines.of(key),
            format_args!(
                "pool `{name}` has {key}, but VIP `{}` that uses it is stateless: none of its \
                 flows is remembered",
                vip.name
            ),
            format_args!("{}", STATELESS_FLOWS.fix),
        );
    }
}
