//! What differs between two configurations, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;

use crate::config::{Backend, Config, Pool, Vip};

/// One difference. Names are the configuration's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Difference {
    /// A VIP that only the newer one has.
    VipIn {
        /// Its name.
        vip: String,
        /// Address, port, protocol and pool.
        to: String,
    },
    /// A VIP that only the older one has.
    VipOut {
        /// Its name.
        vip: String,
        /// Address, port, protocol and pool.
        from: String,
    },
    /// A key of a VIP.
    VipKey {
        /// Its name.
        vip: String,
        /// The key in services.toml.
        key: &'static str,
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// A pool that only the newer one has.
    PoolIn {
        /// Its name.
        pool: String,
        /// Forwarding mode and number of backends.
        to: String,
    },
    /// A pool that only the older one has.
    PoolOut {
        /// Its name.
        pool: String,
        /// Forwarding mode and number of backends.
        from: String,
    },
    /// A key of a pool.
    PoolKey {
        /// Its name.
        pool: String,
        /// The key in services.toml.
        key: &'static str,
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// A backend that only the newer one's pool has.
    BackendIn {
        /// Name of the pool.
        pool: String,
        /// Its name.
        backend: String,
        /// Address, weight and state.
        to: String,
    },
    /// A backend that only the older one's pool has.
    BackendOut {
        /// Name of the pool.
        pool: String,
        /// Its name.
        backend: String,
        /// Address, weight and state.
        from: String,
    },
    /// A key of a backend.
    BackendKey {
        /// Name of the pool.
        pool: String,
        /// Its name.
        backend: String,
        /// The key in services.toml.
        key: &'static str,
        /// Before.
        from: String,
        /// After.
        to: String,
    },
}

/// A changed key: name, before, after.
type Changed = (&'static str, String, String);

/// Everything in which `new` differs from `old`: VIPs first, then each pool with
/// its backends; by name.
pub fn diff(old: &Config, new: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    for name in names(
        old.vips.iter().map(|v| &v.name),
        new.vips.iter().map(|v| &v.name),
    ) {
        vip(name, old.vip(name), new.vip(name), &mut found);
    }
    for name in names(
        old.pools.iter().map(|p| &p.name),
        new.pools.iter().map(|p| &p.name),
    ) {
        pool(name, old.pool(name), new.pool(name), &mut found);
    }
    found
}

fn names<'a>(
    old: impl Iterator<Item = &'a String>,
    new: impl Iterator<Item = &'a String>,
) -> BTreeSet<&'a str> {
    old.chain(new).map(String::as_str).collect()
}

fn vip(name: &str, old: Option<&Vip>, new: Option<&Vip>, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let vip = name.to_owned();
    match (old, new) {
        (None, Some(new)) => found.push(Difference::VipIn {
            vip,
            to: vip_text(new),
        }),
        (Some(old), None) => found.push(Difference::VipOut {
            vip,
            from: vip_text(old),
        }),
        (Some(old), Some(new)) => {
            for (key, from, to) in vip_keys(old, new) {
                found.push(Difference::VipKey {
                    vip: vip.clone(),
                    key,
                    from,
                    to,
                });
            }
        }
        (None, None) => {}
    }
}

fn pool(name: &str, old: Option<&Pool>, new: Option<&Pool>, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let pool = name.to_owned();
    match (old, new) {
        (None, Some(new)) => found.push(Difference::PoolIn {
            pool,
            to: pool_text(new),
        }),
        (Some(old), None) => found.push(Difference::PoolOut {
            pool,
            from: pool_text(old),
        }),
        (Some(old), Some(new)) => {
            for (key, from, to) in pool_keys(old, new) {
                found.push(Difference::PoolKey {
                    pool: pool.clone(),
                    key,
                    from,
                    to,
                });
            }
        }
        (None, None) => {}
    }
    let (old, new) = (by_name(old), by_name(new));
    let all: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    for backend in all {
        let of = |list: &BTreeMap<&str, _>| list.get(backend).copied();
        backend_in(name, backend, of(&old), of(&new), found);
    }
}

fn by_name(pool: Option<&Pool>) -> BTreeMap<&str, &Backend> {
    let backends = pool
        .map(|pool| pool.backends.as_slice())
        .unwrap_or_default();
    let named = backends
        .iter()
        .map(|backend| (backend.name.as_str(), backend));
    named.collect()
}

fn backend_in(
    pool: &str,
    name: &str,
    old: Option<&Backend>,
    new: Option<&Backend>,
    found: &mut Vec<Difference>,
) {
    if old == new {
        return;
    }
    let (pool, backend) = (pool.to_owned(), name.to_owned());
    match (old, new) {
        (None, Some(new)) => {
            found.push(Difference::BackendIn {
                pool,
                backend,
                to: backend_text(new),
            });
        }
        (Some(old), None) => {
            found.push(Difference::BackendOut {
                pool,
                backend,
                from: backend_text(old),
            });
        }
        (Some(old), Some(new)) => {
            for (key, from, to) in backend_keys(old, new) {
                let (pool, backend) = (pool.clone(), backend.clone());
                found.push(Difference::BackendKey {
                    pool,
                    backend,
                    key,
                    from,
                    to,
                });
            }
        }
        (None, None) => {}
    }
}

/// Keeps the keys whose values differ.
macro_rules! changed {
    ($old:ident, $new:ident, $($key:literal => $text:expr),+ $(,)?) => {
        [$(($key, $text($old), $text($new))),+]
            .into_iter()
            .filter(|(_, from, to)| from != to)
            .collect()
    };
}

fn vip_keys(old: &Vip, new: &Vip) -> Vec<Changed> {
    changed!(old, new,
        "service" => |v: &Vip| v.service.clone(),
        "address" => |v: &Vip| v.address.to_string(),
        "port" => |v: &Vip| v.port.to_string(),
        "protocol" => |v: &Vip| v.protocol.to_string(),
        "pool" => |v: &Vip| v.pool.clone(),
        "flags" => |v: &Vip| listed(v.flags.iter()),
    )
}

fn pool_keys(old: &Pool, new: &Pool) -> Vec<Changed> {
    changed!(old, new,
        "service" => |p: &Pool| p.service.clone(),
        "forward" => |p: &Pool| p.forward.to_string(),
        "table_size" => |p: &Pool| p.table_size.to_string(),
        "health" => |p: &Pool| json(p.health.as_ref()),
        "identity" => |p: &Pool| json(p.identity.as_ref()),
        "on_dead" => |p: &Pool| p.on_dead.to_string(),
        "min_backends" => |p: &Pool| p.min_backends.to_string(),
        "max_share" => |p: &Pool| optional(p.max_share_ppm.map(|ppm| format!("{ppm} ppm"))),
        "slow_start" => |p: &Pool| optional(p.slow_start.map(humantime::format_duration)),
        "idle_timeout" => |p: &Pool| optional(p.idle_timeout.map(humantime::format_duration)),
        "mtu" => |p: &Pool| optional(p.mtu),
        "quic_id_bytes" => |p: &Pool| optional(p.quic_id_bytes),
    )
}

fn backend_keys(old: &Backend, new: &Backend) -> Vec<Changed> {
    changed!(old, new,
        "address" => |b: &Backend| b.address.to_string(),
        "weight" => |b: &Backend| b.weight.to_string(),
        "state" => |b: &Backend| b.state.to_string(),
        "quic_id" => |b: &Backend| optional(b.quic_id),
    )
}

fn optional(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn listed(values: impl Iterator<Item = impl Display>) -> String {
    let words: Vec<String> = values.map(|value| value.to_string()).collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(",")
    }
}

fn json(value: Option<&impl Serialize>) -> String {
    let text = |value| serde_json::to_string(value).unwrap_or_default();
    value.map_or_else(|| "-".to_owned(), text)
}

/// `203.0.113.10:80/tcp`, the IPv6 address in brackets, port 0 as `*`.
pub fn endpoint(vip: &Vip) -> String {
    let port = if vip.port == 0 {
        "*".to_owned()
    } else {
        vip.port.to_string()
    };
    if vip.address.is_ipv6() {
        format!("[{}]:{port}/{}", vip.address, vip.protocol)
    } else {
        format!("{}:{port}/{}", vip.address, vip.protocol)
    }
}

fn vip_text(vip: &Vip) -> String {
    format!("{} -> {}", endpoint(vip), vip.pool)
}

fn pool_text(pool: &Pool) -> String {
    format!("{}, {} backends", pool.forward, pool.backends.len())
}

fn backend_text(backend: &Backend) -> String {
    format!(
        "{} weight {} {}",
        backend.address, backend.weight, backend.state
    )
}

#[cfg(test)]
pub(crate) mod tests;
