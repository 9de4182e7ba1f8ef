//! The index of a pool's QUIC server ids, as the packet path reads it.

use lb_common::quic;
use lb_common::slot::CHUNK_ENTRIES;

/// Ids that a line has on the average: half of what it can have.
const LOAD: usize = quic::RECORDS / 2;
/// More lines than this for each id means that they do not spread, which a good hash rules out.
const MOST: usize = 64;

/// Lines of an index that has a backend's number for each id, or `None` if ids collide without end. No
/// ids, no lines.
pub fn index(ids: &[(u32, u16)]) -> Option<Vec<u16>> {
    if ids.is_empty() {
        return Some(Vec::new());
    }
    let mut lines = ids.len().div_ceil(LOAD);
    while lines <= ids.len().saturating_mul(MOST) {
        if let Some(entries) = fill(ids, lines) {
            return Some(entries);
        }
        lines = lines.saturating_mul(2);
    }
    None
}

/// Entries that an index of so many ids takes, unless they spread badly.
pub fn entries(ids: usize) -> usize {
    ids.div_ceil(LOAD).saturating_mul(CHUNK_ENTRIES)
}

fn fill(ids: &[(u32, u16)], lines: usize) -> Option<Vec<u16>> {
    let count = u32::try_from(lines).ok()?;
    let mut entries = vec![0; lines.checked_mul(CHUNK_ENTRIES)?];
    for (id, number) in ids {
        let start = usize::try_from(quic::line(*id, count))
            .ok()?
            .checked_mul(CHUNK_ENTRIES)?;
        let line = entries.get_mut(start..start.checked_add(CHUNK_ENTRIES)?)?;
        if !quic::put(line, *id, *number) {
            return None;
        }
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::slot::Chunk;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_is_found_where_the_packet_path_looks(ids in proptest::collection::btree_set(any::<u32>(), 0..600), stranger: u32) {
            let ids: Vec<(u32, u16)> = ids.into_iter().zip(1..).collect();
            let entries = index(&ids).unwrap();
            let (lines, rest) = entries.as_chunks::<CHUNK_ENTRIES>();
            prop_assert!(rest.is_empty());
            let find = |id: u32| {
                let line = quic::line(id, u32::try_from(lines.len()).unwrap());
                let line: &Chunk = &lines[line as usize];
                quic::find(line, id)
            };
            for (id, number) in &ids {
                prop_assert_eq!(find(*id), *number);
            }
            if !lines.is_empty() && ids.iter().all(|(id, _)| *id != stranger) {
                prop_assert_eq!(find(stranger), 0);
            }
        }
    }
}
