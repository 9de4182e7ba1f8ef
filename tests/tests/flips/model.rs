//! Which backend a generation gives a flow, by its lookup table alone.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use lb_common::address::Address;
use lb_common::hash;
use lb_common::packet::FlowKey;
use lb_userspace::kernel::image::Image;
use lb_userspace::lab::VIP_V4;

/// A client's address and port.
pub type Client = (Ipv4Addr, u16);

/// One generation.
pub struct Generation {
    key: u64,
    /// Names of backends by entry: `web-3` is 3.
    table: Vec<u8>,
    /// Its backends.
    pub backends: BTreeSet<u8>,
}

/// `web-3` is 3.
pub fn number(name: &str) -> u8 {
    let number = name.rsplit('-').next().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {name}"))
}

impl Generation {
    /// Of an image with one pool.
    pub fn new(image: &Image, fleet_key: u64) -> Self {
        let pool = &image.pools[0];
        let backend = |entry: &u16| {
            let id = pool.entry.member_base + u32::from(*entry);
            let member = pool.members.iter().find(|member| member.id == id);
            number(&member.expect("the entry's backend").name)
        };
        Self {
            key: fleet_key,
            table: pool.table.entries.iter().map(backend).collect(),
            backends: pool.members.iter().map(|m| number(&m.name)).collect(),
        }
    }

    /// The backend of a new flow.
    pub fn choose(&self, client: Client, protocol: u8, port: u16) -> u8 {
        let key = FlowKey {
            source: Address::v4(client.0.octets()),
            destination: Address::v4(VIP_V4.octets()),
            source_port: client.1.to_be(),
            destination_port: port.to_be(),
            protocol,
        };
        let size = u32::try_from(self.table.len()).unwrap();
        let entry = hash::entry(hash::flow(self.key, &key), size);
        self.table[usize::try_from(entry).unwrap()]
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
