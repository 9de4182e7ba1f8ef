//! A slot with pools that are taken over from ACTIVE is the slot that is written in full, byte by byte.

use lb_common::control::{ControlRecord, NO_SLOT};
use lb_common::slot::{PoolEntry, SlotHeader, pool_seal};
use lb_tests::kept::{Keeper, Kept};
use lb_userspace::kernel::kept::Known;
use zerocopy::{FromBytes, IntoBytes};

use crate::Running;
use crate::services::{good, nearby};

/// All of a sealed slot, but for what tells when and how it was written.
fn content(running: &Running, slot: u8) -> Kept {
    let record = ControlRecord {
        active: slot,
        lkg: NO_SLOT,
        ..running.bench.record()
    };
    let mut all = Keeper::read(&running.bpffs.pins(), running.bench.kernel.node, &record);
    all.remove(&("pointer", 0));
    for ((map, _), bytes) in &mut all {
        match *map {
            "SLOT_HEADERS" => {
                let header = SlotHeader::read_from_bytes(bytes).unwrap();
                let header = SlotHeader {
                    generation: 0,
                    sealed_ns: 0,
                    ..header
                };
                *bytes = header.as_bytes().to_vec();
            }
            "POOLS" => *bytes = comparable(bytes),
            _ => {}
        }
    }
    all
}

/// A pool's record without the generation that it was written for, and whether it was walked or kept.
fn comparable(bytes: &[u8]) -> Vec<u8> {
    let entry = PoolEntry::read_from_bytes(bytes).unwrap();
    let entry = PoolEntry {
        generation: 0,
        sealed: u8::from(entry.sealed != pool_seal::OPEN),
        // Of a table that is the same nothing is compared.
        compared_with: 0,
        compared_moved: 0,
        ..entry
    };
    entry.as_bytes().to_vec()
}

/// Pools of slots that were in use before are none of this one's.
fn live(running: &Running, slot: u8, all: Kept) -> Kept {
    let maps = &running.bench.kernel.maps;
    let generation = maps.header(slot).unwrap().generation;
    let pools = usize::try_from(running.bench.kernel.node.pools).unwrap();
    all.into_iter()
        .filter(|((map, number), _)| {
            let pool = u16::try_from(number % pools).unwrap();
            *map != "POOLS"
                || maps
                    .pool(&running.bench.kernel.node, slot, pool)
                    .is_ok_and(|entry| entry.generation == generation)
        })
        .collect()
}

#[test]
fn a_slot_with_kept_pools_is_the_slot_in_full() {
    let mut running = Running::new("kept pools");
    let (mut kept, mut put) = (0, 0);
    for number in 0..40 {
        running.recycle();
        if number % 10 == 9 {
            running.another_base();
        }
        let config = running.bench.config(&running.text);
        let known = Known {
            digest: config.digest(),
            config,
        };
        let text = match running.random.below(4) {
            0 => good(&mut running.random),
            _ => nearby(&running.text, &mut running.random),
        };
        let new = running.bench.config(&text);
        // Both before either is staged: what is staged takes numbers.
        let image = running.bench.image_after(&known, &new, new.digest());
        let in_full = running.bench.image_of(&new);
        assert!(!in_full.keeps());
        kept += image.pools.iter().filter(|pool| pool.kept).count();
        put += image.pools.iter().filter(|pool| !pool.kept).count();
        let first = running.bench.stage(&image).unwrap();
        let with_kept = live(&running, first.slot, content(&running, first.slot));
        let second = running.bench.stage(&in_full).unwrap();
        let full = live(&running, second.slot, content(&running, second.slot));
        assert_eq!(first.class, second.class, "{number}\n{text}");
        assert_eq!(first.slot, second.slot, "SHADOW is the same slot again");
        for (place, bytes) in &full {
            assert_eq!(
                with_kept.get(place),
                Some(bytes),
                "{number}: {place:?}\n{}\n{text}",
                running.text
            );
        }
        assert_eq!(with_kept.len(), full.len(), "{number}");
    }
    assert!(kept > 20 && put > 20, "{kept} kept, {put} put");
}

/// A generation that keeps pools is kept from in its turn, and goes back as any other.
#[test]
fn pools_are_kept_over_many_generations() {
    let mut running = Running::new("kept for long");
    let mut text = running.text.clone();
    for _ in 0..12 {
        let config = running.bench.config(&text);
        let known = Known {
            digest: config.digest(),
            config,
        };
        text = nearby(&text, &mut running.random);
        let new = running.bench.config(&text);
        let image = running.bench.image_after(&known, &new, new.digest());
        assert!(image.keeps(), "all but one pool at the most is as it was");
        running.bench.stage(&image).unwrap();
        running.bench.trial(1).unwrap();
        running.bench.confirm().unwrap();
    }
    let last = running.bench.record();
    running.bench.revert().unwrap();
    assert_eq!(
        running.bench.active(),
        last.lkg_generation,
        "LKG is whole, too"
    );
}

/// ACTIVE is another one than is believed: nothing is kept.
#[test]
fn nothing_is_kept_of_what_active_does_not_hold() {
    let mut running = Running::new("another in ACTIVE");
    let config = running.bench.config(&running.text);
    let other = running.bench.config(&good(&mut running.random));
    let known = Known {
        config: config.clone(),
        digest: other.digest(),
    };
    assert_ne!(config.digest(), other.digest());
    let image = running.bench.image_after(&known, &config, config.digest());
    assert!(!image.keeps());
}
