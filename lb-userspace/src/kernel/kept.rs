//! Lookup tables that a change leaves as they are: taken from ACTIVE instead of being computed again.

use std::collections::BTreeMap;

use lb_common::control::NO_SLOT;
use lb_common::slot::{CHUNK_ENTRIES, chunks};

use super::KernelError;
use super::image::{MemberImage, TableImage};
use super::maps::Maps;
use super::numbers::Region;
use crate::config::{Config, FleetSeed, Pool};

/// What ACTIVE holds, as far as it is known.
pub(super) struct Kept<'a> {
    maps: &'a Maps,
    slot: u8,
    generation: u64,
    /// Pools of the committed configuration, by name; none if the seed is another.
    pools: BTreeMap<&'a str, &'a Pool>,
}

impl<'a> Kept<'a> {
    /// The committed configuration in ACTIVE.
    pub fn new(
        committed: Option<&'a Config>,
        seed: FleetSeed,
        maps: &'a Maps,
    ) -> Result<Self, KernelError> {
        let active = maps.record()?.map(|record| record.active);
        let slot = active.unwrap_or(NO_SLOT);
        let known = committed.filter(|_| slot != NO_SLOT);
        let same_seed = maps.node()?.fleet_key == seed.get();
        let known = known.filter(|_| same_seed);
        let pools = known.map_or(&[][..], |config| config.pools.as_slice());
        Ok(Self {
            maps,
            slot,
            generation: match known {
                Some(_) => maps.header(slot)?.generation,
                None => 0,
            },
            pools: pools
                .iter()
                .map(|pool| (pool.name.as_str(), pool))
                .collect(),
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
        let entry = self.maps.pool(&node, self.slot, number)?;
        if entry.generation != self.generation || entry.member_base != region.base {
            return Ok(None);
        }
        let header = self.maps.table_header(entry.table)?;
        if header.pool != number || header.size != pool.table_size {
            return Ok(None);
        }
        let Some(entries) = self.entries(header.start, header.size) else {
            return Ok(None);
        };
        Ok(
            names_only(&entries, pool, region, members).then_some(TableImage {
                id: entry.table,
                start: header.start,
                entries,
                shared: true,
            }),
        )
    }

    fn entries(&self, start: u32, size: u32) -> Option<Vec<u16>> {
        let length = usize::try_from(size).ok()?;
        let mut entries = Vec::with_capacity(length.saturating_add(CHUNK_ENTRIES));
        for index in 0..chunks(size) {
            entries.extend(self.maps.chunk(start.checked_add(index)?)?);
        }
        entries.truncate(length);
        Some(entries)
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
