//! Numbers of VIPs, pools and backends: they follow the names over generations.
//!
//! Nothing is kept on disk: the kernel's maps hold names beside numbers, and what a committed slot
//! uses keeps its number. So an agent that starts anew, with the pins alone, goes on where the
//! last one stopped.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::control::NO_SLOT;
use lb_common::slot::{Member, Node, PoolEntry, table_state};

use super::KernelError;
use super::maps::Maps;

/// Backend numbers a pool gets at least, so that it can grow.
const REGION_MIN: u32 = 16;

/// A pool's place among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Member id of number 0, which does not exist.
    pub base: u32,
    /// Numbers are 1 to this.
    pub limit: u32,
}

/// What is taken, as the kernel's maps say.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    node: Node,
    vips: BTreeMap<String, u16>,
    pools: BTreeMap<String, u16>,
    regions: BTreeMap<u16, Region>,
    members: BTreeMap<u32, Member>,
    /// Tables that ACTIVE or LKG uses: id to (start, chunks).
    tables: BTreeMap<u32, (u32, u32)>,
    used_vips: BTreeSet<u16>,
    used_pools: BTreeSet<u16>,
}

impl Numbers {
    /// Reads the maps.
    pub fn read(maps: &Maps) -> Result<Self, KernelError> {
        let node = maps.node()?;
        let mut numbers = Self {
            node,
            ..Self::default()
        };
        numbers.read_members(maps);
        numbers.read_names(maps)?;
        let Some(record) = maps.record()? else {
            return Ok(numbers);
        };
        let mut bits = 0u16;
        for slot in [record.active, record.lkg] {
            if slot != NO_SLOT {
                bits |= 1 << slot;
                numbers.read_slot(maps, slot)?;
            }
        }
        numbers.read_tables(maps, bits)?;
        Ok(numbers)
    }

    fn read_members(&mut self, maps: &Maps) {
        for id in 1..self.node.members {
            if let Some(member) = maps.member(id).filter(|member| member.identity != 0) {
                self.members.insert(id, member);
            }
        }
    }

    fn read_names(&mut self, maps: &Maps) -> Result<(), KernelError> {
        for vip in 0..u16::try_from(self.node.vips).unwrap_or(u16::MAX) {
            let name = maps.vip_name(vip)?;
            if !name.is_empty() {
                self.vips.insert(name, vip);
            }
        }
        for pool in 0..u16::try_from(self.node.pools).unwrap_or(u16::MAX) {
            let name = maps.pool_name(pool)?;
            if !name.is_empty() {
                self.pools.insert(name, pool);
            }
        }
        Ok(())
    }

    fn read_slot(&mut self, maps: &Maps, slot: u8) -> Result<(), KernelError> {
        let generation = maps.header(slot)?.generation;
        for pool in 0..u16::try_from(self.node.pools).unwrap_or(u16::MAX) {
            let entry: PoolEntry = maps.pool(&self.node, slot, pool)?;
            if entry.generation == generation && entry.table != 0 {
                self.used_pools.insert(pool);
                let region = Region {
                    base: entry.member_base,
                    limit: entry.member_limit,
                };
                self.regions.insert(pool, region);
            }
        }
        for place in 0..self.node.vip_places {
            if let Some(entry) = maps.vip(&self.node, slot, place)
                && entry.kind == lb_common::slot::vip_kind::VIP
            {
                self.used_vips.insert(entry.vip);
            }
        }
        Ok(())
    }

    fn read_tables(&mut self, maps: &Maps, bits: u16) -> Result<(), KernelError> {
        for table in 1..self.node.tables {
            let header = maps.table_header(table)?;
            if header.slots & bits != 0 && header.state == table_state::SEALED {
                self.tables.insert(table, (header.start, header.chunks));
            }
        }
        Ok(())
    }

    /// Number of a VIP: its own, else one that no name has, else one that no slot uses.
    pub fn vip(&mut self, name: &str) -> Result<u16, KernelError> {
        let number = number(&mut self.vips, &self.used_vips, self.node.vips, name)
            .ok_or_else(|| full("vips", self.node.vips))?;
        self.used_vips.insert(number);
        Ok(number)
    }

    /// Number of a pool, as for VIPs.
    pub fn pool(&mut self, name: &str) -> Result<u16, KernelError> {
        let number = number(&mut self.pools, &self.used_pools, self.node.pools, name)
            .ok_or_else(|| full("pools", self.node.pools))?;
        self.used_pools.insert(number);
        Ok(number)
    }

    /// Region of a pool with `backends` backends: its own, else free room.
    pub fn region(&mut self, pool: u16, backends: usize) -> Result<Region, KernelError> {
        if let Some(region) = self.regions.get(&pool) {
            return Ok(*region);
        }
        let wanted = u32::try_from(backends)
            .unwrap_or(u32::MAX)
            .saturating_mul(2);
        let limit = wanted.max(REGION_MIN);
        let region = self
            .room(limit)
            .or_else(|| self.room(u32::try_from(backends).ok()?))
            .ok_or_else(|| full("backends", self.node.members))?;
        self.regions.insert(pool, region);
        Ok(region)
    }

    /// First stretch of `limit` ids that no region and no member takes.
    fn room(&self, limit: u32) -> Option<Region> {
        let mut taken: Vec<(u32, u32)> = self
            .regions
            .values()
            .map(|region| {
                (
                    region.base.saturating_add(1),
                    region.base.saturating_add(region.limit),
                )
            })
            .chain(self.members.keys().map(|id| (*id, *id)))
            .collect();
        taken.sort_unstable();
        let mut first = 1u32;
        for (start, end) in taken {
            if start >= first.saturating_add(limit) {
                break;
            }
            first = first.max(end.saturating_add(1));
        }
        let fits = first.saturating_add(limit) <= self.node.members;
        fits.then(|| Region {
            base: first.saturating_sub(1),
            limit,
        })
    }

    /// Id of a backend in its pool's region: its own, else a free one; `None` if the region is full.
    pub fn member(&mut self, region: Region, wanted: &Member) -> Option<u32> {
        let ids = region.base.saturating_add(1)..=region.base.saturating_add(region.limit);
        let own = self.members.range(ids.clone()).find(|(_, member)| {
            member.identity == wanted.identity
                && member.pool == wanted.pool
                && member.address == wanted.address
                && member.forward == wanted.forward
        });
        if let Some((id, _)) = own {
            return Some(*id);
        }
        let id = ids.into_iter().find(|id| !self.members.contains_key(id))?;
        self.members.insert(id, *wanted);
        Some(id)
    }

    /// Ids that no slot has: candidates for being freed.
    pub fn idle_members(&self) -> Vec<u32> {
        self.members
            .iter()
            .filter(|(_, member)| member.slots == 0)
            .map(|(id, _)| *id)
            .collect()
    }

    /// A free table id and room for `chunks` elements.
    pub fn table(&mut self, chunks: u32) -> Result<(u32, u32), KernelError> {
        let id = (1..self.node.tables)
            .find(|id| !self.tables.contains_key(id))
            .ok_or_else(|| full("pools", self.node.pools))?;
        let mut taken: Vec<(u32, u32)> = self.tables.values().copied().collect();
        taken.sort_unstable();
        let mut start = 0u32;
        for (from, length) in taken {
            if from >= start.saturating_add(chunks) {
                break;
            }
            start = start.max(from.saturating_add(length));
        }
        if start.saturating_add(chunks) > self.node.chunks {
            return Err(full("lookup_entries", self.node.chunks.saturating_mul(32)));
        }
        self.tables.insert(id, (start, chunks));
        Ok((id, start))
    }
}

fn number(
    names: &mut BTreeMap<String, u16>,
    used: &BTreeSet<u16>,
    limit: u32,
    name: &str,
) -> Option<u16> {
    if let Some(number) = names.get(name) {
        return Some(*number);
    }
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    let given: BTreeSet<u16> = names.values().copied().collect();
    let fresh = (0..limit).find(|number| !given.contains(number) && !used.contains(number));
    let number = if let Some(number) = fresh {
        number
    } else {
        let number = (0..limit).find(|number| !used.contains(number))?;
        names.retain(|_, taken| *taken != number);
        number
    };
    names.insert(name.to_owned(), number);
    Some(number)
}

fn full(what: &str, limit: u32) -> KernelError {
    KernelError::Capacity(format!(
        "no room for more {what}: agent.toml sets [tables] {what} for {limit} on this host; raise it, \
         run `lbguard unload` in a quiet hour and start the agent again"
    ))
}
