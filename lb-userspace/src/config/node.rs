//! `agent.toml`: what is particular to this host. Never part of a change.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Checked content of `agent.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Interfaces that the XDP program is attached to; at least one, no duplicates.
    pub interfaces: Vec<String>,
    /// Where in the receive path the program runs.
    pub xdp_mode: XdpMode,
    /// Secret that all balancers of a fleet share: same seed, same lookup tables.
    pub fleet_seed: FleetSeed,
    /// Outer source of IPv4 encapsulation: one address or a prefix routed to this host.
    pub encap_source_v4: Option<Prefix4>,
    /// Outer source of IPv6 encapsulation.
    pub encap_source_v6: Option<Prefix6>,
    /// Next hops that are not to be resolved; at most one an interface.
    pub gateways: Vec<Gateway>,
    /// Sizes of the kernel tables, fixed when the program is loaded.
    pub tables: Tables,
    /// Instead of `/var/lib/lbguard`.
    pub state_dir: Option<PathBuf>,
    /// Instead of `/run/lbguard`.
    pub run_dir: Option<PathBuf>,
    /// Instead of `/sys/fs/bpf/lbguard`.
    pub pin_dir: Option<PathBuf>,
    /// API socket, instead of the one in `run_dir`.
    pub socket: Option<PathBuf>,
    /// Where Prometheus may read; `None` = nowhere.
    pub metrics_address: Option<SocketAddr>,
}

/// Where in the receive path the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver if it can, else generic, and `status` says which.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the kernel has built an skb: slow, works everywhere.
    Generic,
}

/// 64-bit seed of the lookup tables and of the hash that picks an entry. Secret: who knows it can
/// aim all his flows at one backend. `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FleetSeed(u64);

/// IPv4 address with prefix length 0 to 32, host bits zero; 32 is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix4 {
    /// First address.
    pub address: Ipv4Addr,
    /// Prefix length in bits.
    pub len: u8,
}

/// IPv6 address with prefix length 0 to 128, host bits zero; 128 is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix6 {
    /// First address.
    pub address: Ipv6Addr,
    /// Prefix length in bits.
    pub len: u8,
}

/// Static next hop of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Interface name; one of [`NodeConfig::interfaces`].
    pub interface: String,
    /// Its unicast MAC.
    pub mac: Mac,
}

/// Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// Capacities of the kernel tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// VIPs of a configuration.
    pub vips: u32,
    /// Pools of a configuration.
    pub pools: u32,
    /// Backends of all pools of a configuration.
    pub backends: u32,
    /// u16 entries of all lookup tables of all slots.
    pub lookup_entries: u32,
    /// Flows that are remembered.
    pub flows: u32,
    /// New flows a second and CPU that are remembered when so many are; 0 = all.
    pub flood_rate: u32,
    /// Next hops.
    pub nexthops: u32,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            vips: 1024,
            pools: 1024,
            backends: 16_384,
            lookup_entries: 8_388_608,
            flows: 1_048_576,
            flood_rate: 100_000,
            nexthops: 1024,
        }
    }
}

impl FleetSeed {
    /// The seed that a text stands for: the first 8 bytes, little endian, of SHA-256 over
    /// `lbguard fleet seed 1`, a zero byte, and the text. Fixed for ever: a fleet must agree.
    pub fn from_text(text: &str) -> Self {
        let hash = Sha256::new()
            .chain_update(b"lbguard fleet seed 1\0")
            .chain_update(text);
        let bytes: [u8; 32] = hash.finalize().into();
        let mut head = [0; 8];
        head.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Self(u64::from_le_bytes(head))
    }

    /// The seed that a kernel side was loaded with.
    pub const fn loaded(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for FleetSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSeed(secret)")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, byte)| {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")
        })
    }
}

/// The text is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: write six pairs of hexadecimal digits, such as 02:00:00:00:00:01")]
pub struct MacError;

impl FromStr for Mac {
    type Err = MacError;

    /// Six pairs of hexadecimal digits with colons between them.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2)
                .ok_or(MacError)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| MacError)?;
        }
        pairs.next().map_or(Ok(Self(bytes)), |_| Err(MacError))
    }
}

impl fmt::Display for Prefix4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Display for Prefix6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}
