//! What is forwarded: VIPs must not be this host's own, backends must be reachable.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use super::Check;
use crate::config::NodeConfig;
use crate::kernel::inspect::{Active, Backend};
use crate::net::{Resolution, Settings, Target, Watcher};

/// How long backends may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many of a kind are named; the rest is counted.
const NAMED: usize = 3;

pub(super) fn vips(active: Option<&Active>) -> Check {
    let (id, title) = ("vips", "VIPs are not addresses of this host");
    let Some(active) = active.filter(|active| !active.vips.is_empty()) else {
        return Check::skip(id, title, "no VIP is configured");
    };
    match own_addresses() {
        Ok(own) => not_own(active, &own),
        Err(error) => Check::skip(id, title, format!("addresses cannot be listed: {error}")),
    }
}

fn own_addresses() -> nix::Result<BTreeSet<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|found| {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.collect())
}

fn not_own(active: &Active, own: &BTreeSet<IpAddr>) -> Check {
    let (id, title) = ("vips", "VIPs are not addresses of this host");
    let local = active
        .vips
        .iter()
        .filter(|(_, address)| own.contains(address));
    let local: Vec<String> = local
        .map(|(name, address)| format!("{name} ({address})"))
        .collect();
    if local.is_empty() {
        return Check::ok(
            id,
            title,
            format!("{} VIPs, none of them local", active.vips.len()),
        );
    }
    Check::warn(
        id,
        title,
        format!(
            "{} on this host: connections from the host itself, and packets that the balancer \
             passes on, end here instead of at a backend",
            some(&local)
        ),
        "take them off this host's interfaces (`ip addr del`); backends need them, a balancer not",
    )
}

pub(super) fn next_hops(config: Option<&NodeConfig>, active: Option<&Active>) -> Vec<Check> {
    let (id, title) = ("next_hops", "Next hops of the backends");
    let Some(active) = active.filter(|active| !active.backends.is_empty()) else {
        return vec![Check::skip(id, title, "no backend is configured")];
    };
    let Some(config) = config else {
        return vec![Check::skip(
            id,
            title,
            "agent.toml does not say which interfaces are ours",
        )];
    };
    match resolve(Settings::from(config), &active.backends) {
        Ok(found) => {
            let found: Vec<(&Backend, Resolution)> = active.backends.iter().zip(found).collect();
            vec![unresolved(&found), in_kernel(&active.backends)]
        }
        Err(error) => vec![Check::skip(id, title, error), in_kernel(&active.backends)],
    }
}

fn target(backend: &Backend) -> Target {
    Target {
        address: backend.address,
        direct: backend.direct,
    }
}

/// In the order of the backends.
fn resolve(settings: Settings, backends: &[Backend]) -> Result<Vec<Resolution>, String> {
    let targets: BTreeSet<Target> = backends.iter().map(target).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let found = runtime.block_on(async {
        let (watcher, _changes) = Watcher::start(settings).await?;
        let found = watcher.resolve(targets, PATIENCE).await?;
        // What was not kept fresh before need not be after.
        watcher.track(BTreeSet::new()).await?;
        watcher.resolve(BTreeSet::new(), PATIENCE).await?;
        Ok::<_, crate::net::NetError>(found)
    });
    let found = found.map_err(|error| error.to_string())?;
    Ok(backends
        .iter()
        .filter_map(|backend| found.get(&target(backend)).cloned())
        .collect())
}

fn unresolved(found: &[(&Backend, Resolution)]) -> Check {
    let (id, title) = ("next_hops", "Next hops of the backends");
    let bad: Vec<String> = found
        .iter()
        .filter_map(|(backend, hop)| Some(format!("{}: {}", backend.name, hop.as_ref().err()?)))
        .collect();
    if bad.is_empty() {
        return Check::ok(id, title, format!("all {} are resolved", found.len()));
    }
    let fix = "correct routes and cables; `ip route get ADDRESS` and `ip neigh` show more";
    let text = format!("{} of {}: {}", bad.len(), found.len(), some(&bad));
    if bad.len() == found.len() {
        Check::fail(id, title, text, fix)
    } else {
        Check::warn(id, title, text, fix)
    }
}

/// What the data path itself goes by.
fn in_kernel(backends: &[Backend]) -> Check {
    let (id, title) = ("next_hops.kernel", "Next hops that the data path has");
    let without = backends
        .iter()
        .filter(|backend| backend.next_hop_mtu.is_none());
    let without: Vec<String> = without.map(|backend| backend.name.clone()).collect();
    if without.is_empty() {
        return Check::ok(id, title, format!("all {}", backends.len()));
    }
    Check::fail(
        id,
        title,
        format!(
            "none for {}: packets for them are dropped and counted",
            some(&without)
        ),
        "start the agent, which resolves them",
    )
}

pub(super) fn some(items: &[String]) -> String {
    let named: Vec<&str> = items.iter().take(NAMED).map(String::as_str).collect();
    let more = items.len().saturating_sub(named.len());
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", named.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::net::Unresolved;

    fn backend(name: &str, mtu: Option<u16>) -> Backend {
        let address = IpAddr::from([10, 0, 1, 11]);
        Backend {
            name: name.to_owned(),
            address,
            direct: false,
            next_hop_mtu: mtu,
            member: 1,
            overhead: 0,
            tcp: Vec::new(),
        }
    }

    #[test]
    fn a_vip_on_this_host_is_found() {
        let vip = IpAddr::from([203, 0, 113, 10]);
        let active = Active {
            vips: vec![("shop".to_owned(), vip)],
            ..Active::default()
        };
        assert_eq!(not_own(&active, &BTreeSet::new()).status, Status::Ok);
        let found = not_own(&active, &[vip].into());
        assert_eq!(found.status, Status::Warn);
        assert!(
            found.found.contains("shop (203.0.113.10)"),
            "{}",
            found.found
        );
        let local = Active {
            vips: vec![("lo".to_owned(), [127, 0, 0, 1].into())],
            ..active
        };
        assert_eq!(vips(Some(&local)).status, Status::Warn);
    }

    #[test]
    fn one_backend_that_is_away_is_a_warning_and_all_are_a_failure() {
        let web = backend("web-1", None);
        let away = || Err(Unresolved::Local(web.address));
        let there = || {
            Ok(crate::net::Resolved {
                mac: [2; 6],
                source: [2; 6],
                interface: 2,
                vlan: 0,
                mtu: 1500,
                via: crate::net::Via::Static,
            })
        };
        assert_eq!(
            unresolved(&[(&web, there()), (&web, there())]).status,
            Status::Ok
        );
        let one = unresolved(&[(&web, there()), (&web, away())]);
        assert_eq!(one.status, Status::Warn);
        assert!(
            one.found.starts_with("1 of 2: web-1: 10.0.1.11"),
            "{}",
            one.found
        );
        assert_eq!(unresolved(&[(&web, away())]).status, Status::Fail);
    }

    #[test]
    fn the_kernels_own_table_counts_and_lists_stay_short() {
        assert_eq!(in_kernel(&[backend("a", Some(1500))]).status, Status::Ok);
        let names = ["a", "b", "c", "d", "e"].map(|name| backend(name, None));
        let found = in_kernel(&names);
        assert_eq!(found.status, Status::Fail);
        assert!(
            found.found.contains("a; b; c and 2 more"),
            "{}",
            found.found
        );
    }
}
