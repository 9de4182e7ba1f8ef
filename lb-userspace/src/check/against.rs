//! Rules over the step from the committed configuration to a candidate.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::quic;
use super::rules::{EMPTY, POOL_DOUBLED, POOL_HALVED, SERVICE_MOVED, VIPS_HALVED};
use crate::config::{Config, Finding, Log, Pool};

/// What is doubtful about replacing `committed` by `candidate`; `file` is the candidate's name.
/// Findings have no lines, as both sides are configurations, not text.
pub fn check_against(committed: &Config, candidate: &Config, file: &str) -> Vec<Finding> {
    let mut log = Log::new(file);
    vips(committed, candidate, &mut log);
    for pool in &candidate.pools {
        if let Some(before) = committed.pool(&pool.name) {
            size(before, pool, &mut log);
        }
    }
    vip_services(committed, candidate, &mut log);
    quic::moved(committed, candidate, &mut log);
    backend_services(committed, candidate, &mut log);
    log.finish().0
}

fn vips(committed: &Config, candidate: &Config, log: &mut Log) {
    let before = committed.vips.len();
    let kept = committed
        .vips
        .iter()
        .filter(|vip| candidate.vip(&vip.name).is_some())
        .count();
    if candidate.vips.is_empty() && before > 0 {
        log.add(
            &EMPTY,
            0,
            format_args!("the candidate has no VIP, while {before} are running"),
            format_args!("{}", EMPTY.fix),
        );
    } else if before >= 4 && kept.saturating_mul(2) <= before {
        log.add(
            &VIPS_HALVED,
            0,
            format_args!("of {before} running VIPs only {kept} are in the candidate"),
            format_args!("{}", VIPS_HALVED.fix),
        );
    }
}

fn size(before: &Pool, after: &Pool, log: &mut Log) {
    let (old, new) = (before.in_table().count(), after.in_table().count());
    let rule = if old >= 2 && new.saturating_mul(2) <= old {
        &POOL_HALVED
    } else if old >= 2 && new >= old.saturating_mul(2) {
        &POOL_DOUBLED
    } else {
        return;
    };
    log.add(
        rule,
        0,
        format_args!(
            "pool `{}` goes from {old} active backends to {new}",
            after.name
        ),
        format_args!("{}", rule.fix),
    );
}

fn vip_services(committed: &Config, candidate: &Config, log: &mut Log) {
    for vip in &candidate.vips {
        let same = |old: &&crate::config::Vip| {
            (old.address, old.port, old.protocol) == (vip.address, vip.port, vip.protocol)
        };
        let Some(old) = committed.vips.iter().find(same) else {
            continue;
        };
        if old.service != vip.service {
            log.add(
                &SERVICE_MOVED,
                0,
                format_args!(
                    "{} port {} {} goes from service `{}` to `{}` (VIP `{}`)",
                    vip.address, vip.port, vip.protocol, old.service, vip.service, vip.name
                ),
                format_args!("Check that the address was meant to change service."),
            );
        }
    }
}

/// Servers that no pool of their new service had; one finding for each pool.
fn backend_services(committed: &Config, candidate: &Config, log: &mut Log) {
    let mut services: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for pool in &committed.pools {
        for backend in &pool.backends {
            services
                .entry(backend.address)
                .or_default()
                .push(&pool.service);
        }
    }
    for pool in &candidate.pools {
        let moved = pool.backends.iter().filter_map(|backend| {
            let old = services.get(&backend.address)?;
            let first = old.first()?;
            (!old.contains(&pool.service.as_str())).then_some((backend, *first))
        });
        let moved: Vec<_> = moved.collect();
        let Some((backend, old)) = moved.first() else {
            continue;
        };
        log.add(
            &SERVICE_MOVED,
            0,
            format_args!(
                "{} of the backends in pool `{}` of service `{}` served another one before: `{}` \
                 ({}) served `{old}`",
                moved.len(),
                pool.name,
                pool.service,
                backend.name,
                backend.address
            ),
            format_args!("{}", SERVICE_MOVED.fix),
        );
    }
}
