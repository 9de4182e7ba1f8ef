//! Lookup tables of pools, allocated: what goes between a [`Pool`] and [`lb_common::maglev`].

use lb_common::maglev::{self, MaglevError, Turn, Weighted};

use crate::config::{Backend, FleetSeed, Pool};

/// The lookup table of a pool: `table_size` backend numbers, none of them 0.
///
/// `number_of` gives a backend's number in its pool (1 to 65535). Only backends that
/// [`Pool::in_table`] yields are asked for.
pub fn lookup_table(
    pool: &Pool,
    seed: FleetSeed,
    number_of: impl Fn(&Backend) -> u16,
) -> Result<Vec<u16>, MaglevError> {
    if !maglev::is_table_size(pool.table_size) {
        return Err(MaglevError::TableSize);
    }
    let backends: Vec<Weighted> = pool
        .in_table()
        .map(|backend| Weighted {
            key: maglev::name_key(seed.get(), backend.name.as_bytes()),
            weight: backend.table_weight(),
            number: number_of(backend),
        })
        .collect();
    let size = usize::try_from(pool.table_size).map_err(|_| MaglevError::TableSize)?;
    let mut table = vec![0; size];
    let mut scratch = vec![Turn::default(); backends.len()];
    maglev::fill(&mut table, &backends, &mut scratch)?;
    Ok(table)
}
