//! Rules about names and what refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::rules::{
    NAME_MEANS_TWO, NO_VIP, SAME_NAME, SAME_VIP, SERVICE, UNKNOWN_POOL, UNUSED_POOL,
};
use crate::config::{Draft, Lines, Log, Pool, Vip, closest};

/// Names and VIP addresses are unique.
pub fn unique(draft: &Draft, log: &mut Log) {
    let vips = draft
        .vips
        .iter()
        .map(|(vip, lines)| (vip.name.as_str(), lines));
    same_names("VIP", "", vips, log);
    let pools = draft.pools.iter().map(|p| (p.pool.name.as_str(), &p.lines));
    same_names("pool", "", pools, log);
    for pool in &draft.pools {
        let names = pool.pool.backends.iter().map(|b| b.name.as_str());
        let within = format!(" in pool `{}`", pool.pool.name);
        same_names("backend", &within, names.zip(&pool.backends), log);
    }
    same_vips(draft, log);
    backend_names(draft, log);
}

fn same_names<'d>(
    kind: &str,
    within: &str,
    things: impl Iterator<Item = (&'d str, &'d Lines)>,
    log: &mut Log,
) {
    let mut first = BTreeMap::new();
    for (name, lines) in things {
        if let Some(line) = first.insert(name, lines.header()) {
            first.insert(name, line);
            log.add(
                &SAME_NAME,
                lines.of("name"),
                format_args!("{kind} `{name}` is there twice{within}, first on line {line}"),
                format_args!("{}", SAME_NAME.fix),
            );
        }
    }
}

fn same_vips(draft: &Draft, log: &mut Log) {
    let mut first: BTreeMap<_, (&Vip, usize)> = BTreeMap::new();
    for (vip, lines) in &draft.vips {
        let key = (vip.address, vip.port, vip.protocol);
        let Some((other, line)) = first.insert(key, (vip, lines.header())) else {
            continue;
        };
        first.insert(key, (other, line));
        log.add(
            &SAME_VIP,
            lines.of("address"),
            format_args!(
                "VIP `{}` is {} port {} {}, as VIP `{}` on line {line} is already",
                vip.name, vip.address, vip.port, vip.protocol, other.name
            ),
            format_args!("{}", SAME_VIP.fix),
        );
    }
}

fn backend_names(draft: &Draft, log: &mut Log) {
    let mut first: BTreeMap<&str, (IpAddr, &str)> = BTreeMap::new();
    for pool in &draft.pools {
        for (backend, lines) in pool.pool.backends.iter().zip(&pool.backends) {
            let here = (backend.address, pool.pool.name.as_str());
            let (address, other) = *first.entry(&backend.name).or_insert(here);
            // Within one pool it is a duplicate name, reported as such.
            if address != backend.address && other != pool.pool.name {
                log.add(
                    &NAME_MEANS_TWO,
                    lines.of("address"),
                    format_args!(
                        "backend `{}` is {} in pool `{}`, but {address} in pool `{other}`",
                        backend.name, backend.address, pool.pool.name
                    ),
                    format_args!("{}", NAME_MEANS_TWO.fix),
                );
            }
        }
    }
}

/// VIPs refer to pools that exist and are their service's; pools are used.
pub fn references(draft: &Draft, log: &mut Log) {
    let pools: BTreeMap<&str, (&Pool, &Lines)> = draft
        .pools
        .iter()
        .map(|p| (p.pool.name.as_str(), (&p.pool, &p.lines)))
        .collect();
    let mut used = BTreeSet::new();
    for (vip, lines) in &draft.vips {
        match pools.get(vip.pool.as_str()) {
            None => unknown_pool(vip, lines, &pools, log),
            Some((pool, pool_lines)) => {
                used.insert(pool.name.as_str());
                if pool.service != vip.service {
                    wrong_service(vip, lines, pool, pool_lines, draft, log);
                }
            }
        }
    }
    for (pool, lines) in pools
        .values()
        .filter(|(pool, _)| !used.contains(pool.name.as_str()))
    {
        log.add(
            &UNUSED_POOL,
            lines.header(),
            format_args!("pool `{}` is used by no VIP", pool.name),
            format_args!("{}", UNUSED_POOL.fix),
        );
    }
    if draft.vips.is_empty() {
        log.add(
            &NO_VIP,
            0,
            format_args!("there is no VIP"),
            format_args!("{}", NO_VIP.fix),
        );
    }
}

fn unknown_pool(vip: &Vip, lines: &Lines, pools: &BTreeMap<&str, (&Pool, &Lines)>, log: &mut Log) {
    let names: Vec<&str> = pools.keys().copied().collect();
    let hint = closest(&vip.pool, &names).map(|name| format!("Did you mean `{name}`? "));
    log.add(
        &UNKNOWN_POOL,
        lines.of("pool"),
        format_args!(
            "VIP `{}` uses pool `{}`, which is not in the file",
            vip.name, vip.pool
        ),
        format_args!("{}{}", hint.unwrap_or_default(), UNKNOWN_POOL.fix),
    );
}

/// The mistake of the postmortem: a pool that exists, is healthy, and belongs to someone else.
fn wrong_service(
    vip: &Vip,
    lines: &Lines,
    pool: &Pool,
    pool_lines: &Lines,
    draft: &Draft,
    log: &mut Log,
) {
    let own = draft
        .pools
        .iter()
        .map(|p| &p.pool)
        .filter(|p| p.service == vip.service);
    let own: Vec<String> = own.take(3).map(|p| format!("`{}`", p.name)).collect();
    let fix = match own.as_slice() {
        [] => format!(
            "No pool has service `{}`: add one for this VIP.",
            vip.service
        ),
        pools => format!(
            "Use a pool of service `{}`: {}.",
            vip.service,
            pools.join(", ")
        ),
    };
    log.add(
        &SERVICE,
        lines.of("pool"),
        format_args!(
            "VIP `{}` is of service `{}`, but its pool `{}` is of service `{}` (line {})",
            vip.name,
            vip.service,
            pool.name,
            pool.service,
            pool_lines.of("service")
        ),
        format_args!("{fix}"),
    );
}
