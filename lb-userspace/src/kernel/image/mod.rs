//! A configuration as it will lie in the kernel: every number, entry and byte of a slot.

mod pools;
mod tables;
mod vips;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use lb_common::slot::{Member, Name, PoolEntry, VipEntry};

use super::KernelError;
use super::kept::{Families, Kept, Known};
use super::maps::{Maps, name};
use super::numbers::Numbers;
use crate::config::{Backend, Config, Digest, FleetSeed, Pool};
use vips::{Places, address_entry, vip_entry};

pub use pools::mode;
pub use vips::flag_bits;

/// A lookup table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableImage {
    /// Table id.
    pub id: u32,
    /// First element.
    pub start: u32,
    /// Entries that it has.
    pub size: u32,
    /// These entries; none if the pool is kept, see [`PoolImage::kept`].
    pub entries: Vec<u16>,
    /// Whether ACTIVE or LKG has the very same one, so that it need not be written.
    pub shared: bool,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct MemberImage {
    /// Member id.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Whether it drains in this generation.
    pub drain: bool,
    /// As stored.
    pub member: Member,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolImage {
    /// Number.
    pub number: u16,
    /// Name.
    pub name: String,
    /// As stored, but for what the guard fills in.
    pub entry: PoolEntry,
    /// Its lookup table.
    pub table: TableImage,
    /// Its index of QUIC server ids, if its backends have any.
    pub ids: Option<TableImage>,
    /// Its backends; none if the pool is kept.
    pub members: Vec<MemberImage>,
    /// ACTIVE has the very same pool: the guard takes it over as it is, and what it consists of is read
    /// from there by whoever wants to know.
    pub kept: bool,
}

/// A VIP.
#[derive(Clone, Debug)]
pub struct VipImage {
    /// Place in the VIP table.
    pub place: u32,
    /// Name.
    pub name: String,
    /// As stored, but for what the guard fills in.
    pub entry: VipEntry,
}

/// A whole slot.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub digest: Digest,
    /// Pools, by name.
    pub pools: Vec<PoolImage>,
    /// VIPs, by name.
    pub vips: Vec<VipImage>,
    /// Addresses of VIPs.
    pub addresses: Vec<VipImage>,
}

/// Next-hop number of a backend, and whether it is resolved.
pub type HopOf<'a> = &'a dyn Fn(&Pool, &Backend) -> Option<u16>;

impl Image {
    /// Lays a configuration out beside what the kernel holds.
    pub fn build(
        config: &Config,
        seed: FleetSeed,
        maps: &Maps,
        next_hop: HopOf<'_>,
    ) -> Result<Self, KernelError> {
        Self::after(None, config, config.digest(), seed, maps, next_hop)
    }

    /// The same, when the digest is known, and what ACTIVE holds: pools that are in both alike are kept, and
    /// tables that are the same are not computed again.
    pub fn after(
        known: Option<&Known>,
        config: &Config,
        digest: Digest,
        seed: FleetSeed,
        maps: &Maps,
        next_hop: HopOf<'_>,
    ) -> Result<Self, KernelError> {
        let kept = Kept::new(known, seed, maps)?;
        let mut numbers = Numbers::read(maps)?;
        let families = families(config);
        let mut laid = Vec::with_capacity(config.pools.len());
        for pool in &config.pools {
            let serves = families.get(pool.name.as_str()).copied();
            laid.push(pools::lay_out(
                pool,
                serves.unwrap_or_default(),
                &kept,
                &mut numbers,
                next_hop,
            )?);
        }
        let pools = pools::images(laid, seed, maps, &mut numbers)?;
        let (vips, addresses) = place_vips(config, &pools, maps, &mut numbers)?;
        Ok(Self {
            digest,
            pools,
            vips,
            addresses,
        })
    }

    /// Name of the VIP with this number.
    pub fn vip_name(&self, vip: u16) -> Option<&str> {
        self.vips
            .iter()
            .find(|image| image.entry.vip == vip)
            .map(|image| image.name.as_str())
    }

    /// Pool and name of the backend with this member id.
    pub fn member_name(&self, id: u32) -> Option<(&str, &str)> {
        self.pools.iter().find_map(|pool| {
            let member = pool.members.iter().find(|member| member.id == id)?;
            Some((pool.name.as_str(), member.name.as_str()))
        })
    }

    /// Members of all pools but those that are kept.
    pub fn members(&self) -> impl Iterator<Item = &MemberImage> {
        self.pools.iter().flat_map(|pool| &pool.members)
    }

    /// Whether it has pools that are kept.
    pub fn keeps(&self) -> bool {
        self.pools.iter().any(|pool| pool.kept)
    }
}

impl PoolImage {
    /// The pool with its backends and its table: read from ACTIVE if it is kept.
    pub fn whole(&self, maps: &Maps) -> Result<Cow<'_, Self>, KernelError> {
        if !self.kept {
            return Ok(Cow::Borrowed(self));
        }
        let mut whole = self.clone();
        let active = maps.record()?.map_or(0, |record| record.active);
        let bit = 1u8.checked_shl(u32::from(active)).unwrap_or(0);
        for number in 1..=self.entry.member_limit {
            let id = self.entry.member_base.saturating_add(number);
            let member = maps.member(id).filter(|member| member.slots & bit != 0);
            if let Some(member) = member.filter(|member| member.pool == self.number) {
                whole.members.push(MemberImage {
                    id,
                    name: maps.member_name(id)?,
                    drain: member.drains & bit != 0,
                    member,
                });
            }
        }
        whole.table.entries = maps
            .entries(self.table.start, self.table.size)
            .ok_or_else(|| KernelError::Mismatch(format!("pool {}: its table", self.name)))?;
        Ok(Cow::Owned(whole))
    }

    /// The backend number at a place of its table; 0 = none.
    pub fn entry_at(&self, maps: &Maps, place: u32) -> u16 {
        if self.kept {
            maps.table_entry(self.table.start, place).unwrap_or(0)
        } else {
            let entry = usize::try_from(place)
                .ok()
                .and_then(|place| self.table.entries.get(place));
            entry.copied().unwrap_or(0)
        }
    }
}

/// Of which families the VIPs are that use each pool.
fn families(config: &Config) -> HashMap<&str, Families> {
    let mut families: HashMap<&str, Families> = HashMap::new();
    for vip in &config.vips {
        let own = families.entry(&vip.pool).or_default();
        match vip.address {
            IpAddr::V4(_) => own.v4 = true,
            IpAddr::V6(_) => own.v6 = true,
        }
    }
    families
}

/// VIPs and their addresses, by name.
type Placed = (Vec<VipImage>, Vec<VipImage>);

fn place_vips(
    config: &Config,
    pools: &[PoolImage],
    maps: &Maps,
    numbers: &mut Numbers<'_>,
) -> Result<Placed, KernelError> {
    let by_name: HashMap<&str, u16> = pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.number))
        .collect();
    let mut places = Places::new(&maps.node()?);
    let mut vips = Vec::with_capacity(config.vips.len());
    let mut addresses: BTreeMap<IpAddr, VipImage> = BTreeMap::new();
    for vip in &config.vips {
        let pool = by_name.get(vip.pool.as_str()).ok_or_else(|| {
            KernelError::Capacity(format!("VIP {} names no pool of this file", vip.name))
        })?;
        let number = numbers.vip(&vip.name)?;
        vips.push(places.put(vip_entry(vip, number, *pool), &vip.name)?);
        if let Entry::Vacant(vacant) = addresses.entry(vip.address) {
            vacant.insert(places.put(address_entry(vip.address), "")?);
        }
    }
    Ok((vips, addresses.into_values().collect()))
}

/// A name as stored.
pub fn stored_name(text: &str) -> Name {
    name(text)
}
