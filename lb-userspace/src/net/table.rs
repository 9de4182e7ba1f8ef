//! Numbers for next hops, so that many backends behind one gateway share one record of the
//! kernel's table, and a gateway's new MAC address is one write.
//!
//! Pure: it says what to write, the caller writes.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::slot::{NextHop, next_hop_flag};

use super::next_hop::{Resolved, Target, Via};

/// Whom a number stands for. Not the MAC address: that may change, and the number stays.
type Key = (u32, u16, Via);

/// What the kernel's record of a next hop says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// Largest IP packet, bytes: the smallest of all who share it.
    pub mtu: u16,
    /// Interface index.
    pub interface: u32,
    /// VLAN, 0 = none.
    pub vlan: u16,
}

impl Record {
    /// As the kernel's table has it; `confirmed_s` is the boot clock, in seconds.
    pub fn as_next_hop(&self, confirmed_s: u32) -> NextHop {
        NextHop {
            destination: self.destination,
            flags: next_hop_flag::RESOLVED,
            source: self.source,
            mtu: self.mtu,
            interface: self.interface,
            confirmed_s,
            vlan: self.vlan,
            reserved: [0; 6],
        }
    }
}

impl From<&NextHop> for Record {
    fn from(hop: &NextHop) -> Self {
        Self {
            destination: hop.destination,
            source: hop.source,
            mtu: hop.mtu,
            interface: hop.interface,
            vlan: hop.vlan,
        }
    }
}

/// Where a target's next hop is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number, at least 1.
    pub number: u16,
    /// Records to write before the number is used.
    pub writes: Vec<(u16, Record)>,
}

/// More next hops than the kernel's table has places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {0} next hops are in use: raise nexthops under [tables] in agent.toml, and load lbguard \
     anew"
)]
pub struct TableFull(pub usize);

/// The numbers in use.
#[derive(Clone, Debug)]
pub struct NextHopTable {
    limit: u16,
    hops: BTreeMap<u16, Hop>,
    numbers: BTreeMap<Key, u16>,
    users: BTreeMap<Target, User>,
    /// What the kernel has, as far as we know.
    written: BTreeMap<u16, Record>,
}

/// A number in use.
#[derive(Clone, Debug, Default)]
struct Hop {
    /// Unknown for a number found in the kernel until one of its users is resolved.
    key: Option<Key>,
    /// How many users have each MTU.
    mtus: BTreeMap<u16, u32>,
    /// How many users have not been resolved since they were found.
    adopted: u32,
}

#[derive(Clone, Copy, Debug)]
struct User {
    number: u16,
    /// `None` for an adopted one.
    mtu: Option<u16>,
}

impl NextHopTable {
    /// An empty table for a kernel table of `places` records; record 0 is never used.
    pub fn new(places: u32) -> Self {
        let limit = u16::try_from(places.saturating_sub(1)).unwrap_or(u16::MAX);
        Self {
            limit,
            hops: BTreeMap::new(),
            numbers: BTreeMap::new(),
            users: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// Notes that a target has a number in the kernel already (a restart): it keeps it if it can.
    /// A number beyond the table, or 0, is passed over.
    pub fn adopt(&mut self, target: Target, number: u16, found: &NextHop) {
        if number == 0 || number > self.limit || self.users.contains_key(&target) {
            return;
        }
        self.users.insert(target, User { number, mtu: None });
        let hop = self.hops.entry(number).or_default();
        hop.adopted = hop.adopted.saturating_add(1);
        if found.flags & next_hop_flag::RESOLVED != 0 {
            self.written.insert(number, Record::from(found));
        }
    }

    /// The number of a target, if it has one.
    pub fn number(&self, target: Target) -> Option<u16> {
        self.users.get(&target).map(|user| user.number)
    }

    /// Next hops in use.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// Takes note of a target's next hop.
    pub fn set(&mut self, target: Target, to: &Resolved) -> Result<Placed, TableFull> {
        let key = (to.interface, to.vlan, to.via);
        let before = self.users.get(&target).copied();
        let number = self.number_for(key, before)?;
        if let Some(user) = before {
            self.leave(user);
        }
        let hop = self.hops.entry(number).or_default();
        hop.key = Some(key);
        let sharing = hop.mtus.entry(to.mtu).or_default();
        *sharing = sharing.saturating_add(1);
        self.numbers.insert(key, number);
        self.users.insert(
            target,
            User {
                number,
                mtu: Some(to.mtu),
            },
        );
        let record = Record {
            destination: to.mac,
            source: to.source,
            mtu: to.mtu,
            interface: to.interface,
            vlan: to.vlan,
        };
        let mut writes = self.write(number, record);
        if let Some(user) = before.filter(|user| user.number != number) {
            writes.extend(self.vacate(user.number));
        }
        Ok(Placed { number, writes })
    }

    /// Forgets all targets but these. Numbers that nobody uses any more are given anew: call it
    /// with every target that a slot of the kernel still refers to.
    ///
    /// # Returns
    /// Records to write.
    pub fn retain(&mut self, targets: &BTreeSet<Target>) -> Vec<(u16, Record)> {
        let gone: Vec<(Target, User)> = self
            .users
            .iter()
            .filter(|(target, _)| !targets.contains(target))
            .map(|(target, user)| (*target, *user))
            .collect();
        let mut touched = BTreeSet::new();
        for (target, user) in gone {
            self.users.remove(&target);
            self.leave(user);
            touched.insert(user.number);
        }
        touched
            .into_iter()
            .flat_map(|number| self.vacate(number))
            .collect()
    }

    /// The number that the key has, or the target's adopted one if nobody else has claimed it, or
    /// the lowest free one.
    fn number_for(&self, key: Key, before: Option<User>) -> Result<u16, TableFull> {
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let own = before.map(|user| user.number);
        let unclaimed = |number: &u16| self.hops.get(number).is_some_and(|hop| hop.key.is_none());
        if let Some(number) = own.filter(unclaimed) {
            return Ok(number);
        }
        let free = (1..=self.limit).find(|number| !self.hops.contains_key(number));
        free.ok_or(TableFull(self.hops.len()))
    }

    fn leave(&mut self, user: User) {
        let Some(hop) = self.hops.get_mut(&user.number) else {
            return;
        };
        match user.mtu {
            None => hop.adopted = hop.adopted.saturating_sub(1),
            Some(mtu) => {
                let left = hop
                    .mtus
                    .get(&mtu)
                    .map_or(0, |count| count.saturating_sub(1));
                if left == 0 {
                    hop.mtus.remove(&mtu);
                } else {
                    hop.mtus.insert(mtu, left);
                }
            }
        }
    }

    /// After users have left: frees the number, or lets the record's MTU rise.
    fn vacate(&mut self, number: u16) -> Vec<(u16, Record)> {
        let Some(hop) = self.hops.get(&number) else {
            return Vec::new();
        };
        if hop.mtus.is_empty() && hop.adopted == 0 {
            if let Some(key) = hop.key {
                self.numbers.remove(&key);
            }
            self.hops.remove(&number);
            self.written.remove(&number);
            return Vec::new();
        }
        match self.written.get(&number).copied() {
            Some(record) if hop.key.is_some() => self.write(number, record),
            _ => Vec::new(),
        }
    }

    fn write(&mut self, number: u16, record: Record) -> Vec<(u16, Record)> {
        let smallest = self
            .hops
            .get(&number)
            .and_then(|hop| hop.mtus.keys().next().copied());
        let record = Record {
            mtu: smallest.unwrap_or(record.mtu),
            ..record
        };
        match self.written.insert(number, record) {
            Some(same) if same == record => Vec::new(),
            _ => vec![(number, record)],
        }
    }
}
