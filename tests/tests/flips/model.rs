//! Who the clients are, and which backend a generation gives a flow, by its lookup table alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_common::address::Address;
use lb_common::hash;
use lb_common::packet::FlowKey;
use lb_userspace::kernel::image::{Image, PoolImage};
use lb_userspace::lab::{VIP_V4, VIP_V6, client_address};

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The VIP.
    pub const fn vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(VIP_V4),
            Self::V6 => IpAddr::V6(VIP_V6),
        }
    }

    /// The pool that serves it in the configurations here.
    const fn pool(self) -> &'static str {
        match self {
            Self::V4 => "pool-v4",
            Self::V6 => "pool-v6",
        }
    }
}

/// A client's end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    pub family: Family,
    /// Last part of its address.
    pub host: u8,
    pub port: u16,
}

impl Client {
    /// Its address.
    pub const fn address(self) -> IpAddr {
        let (v4, v6) = client_address(self.host);
        match self.family {
            Family::V4 => IpAddr::V4(v4),
            Family::V6 => IpAddr::V6(v6),
        }
    }

    /// Who sent this, as a socket tells it.
    pub fn of(from: SocketAddr) -> Self {
        let (family, host) = match from.ip().to_canonical() {
            IpAddr::V4(address) => (Family::V4, address.octets()[3]),
            // Its digits are decimal ones.
            IpAddr::V6(address) => {
                let digits = address.octets()[15];
                (Family::V6, (digits >> 4) * 10 + (digits & 15))
            }
        };
        let port = from.port();
        let client = Self { family, host, port };
        assert_eq!(client.address(), from.ip().to_canonical(), "not of the lab");
        client
    }
}

/// One generation.
pub struct Generation {
    key: u64,
    /// Names of backends by entry, of each family's pool: `web-3` is 3.
    tables: [Vec<u8>; 2],
    /// Its backends.
    pub backends: BTreeSet<u8>,
}

/// `web-3` is 3.
pub fn number(name: &str) -> u8 {
    let number = name.rsplit('-').next().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {name}"))
}

fn table(pool: &PoolImage) -> Vec<u8> {
    let backend = |entry: &u16| {
        let id = pool.entry.member_base + u32::from(*entry);
        let member = pool.members.iter().find(|member| member.id == id);
        number(&member.expect("the entry's backend").name)
    };
    pool.table.entries.iter().map(backend).collect()
}

impl Generation {
    /// Of an image with a pool for each family.
    pub fn new(image: &Image, fleet_key: u64) -> Self {
        let pool = |family: Family| {
            let mut pools = image.pools.iter();
            pools.find(|pool| pool.name == family.pool()).unwrap()
        };
        let members = image.pools.iter().flat_map(|pool| &pool.members);
        Self {
            key: fleet_key,
            tables: FAMILIES.map(|family| table(pool(family))),
            backends: members.map(|member| number(&member.name)).collect(),
        }
    }

    /// The backend of a new flow.
    pub fn choose(&self, client: Client, protocol: u8, port: u16) -> u8 {
        let key = FlowKey {
            source: Address::from(client.address()),
            destination: Address::from(client.family.vip()),
            source_port: client.port.to_be(),
            destination_port: port.to_be(),
            protocol,
        };
        let table = &self.tables[client.family as usize];
        let size = u32::try_from(table.len()).unwrap();
        let entry = hash::entry(hash::flow(self.key, &key), size);
        table[usize::try_from(entry).unwrap()]
    }
}

/// The two generations that take turns.
pub struct Pair(pub [Generation; 2]);

impl Pair {
    /// What each gives a new flow.
    pub fn choices(&self, client: Client, protocol: u8, port: u16) -> [u8; 2] {
        [0, 1].map(|index: usize| self.0[index].choose(client, protocol, port))
    }

    /// Whether both have the backend.
    pub fn in_both(&self, backend: u8) -> bool {
        self.0.iter().all(|one| one.backends.contains(&backend))
    }
}
