//! Slots that are incomplete, unreachable or stale.

use lb_common::guard::{Op, Refusal};
use lb_tests::draft::Draft;

use crate::{Running, refused};

#[test]
fn vips_that_no_packet_would_find() {
    let running = Running::new();
    running.refuses("a VIP where the hash does not look", |draft| {
        let places = draft.bench.kernel.node.vip_places;
        let vip = draft.vip_of_name("new");
        vip.place = (vip.place + 500) % places;
        let place = u64::from(vip.place);
        (draft.written(), refused(Refusal::OutOfRange, &[place]))
    });
    running.refuses("a VIP behind an empty place", |draft| {
        let places = draft.bench.kernel.node.vip_places;
        let vip = draft.vip_of_name("new");
        vip.place = (vip.place + 3) % places;
        let place = u64::from(vip.place);
        (draft.compared(), refused(Refusal::OutOfRange, &[place]))
    });
    running.refuses("a VIP whose address is not announced", |draft| {
        draft.image.addresses.clear();
        (draft.compared(), refused(Refusal::Incomplete, &[6, 0, 1]))
    });
    running.refuses("a VIP beyond the map", |draft| {
        draft.vip_of_name("new").place += 1 << 20;
        let place = u64::from(draft.vip_of_name("new").place);
        (draft.written(), refused(Refusal::OutOfRange, &[place]))
    });
    running.refuses("a VIP twice", |draft| {
        draft.written().expect("written");
        let places = draft.bench.kernel.node.vip_places;
        let mut again = draft.vip_of_name("new").clone();
        again.place = (again.place + 1) % places;
        let place = u64::from(again.place);
        (draft.vips(&[again]), refused(Refusal::InUse, &[place]))
    });
    running.refuses("a VIP of a pool that is not there", |draft| {
        draft.cleared().expect("cleared");
        let vip = draft.vip_of_name("new").clone();
        (draft.vips(&[vip]), refused(Refusal::Incomplete, &[2, 0, 1]))
    });
    running.refuses("a VIP of a pool that was walked", |draft| {
        draft.walked().expect("walked");
        let places = draft.bench.kernel.node.vip_places;
        let taken: Vec<u32> = draft.image.vips.iter().map(|vip| vip.place).collect();
        assert!(taken.iter().all(|place| *place < places));
        // Another key at its own place: the same address, any port.
        let mut other = draft.vip_of_name("new").clone();
        other.entry.port = 0;
        let key = draft.bench.kernel.node.tag_key;
        let entry = &other.entry;
        let hash = lb_common::hash::vip(key, &entry.address, 0, entry.protocol);
        other.place = u32::try_from(hash & u64::from(places - 1)).expect("small");
        let place = u64::from(other.place);
        (draft.vips(&[other]), refused(Refusal::InUse, &[place]))
    });
}

#[test]
fn vips_that_share_a_number() {
    let running = Running::new();
    running.refuses("two VIPs of one number", |draft| {
        let web = draft.vip_of_name("web");
        let (number, name) = (web.entry.vip, web.name.clone());
        let new = draft.vip_of_name("new");
        (new.entry.vip, new.name) = (number, name);
        let numbers = [u64::from(number)];
        (draft.sealed(), refused(Refusal::SharedNumber, &numbers))
    });
}

#[test]
fn slots_that_are_not_complete() {
    let running = Running::new();
    let sealed_with = |draft: &Draft<'_>, index: usize| {
        draft.compared().expect("compared");
        let mut totals = draft.totals();
        totals[index] += 1;
        draft.seal(totals)
    };
    for (index, what) in ["VIPs", "pools", "backends"].into_iter().enumerate() {
        running.refuses(what, |draft| {
            let have = draft.totals()[index];
            let numbers = [index as u64 + 1, have, have + 1];
            (
                sealed_with(draft, index),
                refused(Refusal::Incomplete, &numbers),
            )
        });
    }
    running.refuses("a VIP that was not compared", |draft| {
        draft.walked().expect("walked");
        for vip in &draft.image.vips[1..] {
            draft.compare(vip).expect("compared");
        }
        let count = draft.totals()[0];
        let numbers = [1, count - 1, count];
        (
            draft.seal(draft.totals()),
            refused(Refusal::Incomplete, &numbers),
        )
    });
    running.refuses("a pool that was not walked", |draft| {
        draft.written().expect("written");
        let unwalked = draft.image.pools.len() - 1;
        let (walked, rest) = draft.image.pools.split_at(unwalked);
        for pool in walked {
            draft.walk(pool).expect("walked");
        }
        for vip in draft
            .image
            .vips
            .iter()
            .filter(|vip| vip.entry.pool != rest[0].number)
        {
            draft.compare(vip).expect("compared");
        }
        let vips = draft.totals()[0];
        let numbers = [1, vips - 1, vips];
        (
            draft.seal(draft.totals()),
            refused(Refusal::Incomplete, &numbers),
        )
    });
    running.refuses("a VIP compared before its pool was walked", |draft| {
        draft.written().expect("written");
        let vip = draft.vip_of_name("new").clone();
        let pools = draft.totals()[1];
        (
            draft.compare(&vip),
            refused(Refusal::Incomplete, &[2, 0, pools]),
        )
    });
    running.refuses("a VIP compared twice", |draft| {
        draft.compared().expect("compared");
        let vip = draft.vip_of_name("new").clone();
        let place = u64::from(vip.place);
        (draft.compare(&vip), refused(Refusal::InUse, &[place]))
    });
    running.refuses("a write after the seal", |draft| {
        draft.sealed().expect("sealed");
        let pool = draft.of_name("new").clone();
        (
            draft.members(&pool.members),
            refused(Refusal::SlotState, &[2]),
        )
    });
}

#[test]
fn changes_that_come_from_the_past() {
    let running = Running::new();
    running.refuses("a base that is not ACTIVE", |draft| {
        let active = draft.base;
        draft.base = active - 1;
        (
            draft.begin(),
            refused(Refusal::StaleBase, &[active, active - 1]),
        )
    });
    running.refuses("a base that is not ACTIVE any more, at the seal", |draft| {
        draft.compared().expect("compared");
        let active = draft.base;
        draft.base = active - 1;
        (
            draft.seal(draft.totals()),
            refused(Refusal::StaleBase, &[active, active - 1]),
        )
    });
    running.refuses("an old generation", |draft| {
        draft.generation = draft.base;
        let highest = draft.bench.record().highest_generation;
        let numbers = [highest, draft.base];
        (draft.begin(), refused(Refusal::OldGeneration, &numbers))
    });
    running.refuses("no SHADOW", |draft| {
        draft.call(Op::Abandon, &[], &[]).expect("abandoned");
        (
            draft.call(Op::Clear, &[], &[]),
            refused(Refusal::SlotState, &[0]),
        )
    });
}
