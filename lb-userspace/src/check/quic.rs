//! Rules about QUIC VIPs and the server ids of their backends.

use std::collections::BTreeMap;

use super::rules::{QUIC_ID_MISSING, QUIC_ID_MOVED, QUIC_ID_TAKEN, QUIC_ID_WIDE, QUIC_PROTOCOL};
use crate::config::{BackendState, Config, Draft, DraftPool, Log, Pool, Protocol, VipFlag};

/// The ids of one pool: each once, and within its bytes.
pub fn pool(draft: &DraftPool, log: &mut Log) {
    let mut first: BTreeMap<u32, &str> = BTreeMap::new();
    for (backend, lines) in draft.pool.backends.iter().zip(&draft.backends) {
        let Some(id) = backend.quic_id else {
            continue;
        };
        let what = format!("backend `{}` in pool `{}`", backend.name, draft.pool.name);
        let other = *first.entry(id).or_insert(&backend.name);
        if other != backend.name {
            log.add(
                &QUIC_ID_TAKEN,
                lines.of("quic_id"),
                format_args!("{what} has quic_id {id}, as backend `{other}` has"),
                format_args!("{}", QUIC_ID_TAKEN.fix),
            );
        }
        let bytes = draft.pool.quic_id_bytes.unwrap_or(4);
        if u64::from(id) >> (u32::from(bytes).saturating_mul(8)) != 0 {
            log.add(
                &QUIC_ID_WIDE,
                lines.of("quic_id"),
                format_args!("{what} has quic_id {id}, which takes more than {bytes} bytes"),
                format_args!("{}", QUIC_ID_WIDE.fix),
            );
        }
    }
}

/// What a VIP with the flag asks of itself and of its pool.
pub fn uses(draft: &Draft, log: &mut Log) {
    for (vip, lines) in &draft.vips {
        if !vip.flags.contains(&VipFlag::Quic) {
            continue;
        }
        if vip.protocol != Protocol::Udp {
            log.add(
                &QUIC_PROTOCOL,
                lines.of("flags"),
                format_args!("VIP `{}` has flag `quic` and is {}", vip.name, vip.protocol),
                format_args!("{}", QUIC_PROTOCOL.fix),
            );
        }
        for pool in draft.pools.iter().filter(|pool| pool.pool.name == vip.pool) {
            missing(&vip.name, pool, log);
        }
    }
}

fn missing(vip: &str, draft: &DraftPool, log: &mut Log) {
    for (backend, lines) in draft.pool.backends.iter().zip(&draft.backends) {
        if backend.quic_id.is_some() || backend.state == BackendState::Disabled {
            continue;
        }
        log.add(
            &QUIC_ID_MISSING,
            lines.of("name"),
            format_args!(
                "backend `{}` in pool `{}` has no quic_id, but VIP `{vip}` routes by it",
                backend.name, draft.pool.name
            ),
            format_args!("{}", QUIC_ID_MISSING.fix),
        );
    }
}

/// Ids that another backend has now; one finding for each.
pub fn moved(committed: &Config, candidate: &Config, log: &mut Log) {
    for pool in &candidate.pools {
        let Some(before) = committed.pool(&pool.name) else {
            continue;
        };
        let owners = |pool: &Pool| -> BTreeMap<u32, String> {
            let ids = pool.backends.iter();
            ids.filter_map(|b| Some((b.quic_id?, b.name.clone())))
                .collect()
        };
        let old = owners(before);
        for (id, name) in owners(pool) {
            let Some(was) = old.get(&id).filter(|was| **was != name) else {
                continue;
            };
            log.add(
                &QUIC_ID_MOVED,
                0,
                format_args!(
                    "pool `{}`: quic_id {id} goes from backend `{was}` to `{name}`",
                    pool.name
                ),
                format_args!("{}", QUIC_ID_MOVED.fix),
            );
        }
    }
}
