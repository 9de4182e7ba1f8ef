//! The types of `services.toml` after checking (DESIGN 7).
//!
//! Serde's derives here define the canonical form ([`Config::canonical_json`]): field names and
//! their order are part of every digest ever taken. A new field must be left out of the form while
//! it has its default (`skip_serializing_if`), or all old digests change.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One complete configuration: what a generation holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// VIPs, sorted by name.
    pub vips: Vec<Vip>,
    /// Pools, sorted by name.
    pub pools: Vec<Pool>,
}

/// An address, port and protocol that clients use, and the pool that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Unique among VIPs; 1 to 63 bytes of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// Identity label: the pool must carry the same one.
    pub service: String,
    /// IPv4 or IPv6 unicast address.
    pub address: IpAddr,
    /// Port in host order; 0 = any port that no other VIP of this address and protocol names.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Name of the [`Pool`].
    pub pool: String,
    /// Switches; empty is the usual case.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub flags: BTreeSet<VipFlag>,
}

/// Named set of backends with one forwarding mode and one health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Unique among pools; same alphabet as [`Vip::name`].
    pub name: String,
    /// Identity label: only VIPs of this service may use the pool.
    pub service: String,
    /// How packets reach the backends.
    pub forward: Forward,
    /// Entries of the lookup table: a prime (Maglev, NSDI 2016, section 3.4).
    pub table_size: u32,
    /// Health check, or `None` for no check (`type = "none"` in the file is the same).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What proves that the right service answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What happens to flows of a backend that died.
    pub on_dead: OnDead,
    /// Fewest backends with weight that the pool may have.
    pub min_backends: u32,
    /// Largest share of the table one backend may hold, in parts per million.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_share_ppm: Option<u32>,
    /// How long a backend that came back takes to reach its full weight.
    #[serde(
        default,
        rename = "slow_start_ms",
        with = "millis_opt",
        skip_serializing_if = "Option::is_none"
    )]
    pub slow_start: Option<Duration>,
    /// A flow without packets for this long may be forgotten.
    #[serde(
        default,
        rename = "idle_timeout_ms",
        with = "millis_opt",
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_timeout: Option<Duration>,
    /// Largest outer packet towards the backends, in bytes; `None` = the next hop's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Bytes of the server id in QUIC-LB connection ids; `None` = the ids say themselves how they are
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_id_bytes: Option<u8>,
    /// Backends, sorted by name.
    pub backends: Vec<Backend>,
}

/// A server that answers for the VIPs of its pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Stable and unique within the pool; same alphabet as [`Vip::name`].
    pub name: String,
    /// Where it is reached; for `l2` the address whose neighbour entry gives the MAC.
    pub address: IpAddr,
    /// Share of the table relative to the other weights; 0 = not in the table.
    pub weight: u32,
    /// What the file asks for; commands and health may ask for less, never for more.
    pub state: BackendState,
    /// Server id inside QUIC connection ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_id: Option<u32>,
}

/// Transport protocol of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// Only the MAC addresses change; the backend is on the same segment.
    L2,
    /// IP in IP: 4in4, 6in6 or 4in6 (RFC 2003, RFC 2473).
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue).
    Gue,
}

/// What the file asks of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// Takes new flows.
    Active,
    /// Keeps its flows, takes no new ones.
    Drain,
    /// Takes nothing.
    Disabled,
}

/// What happens to the flows of a backend that health says is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDead {
    /// They go to another backend (and break there, if TCP, at once and visibly).
    Move,
    /// They stay, in the hope that it comes back.
    Keep,
    /// The client gets a reset.
    Reset,
}

/// Switch of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VipFlag {
    /// All flows of a client, whatever their ports, reach one backend; it stays the client's while
    /// the table changes.
    ClientAffinity,
    /// No flow table: the lookup table decides each packet.
    Stateless,
    /// Follow the server id in QUIC connection ids.
    Quic,
    /// Choose the backend by the destination port alone (for port-0 VIPs).
    HashDport,
}

/// How a backend is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is spoken. The file's `none` is `Pool::health == None`, so that it has one spelling.
    #[serde(rename = "type")]
    pub kind: HealthKind,
    /// Port on the backend, 1 to 65535.
    pub port: u16,
    /// Path of the request, for http and https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name in the request and in TLS, for http and https; `None` = the VIP's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// File of certificates that the server's must be signed by, for https; `None` = any is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether requests are padded to a full-size packet, for http and https; `None` = they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_size: Option<bool>,
    /// Name that is asked for, for dns; `None` = the root, and a refusal is an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is sent, for udp; `None` = `lbguard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// From one check to the next.
    #[serde(rename = "interval_ms", with = "millis")]
    pub interval: Duration,
    /// An answer later than this is a failure; shorter than `interval`.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// Successes in a row that bring a backend back; at least 1.
    pub rise: u32,
    /// Failures in a row that take it out; at least 1.
    pub fall: u32,
}

/// Protocol of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthKind {
    /// A handshake.
    Tcp,
    /// GET, 2xx or 3xx.
    Http,
    /// The same over TLS.
    Https,
    /// A datagram that is answered.
    Udp,
    /// A DNS query that is answered.
    Dns,
}

/// A response header that names the service: what proves that the right one answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Header name, lower case.
    pub header: String,
    /// Its exact value.
    pub value: String,
}

impl Config {
    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        named(&self.pools, name, |pool| &pool.name)
    }

    /// The VIP of that name.
    pub fn vip(&self, name: &str) -> Option<&Vip> {
        named(&self.vips, name, |vip| &vip.name)
    }

    /// The VIP that packets to this address, port and protocol are for: the port's own, else the
    /// address's port-0 VIP.
    pub fn serving(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<&Vip> {
        let of = |port| {
            let same =
                |vip: &&Vip| vip.port == port && vip.address == address && vip.protocol == protocol;
            self.vips.iter().find(same)
        };
        of(port).or_else(|| of(0))
    }

    /// Whether every list is in the order that this type promises.
    pub fn is_sorted(&self) -> bool {
        self.vips.is_sorted_by_key(|vip| &vip.name)
            && self.pools.is_sorted_by_key(|pool| &pool.name)
            && self
                .pools
                .iter()
                .all(|pool| pool.backends.is_sorted_by_key(|backend| &backend.name))
    }

    /// Puts every list into the order that this type promises.
    pub fn sort(&mut self) {
        self.vips.sort_by(|a, b| a.name.cmp(&b.name));
        self.pools.sort_by(|a, b| a.name.cmp(&b.name));
        for pool in &mut self.pools {
            pool.backends.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }
}

/// What has this name, in a list that is sorted by name as promised; else anywhere in it.
fn named<'a, T>(list: &'a [T], name: &str, of: fn(&T) -> &String) -> Option<&'a T> {
    let place = list.binary_search_by(|one| of(one).as_str().cmp(name));
    let sorted = place.ok().and_then(|place| list.get(place));
    sorted.or_else(|| list.iter().find(|one| of(one) == name))
}

impl Pool {
    /// Sum of the weights that count in the lookup table. Fits u64 for any pool that u32 can index.
    pub fn weight_sum(&self) -> u64 {
        self.backends
            .iter()
            .map(|b| u64::from(b.table_weight()))
            .sum()
    }

    /// Backends that have a share of the lookup table.
    pub fn in_table(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|b| b.table_weight() > 0)
    }

    /// Whether another version of this pool has the very same lookup table, under the same seed: entry by
    /// entry the same backends.
    pub fn same_table(&self, other: &Self) -> bool {
        let inputs = |pool: &Self| (pool.table_size, pool.forward);
        let backend = |b: &Backend| (b.table_weight(), b.address);
        let mut pairs = (self.in_table(), other.in_table());
        inputs(self) == inputs(other)
            && loop {
                match (pairs.0.next(), pairs.1.next()) {
                    (None, None) => break true,
                    (Some(a), Some(b)) if a.name == b.name && backend(a) == backend(b) => {}
                    _ => break false,
                }
            }
    }
}

impl Forward {
    /// Bytes that a tunnel to a backend of this address adds.
    pub const fn overhead(self, backend: IpAddr) -> u16 {
        match self {
            Self::L2 => 0,
            Self::Ipip => lb_common::encap::overhead(backend.is_ipv4()),
            Self::Gue => lb_common::encap::overhead(backend.is_ipv4()).saturating_add(8),
        }
    }
}

impl Backend {
    /// Weight in the lookup table: 0 unless the state is active, as only active backends take new
    /// flows.
    pub fn table_weight(&self) -> u32 {
        if self.state == BackendState::Active {
            self.weight
        } else {
            0
        }
    }
}

/// Shows a value as the file spells it.
macro_rules! spelled {
    ($($type:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        impl $type {
            /// Every value with the file's word for it.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// The word that the file uses.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )+};
}

spelled! {
    Protocol { Tcp = "tcp", Udp = "udp" }
    Forward { L2 = "l2", Ipip = "ipip", Gue = "gue" }
    BackendState { Active = "active", Drain = "drain", Disabled = "disabled" }
    OnDead { Move = "move", Keep = "keep", Reset = "reset" }
    VipFlag {
        ClientAffinity = "client-affinity",
        Stateless = "stateless",
        Quic = "quic",
        HashDport = "hash-dport",
    }
    HealthKind { Tcp = "tcp", Http = "http", Https = "https", Udp = "udp", Dns = "dns" }
}

/// Durations in the canonical form: whole milliseconds.
mod millis {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// The same for durations that may be missing.
mod millis_opt {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::millis::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
