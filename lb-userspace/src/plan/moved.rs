//! How much of a VIP's lookup table moves between two configurations.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::invariant::{MILLION, ppm};
use lb_common::maglev::MaglevError;

use super::{Fate, VipPlan};
use crate::config::{Config, FleetSeed, Pool, Vip};
use crate::lookup::lookup_table;

/// A pool's table, entries as places in the list of its backends.
struct Table<'a> {
    entries: Vec<u16>,
    backends: Vec<(&'a str, IpAddr)>,
}

/// Tables of both configurations, filled once a pool.
pub(super) struct Tables<'a> {
    seed: FleetSeed,
    old: BTreeMap<&'a str, Table<'a>>,
    new: BTreeMap<&'a str, Table<'a>>,
    moved: BTreeMap<&'a str, u32>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(seed: FleetSeed) -> Self {
        Self {
            seed,
            old: BTreeMap::new(),
            new: BTreeMap::new(),
            moved: BTreeMap::new(),
        }
    }

    /// A VIP that both configurations have.
    pub(super) fn compare(
        &mut self,
        old: &'a Config,
        was: &'a Vip,
        new: &'a Config,
        vip: &'a Vip,
    ) -> Result<VipPlan, MaglevError> {
        let (Some(before), Some(after)) = (old.pool(&was.pool), new.pool(&vip.pool)) else {
            return Ok(VipPlan::same(vip));
        };
        let encap_changed = before.forward != after.forward || before.mtu != after.mtu;
        let moved_ppm = if was.flags != vip.flags
            || before.name != after.name
            || before.table_size != after.table_size
        {
            u32::try_from(MILLION).unwrap_or(u32::MAX)
        } else {
            ppm(self.entries_moved(before, after)?, after.table_size)
        };
        let fate = if encap_changed || moved_ppm > 0 {
            Fate::Changed
        } else {
            Fate::Same
        };
        Ok(VipPlan {
            fate,
            moved_ppm,
            encap_changed,
            ..VipPlan::same(vip)
        })
    }

    /// Entries of a pool's table that name another backend afterwards.
    fn entries_moved(&mut self, before: &'a Pool, after: &'a Pool) -> Result<u32, MaglevError> {
        if let Some(moved) = self.moved.get(after.name.as_str()) {
            return Ok(*moved);
        }
        if before.same_table(after) {
            self.moved.insert(&after.name, 0);
            return Ok(0);
        }
        let old = table(self.seed, &mut self.old, before)?;
        let new = table(self.seed, &mut self.new, after)?;
        let same_mode = before.forward == after.forward;
        let differ = old.entries.iter().zip(&new.entries).filter(|(a, b)| {
            // A backend is the same one by name, address and mode.
            !same_mode || old.backends.get(usize::from(**a)) != new.backends.get(usize::from(**b))
        });
        let moved = u32::try_from(differ.count()).unwrap_or(u32::MAX);
        self.moved.insert(&after.name, moved);
        Ok(moved)
    }
}

fn table<'a, 'b>(
    seed: FleetSeed,
    tables: &'b mut BTreeMap<&'a str, Table<'a>>,
    pool: &'a Pool,
) -> Result<&'b Table<'a>, MaglevError> {
    if !tables.contains_key(pool.name.as_str()) {
        let mut backends = vec![("", IpAddr::from([0, 0, 0, 0]))];
        backends.extend(pool.backends.iter().map(|b| (b.name.as_str(), b.address)));
        let places: BTreeMap<&str, u16> = (0u16..)
            .zip(&backends)
            .map(|(place, (name, _))| (*name, place))
            .collect();
        let entries = lookup_table(pool, seed, |backend| {
            places
                .get(backend.name.as_str())
                .copied()
                .unwrap_or_default()
        })?;
        tables.insert(&pool.name, Table { entries, backends });
    }
    tables.get(pool.name.as_str()).ok_or(MaglevError::TableSize)
}
