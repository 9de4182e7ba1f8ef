//! What a change leaves as it is: pools that ACTIVE has too, and lookup tables that need not be computed again.

use std::collections::HashMap;

use lb_common::control::NO_SLOT;
use lb_common::slot::{PoolEntry, pool_seal};

use super::KernelError;
use super::image::{MemberImage, PoolImage, TableImage};
use super::maps::Maps;
use super::numbers::Region;
use crate::config::{Config, Digest, FleetSeed, Pool};

/// A configuration that ACTIVE is said to hold.
#[derive(Clone, Debug)]
pub struct Known {
    /// The configuration.
    pub config: Config,
    /// Its digest: ACTIVE holds it iff the slot has the same.
    pub digest: Digest,
}

/// Families of the VIPs that use a pool.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// What ACTIVE holds, as far as it is known.
pub(super) struct Kept<'a> {
    maps: &'a Maps,
    slot: u8,
    generation: u64,
    /// Pools of the committed configuration, by name; none if ACTIVE holds another, or tables by another
    /// seed.
    pools: HashMap<&'a str, &'a Pool>,
}

impl<'a> Kept<'a> {
    /// What is known to be in ACTIVE.
    pub fn new(
        known: Option<&'a Known>,
        seed: FleetSeed,
        maps: &'a Maps,
    ) -> Result<Self, KernelError> {
        let active = maps.record()?.map(|record| record.active);
        let slot = active.filter(|slot| *slot != NO_SLOT);
        let same_seed = maps.node()?.fleet_key == seed.get();
        let (Some(known), Some(slot), true) = (known, slot, same_seed) else {
            return Ok(Self::nothing(maps));
        };
        let header = maps.header(slot)?;
        if header.digest != known.digest.0 {
            return Ok(Self::nothing(maps));
        }
        let pools = known.config.pools.iter();
        Ok(Self {
            maps,
            slot,
            generation: header.generation,
            pools: pools.map(|pool| (pool.name.as_str(), pool)).collect(),
        })
    }

    fn nothing(maps: &'a Maps) -> Self {
        Self {
            maps,
            slot: 0,
            generation: 0,
            pools: HashMap::new(),
        }
    }

    /// The pool as it is in ACTIVE, if both configurations have it alike and it fits its VIPs as it is.
    pub fn pool(
        &self,
        pool: &Pool,
        number: u16,
        serves: Families,
    ) -> Result<Option<PoolImage>, KernelError> {
        if self
            .pools
            .get(pool.name.as_str())
            .is_none_or(|old| *old != pool)
        {
            return Ok(None);
        }
        let node = self.maps.node()?;
        let entry = self.maps.pool(&node, self.slot, number)?;
        let fits = (!serves.v4 || entry.serves_v4 == 1) && (!serves.v6 || entry.serves_v6 == 1);
        let there = entry.generation == self.generation && entry.sealed != pool_seal::OPEN;
        if !there || !fits {
            return Ok(None);
        }
        let ids = match entry.ids_table {
            0 => None,
            id => Some(self.table_of(id)?),
        };
        Ok(Some(PoolImage {
            number,
            name: pool.name.clone(),
            entry,
            table: self.table_of(entry.table)?,
            ids,
            members: Vec::new(),
            kept: true,
        }))
    }

    fn table_of(&self, id: u32) -> Result<TableImage, KernelError> {
        let header = self.maps.table_header(id)?;
        Ok(TableImage {
            id,
            start: header.start,
            size: header.size,
            entries: Vec::new(),
            shared: true,
        })
    }

    /// The table of this pool in ACTIVE, if both configurations make it the same. One that names anybody
    /// else than the pool's backends is not taken.
    pub fn table(
        &self,
        pool: &Pool,
        number: u16,
        region: Region,
        members: &[MemberImage],
    ) -> Result<Option<TableImage>, KernelError> {
        let before = self.pools.get(pool.name.as_str());
        if before.is_none_or(|before| !before.same_table(pool)) {
            return Ok(None);
        }
        let node = self.maps.node()?;
        let entry: PoolEntry = self.maps.pool(&node, self.slot, number)?;
        if entry.generation != self.generation || entry.member_base != region.base {
            return Ok(None);
        }
        let header = self.maps.table_header(entry.table)?;
        if header.pool != number || header.size != pool.table_size {
            return Ok(None);
        }
        let Some(entries) = self.maps.entries(header.start, header.size) else {
            return Ok(None);
        };
        Ok(
            names_only(&entries, pool, region, members).then_some(TableImage {
                id: entry.table,
                start: header.start,
                size: header.size,
                entries,
                shared: true,
            }),
        )
    }
}

/// Whether a table names the pool's backends, all of them and nobody else.
fn names_only(entries: &[u16], pool: &Pool, region: Region, members: &[MemberImage]) -> bool {
    let numbers = usize::try_from(region.limit).unwrap_or(usize::MAX);
    let mut named = vec![false; numbers.saturating_add(1)];
    for entry in entries {
        match named.get_mut(usize::from(*entry)) {
            Some(named) => *named = true,
            None => return false,
        }
    }
    let mut wanted = vec![false; named.len()];
    let in_table = |member: &&MemberImage| {
        let backend = pool.backends.binary_search_by(|b| b.name.cmp(&member.name));
        let backend = backend.ok().and_then(|place| pool.backends.get(place));
        backend.is_some_and(|backend| backend.table_weight() > 0)
    };
    for member in members.iter().filter(in_table) {
        let number = member.id.saturating_sub(region.base);
        if let Some(wanted) = usize::try_from(number).ok().and_then(|n| wanted.get_mut(n)) {
            *wanted = true;
        }
    }
    named == wanted
}
