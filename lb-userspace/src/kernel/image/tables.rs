//! Lookup tables of an image: those of ACTIVE or LKG that are the very same, and new ones.

use std::collections::BTreeMap;
use std::num::NonZero;

use lb_common::control::NO_SLOT;
use lb_common::slot::{PoolEntry, chunks};

use super::super::KernelError;
use super::super::maps::Maps;
use super::super::numbers::Numbers;
use super::super::server_ids;
use super::pools::Numbered;
use super::{MemberImage, TableImage};
use crate::config::{Backend, FleetSeed};
use crate::lookup::lookup_table;

/// Fills the tables of pools, shared out over as many threads as there are CPUs: with a thousand pools it is
/// what takes the longest.
pub(super) fn fill_all(
    pools: &[&Numbered<'_>],
    seed: FleetSeed,
) -> Result<Vec<Vec<u16>>, KernelError> {
    let fill = |part: &[&Numbered<'_>]| -> Result<Vec<Vec<u16>>, KernelError> {
        part.iter().map(|pool| filled(pool, seed)).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = pools.len().div_ceil(threads).max(1);
    if part >= pools.len() {
        return fill(pools);
    }
    let parts: Result<Vec<Vec<Vec<u16>>>, KernelError> = std::thread::scope(|scope| {
        let parts = pools.chunks(part);
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || fill(part))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            let died = |_| KernelError::NoAnswer("a thread that fills tables".to_owned());
            thread.join().map_err(died)?
        };
        threads.into_iter().map(join).collect()
    });
    Ok(parts?.into_iter().flatten().collect())
}

fn filled(laid: &Numbered<'_>, seed: FleetSeed) -> Result<Vec<u16>, KernelError> {
    let relative: BTreeMap<&str, u16> = laid
        .members
        .iter()
        .filter_map(|member| {
            Some((
                member.name.as_str(),
                u16::try_from(member.id.checked_sub(laid.region.base)?).ok()?,
            ))
        })
        .collect();
    let number_of = |backend: &Backend| {
        relative
            .get(backend.name.as_str())
            .copied()
            .unwrap_or_default()
    };
    lookup_table(laid.pool, seed, number_of)
        .map_err(|e| KernelError::Capacity(format!("pool {}: {e}", laid.pool.name)))
}

/// The lookup table with these entries.
pub(super) fn table_image(
    laid: &Numbered<'_>,
    entries: Vec<u16>,
    maps: &Maps,
    numbers: &mut Numbers<'_>,
) -> Result<TableImage, KernelError> {
    placed(laid.number, entries, |entry| entry.table, maps, numbers)
}

/// The index of the pool's QUIC server ids.
pub(super) fn ids_image(
    laid: &Numbered<'_>,
    maps: &Maps,
    numbers: &mut Numbers<'_>,
) -> Result<Option<TableImage>, KernelError> {
    let pool = laid.pool;
    let id_of = |member: &MemberImage| {
        let backend = pool.backends.iter().find(|b| b.name == member.name)?;
        let relative = u16::try_from(member.id.checked_sub(laid.region.base)?).ok()?;
        Some((backend.quic_id?, relative))
    };
    let has_ids = pool
        .backends
        .iter()
        .any(|backend| backend.quic_id.is_some());
    let members = laid.members.iter().filter(|_| has_ids);
    let ids: Vec<(u32, u16)> = members.filter_map(id_of).collect();
    let entries = server_ids::index(&ids).ok_or_else(|| {
        KernelError::Capacity(format!("pool {}: its quic_ids do not spread", pool.name))
    })?;
    if entries.is_empty() {
        return Ok(None);
    }
    let which = |entry: &PoolEntry| entry.ids_table;
    placed(laid.number, entries, which, maps, numbers).map(Some)
}

/// A table of a pool: the one that ACTIVE or LKG has, or a new one.
fn placed(
    pool: u16,
    entries: Vec<u16>,
    which: fn(&PoolEntry) -> u32,
    maps: &Maps,
    numbers: &mut Numbers<'_>,
) -> Result<TableImage, KernelError> {
    let size = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    if let Some((id, start)) = same_table(pool, &entries, which, maps)? {
        return Ok(TableImage {
            id,
            start,
            size,
            entries,
            shared: true,
        });
    }
    let (id, start) = numbers.table(chunks(size))?;
    Ok(TableImage {
        id,
        start,
        size,
        entries,
        shared: false,
    })
}

/// The table of this pool in ACTIVE or LKG, if it is the very same.
fn same_table(
    pool: u16,
    entries: &[u16],
    which: fn(&PoolEntry) -> u32,
    maps: &Maps,
) -> Result<Option<(u32, u32)>, KernelError> {
    let Some(record) = maps.record()? else {
        return Ok(None);
    };
    let node = maps.node()?;
    for slot in [record.active, record.lkg] {
        if slot == NO_SLOT {
            continue;
        }
        let entry = maps.pool(&node, slot, pool)?;
        let table = which(&entry);
        if entry.generation != maps.header(slot)?.generation || table == 0 {
            continue;
        }
        let header = maps.table_header(table)?;
        let same = usize::try_from(header.size).is_ok_and(|size| size == entries.len())
            && header.pool == pool
            && entries.chunks(32).zip(header.start..).all(|(part, index)| {
                maps.chunk(index)
                    .is_some_and(|chunk| chunk.iter().zip(part).all(|(a, b)| a == b))
            });
        if same {
            return Ok(Some((table, header.start)));
        }
    }
    Ok(None)
}
