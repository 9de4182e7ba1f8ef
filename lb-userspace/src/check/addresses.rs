//! Rules about addresses and their families.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::rules::{
    BACKEND_ADDRESS, BACKEND_IS_VIP, FAMILY, SAME_BACKEND, SHARED_ADDRESS, VIP_ADDRESS,
};
use crate::config::{Draft, DraftPool, Forward, Log, Pool, Vip};

/// Why no packet can be sent to an address; `None` if one can.
fn problem(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => return Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets().first() == Some(&0) => {
            return Some("in 0.0.0.0/8, which means no host");
        }
        IpAddr::V4(v4) if v4.octets().first() >= Some(&240) => {
            return Some("in 240.0.0.0/4, which is reserved");
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            return Some("an IPv4 address written as IPv6: write it as IPv4");
        }
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else {
        None
    }
}

/// VIPs have usable addresses.
pub fn vips(draft: &Draft, log: &mut Log) {
    for (vip, lines) in &draft.vips {
        let Some(problem) = problem(vip.address) else {
            continue;
        };
        log.add(
            &VIP_ADDRESS,
            lines.of("address"),
            format_args!("VIP `{}` has address {}: {problem}", vip.name, vip.address),
            format_args!("{}", VIP_ADDRESS.fix),
        );
    }
}

/// Backends have usable addresses, each once in a pool, and are no VIPs.
pub fn backends(draft: &Draft, log: &mut Log) {
    let vips: BTreeMap<IpAddr, &str> = draft
        .vips
        .iter()
        .map(|(vip, _)| (vip.address, vip.name.as_str()))
        .collect();
    for pool in &draft.pools {
        let mut first: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (backend, lines) in pool.pool.backends.iter().zip(&pool.backends) {
            let what = format!("backend `{}` in pool `{}`", backend.name, pool.pool.name);
            let (address, line) = (backend.address, lines.of("address"));
            if let Some(problem) = problem(address) {
                log.add(
                    &BACKEND_ADDRESS,
                    line,
                    format_args!("{what} has address {address}: {problem}"),
                    format_args!("{}", BACKEND_ADDRESS.fix),
                );
            } else if let Some(vip) = vips.get(&address) {
                log.add(
                    &BACKEND_IS_VIP,
                    line,
                    format_args!("{what} has address {address}, which is VIP `{vip}`"),
                    format_args!("{}", BACKEND_IS_VIP.fix),
                );
            }
            let other = *first.entry(address).or_insert(&backend.name);
            if other != backend.name {
                log.add(
                    &SAME_BACKEND,
                    line,
                    format_args!("{what} has address {address}, as backend `{other}` has"),
                    format_args!("{}", SAME_BACKEND.fix),
                );
            }
        }
    }
    shared(draft, log);
}

/// Servers of one service that are in a pool of another; one finding for each pair of pools.
fn shared(draft: &Draft, log: &mut Log) {
    let mut first: BTreeMap<IpAddr, &Pool> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for pool in &draft.pools {
        for (backend, lines) in pool.pool.backends.iter().zip(&pool.backends) {
            let other = *first.entry(backend.address).or_insert(&pool.pool);
            let pair = (other.name.as_str(), pool.pool.name.as_str());
            if other.service == pool.pool.service || !told.insert(pair) {
                continue;
            }
            log.add(
                &SHARED_ADDRESS,
                lines.of("address"),
                format_args!(
                    "{} is in pool `{}` of service `{}` and in pool `{}` of service `{}`",
                    backend.address, pool.pool.name, pool.pool.service, other.name, other.service
                ),
                format_args!("{}", SHARED_ADDRESS.fix),
            );
        }
    }
}

/// Every VIP's packets can be carried to its pool's backends.
pub fn families(draft: &Draft, log: &mut Log) {
    let pools: BTreeMap<&str, &DraftPool> = draft
        .pools
        .iter()
        .map(|p| (p.pool.name.as_str(), p))
        .collect();
    for (vip, lines) in &draft.vips {
        let Some(pool) = pools.get(vip.pool.as_str()) else {
            continue;
        };
        let mut backends = pool.pool.backends.iter().zip(&pool.backends);
        let misfit = backends.find(|(b, _)| !carries(pool.pool.forward, vip, b.address));
        let Some((backend, backend_lines)) = misfit else {
            continue;
        };
        log.add(
            &FAMILY,
            lines.of("pool"),
            format_args!(
                "VIP `{}` is {}, but backend `{}` of its pool `{}` is {} (line {}), and {} \
                 cannot carry that",
                vip.name,
                family(vip.address),
                backend.name,
                pool.pool.name,
                family(backend.address),
                backend_lines.of("address"),
                pool.pool.forward
            ),
            format_args!(
                "Use a pool of {} backends. {}",
                family(vip.address),
                FAMILY.fix
            ),
        );
    }
}

fn carries(forward: Forward, vip: &Vip, backend: IpAddr) -> bool {
    match forward {
        Forward::L2 => vip.address.is_ipv4() == backend.is_ipv4(),
        Forward::Ipip | Forward::Gue => vip.address.is_ipv4() || backend.is_ipv6(),
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
