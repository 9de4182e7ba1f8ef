//! Numbers of VIPs, pools and backends: they follow the names over generations.
//!
//! Nothing is kept on disk: the kernel's maps hold names beside numbers, and what a committed slot
//! uses keeps its number. So an agent that starts anew, with the pins alone, goes on where the
//! last one stopped.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

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
pub struct Numbers<'a> {
    maps: &'a Maps,
    node: Node,
    vips: BTreeMap<String, u16>,
    pools: BTreeMap<String, u16>,
    regions: BTreeMap<u16, Region>,
    /// Regions that backends were looked for in, by their base.
    searched_regions: HashMap<u32, Taken>,
    /// Tables that ACTIVE or LKG uses: id to (start, chunks).
    tables: BTreeMap<u32, (u32, u32)>,
    used_vips: BTreeSet<u16>,
    used_pools: BTreeSet<u16>,
    /// Stretches of member ids that are taken, once they are asked for.
    taken: Option<BTreeMap<u32, u32>>,
    /// Size of the last region that room was sought for, and where the search ended.
    searched: Option<(u32, u32)>,
    /// Elements that tables take: first, and how many.
    starts: BTreeMap<u32, u32>,
    /// The same search for lookup tables: id, and size and element.
    searched_table: Option<(u32, u32, u32)>,
}

/// What is taken in a region: only those that a change is about are looked at.
struct Taken {
    /// Members that are there, by pool and identity.
    own: HashMap<(u16, u64), (u32, Member)>,
    ids: HashSet<u32>,
    /// Last id given: nothing below it is free.
    given: u32,
}

impl Taken {
    fn read(maps: &Maps, region: Region) -> Self {
        let mut taken = Self {
            own: HashMap::new(),
            ids: HashSet::new(),
            given: region.base,
        };
        for id in region.ids() {
            if let Some(member) = maps.member(id).filter(|member| member.identity != 0) {
                let key = (member.pool, member.identity);
                taken.own.entry(key).or_insert((id, member));
                taken.ids.insert(id);
            }
        }
        taken
    }
}

impl Region {
    /// Its member ids.
    fn ids(self) -> RangeInclusive<u32> {
        self.base.saturating_add(1)..=self.base.saturating_add(self.limit)
    }
}

impl<'a> Numbers<'a> {
    /// Reads the maps.
    pub fn read(maps: &'a Maps) -> Result<Self, KernelError> {
        let mut numbers = Self {
            maps,
            node: maps.node()?,
            vips: BTreeMap::new(),
            pools: BTreeMap::new(),
            regions: BTreeMap::new(),
            searched_regions: HashMap::new(),
            tables: BTreeMap::new(),
            used_vips: BTreeSet::new(),
            used_pools: BTreeSet::new(),
            taken: None,
            searched: None,
            starts: BTreeMap::new(),
            searched_table: None,
        };
        numbers.read_names()?;
        let Some(record) = maps.record()? else {
            return Ok(numbers);
        };
        let mut bits = 0u16;
        for slot in [record.active, record.lkg] {
            if slot != NO_SLOT {
                bits |= 1 << slot;
                numbers.read_slot(slot)?;
            }
        }
        numbers.read_tables(bits)?;
        Ok(numbers)
    }

    fn read_names(&mut self) -> Result<(), KernelError> {
        for vip in 0..u16::try_from(self.node.vips).unwrap_or(u16::MAX) {
            let name = self.maps.vip_name(vip)?;
            if !name.is_empty() {
                self.vips.insert(name, vip);
            }
        }
        for pool in 0..u16::try_from(self.node.pools).unwrap_or(u16::MAX) {
            let name = self.maps.pool_name(pool)?;
            if !name.is_empty() {
                self.pools.insert(name, pool);
            }
        }
        Ok(())
    }

    fn read_slot(&mut self, slot: u8) -> Result<(), KernelError> {
        let maps = self.maps;
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

    fn read_tables(&mut self, bits: u16) -> Result<(), KernelError> {
        for table in 1..self.node.tables {
            let header = self.maps.table_header(table)?;
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
    fn room(&mut self, limit: u32) -> Option<Region> {
        if self.taken.is_none() {
            self.taken = Some(self.stretches());
        }
        let taken = self.taken.as_mut()?;
        // What was too small for a region is too small for one as large.
        let mut first = match self.searched {
            Some((least, first)) if limit >= least => first,
            _ => 1,
        };
        for (start, end) in taken
            .range(..first)
            .next_back()
            .into_iter()
            .chain(taken.range(first..))
        {
            if *start >= first.saturating_add(limit) {
                break;
            }
            first = first.max(end.saturating_add(1));
        }
        self.searched = Some((limit, first));
        let fits = first.saturating_add(limit) <= self.node.members;
        if fits {
            taken.insert(first, first.saturating_add(limit).saturating_sub(1));
        }
        fits.then(|| Region {
            base: first.saturating_sub(1),
            limit,
        })
    }

    /// What regions and members without one take: first and last id.
    fn stretches(&self) -> BTreeMap<u32, u32> {
        let ends = |region: &Region| {
            (
                region.base.saturating_add(1),
                region.base.saturating_add(region.limit),
            )
        };
        let mut taken: BTreeMap<u32, u32> = self.regions.values().map(ends).collect();
        for (id, _) in self.members() {
            let within = taken.range(..=id).next_back();
            if within.is_none_or(|(_, end)| *end < id) {
                taken.insert(id, id);
            }
        }
        taken
    }

    /// Id of a backend in its pool's region: its own, else a free one; `None` if the region is full.
    pub fn member(&mut self, region: Region, wanted: &Member) -> Option<u32> {
        let maps = self.maps;
        let taken = self.searched_regions.entry(region.base);
        let taken = taken.or_insert_with(|| Taken::read(maps, region));
        let key = (wanted.pool, wanted.identity);
        let same =
            |member: &Member| member.address == wanted.address && member.forward == wanted.forward;
        if let Some((id, _)) = taken.own.get(&key).filter(|(_, member)| same(member)) {
            return Some(*id);
        }
        // Ids are given away only, so nothing below the last one given is free.
        let mut above = taken.given.saturating_add(1)..=*region.ids().end();
        let id = above.find(|id| !taken.ids.contains(id))?;
        taken.given = id;
        taken.own.insert(key, (id, *wanted));
        taken.ids.insert(id);
        Some(id)
    }

    /// Every number that is a backend's.
    fn members(&self) -> impl Iterator<Item = (u32, Member)> {
        let all = (1..self.node.members).filter_map(|id| Some((id, self.maps.member(id)?)));
        all.filter(|(_, member)| member.identity != 0)
    }

    /// Ids that no slot has: candidates for being freed.
    pub fn idle_members(&self) -> Vec<u32> {
        let idle = self.members().filter(|(_, member)| member.slots == 0);
        idle.map(|(id, _)| id).collect()
    }

    /// A free table id and room for `chunks` elements.
    pub fn table(&mut self, chunks: u32) -> Result<(u32, u32), KernelError> {
        let searched = self.searched_table;
        let first = searched.map_or(1, |(id, ..)| id);
        let id = (first..self.node.tables)
            .find(|id| !self.tables.contains_key(id))
            .ok_or_else(|| full("pools", self.node.pools))?;
        let from = match searched {
            Some((_, least, from)) if chunks >= least => from,
            _ => 0,
        };
        let start = self.elements(chunks, from);
        if start.saturating_add(chunks) > self.node.chunks {
            return Err(full("lookup_entries", self.node.chunks.saturating_mul(32)));
        }
        self.tables.insert(id, (start, chunks));
        self.starts.insert(start, chunks);
        self.searched_table = Some((id, chunks, start));
        Ok((id, start))
    }

    /// First stretch of `chunks` elements from `start` on that no table takes.
    fn elements(&mut self, chunks: u32, mut start: u32) -> u32 {
        if self.starts.is_empty() {
            self.starts = self.tables.values().copied().collect();
        }
        let before = self.starts.range(..start).next_back();
        for (from, length) in before.into_iter().chain(self.starts.range(start..)) {
            if *from >= start.saturating_add(chunks) {
                break;
            }
            start = start.max(from.saturating_add(*length));
        }
        start
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
