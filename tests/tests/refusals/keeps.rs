//! Pools that are taken over from ACTIVE (K3): only what is proven there, and only as it is.

use lb_common::guard::{Op, Refusal};
use lb_tests::draft::Draft;

use crate::{Running, base, change, pool_of, refused};

#[test]
fn pools_that_are_not_actives_to_keep() {
    let running = Running::new();
    running.refuses("a pool that ACTIVE has not", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        (draft.keep(&pool), refused(Refusal::Incomplete, &[2, 0, 1]))
    });
    running.refuses("a pool beyond the map", |draft| {
        draft.cleared().expect("cleared");
        let beyond = u64::from(draft.bench.kernel.node.pools);
        (
            draft.call(Op::KeepPool, &[beyond], &[]),
            refused(Refusal::OutOfRange, &[beyond]),
        )
    });
    running.refuses("a pool before the slot is cleared", |draft| {
        draft.begin().expect("begun");
        let pool = draft.of_name("web").clone();
        (draft.keep(&pool), refused(Refusal::Incomplete, &[5, 0]))
    });
    running.refuses("a pool of another base", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("web").clone();
        let active = draft.base;
        draft.base = active - 1;
        (
            draft.keep(&pool),
            refused(Refusal::StaleBase, &[active, active - 1]),
        )
    });
    running.refuses("a pool after the seal", |draft| {
        draft.sealed().expect("sealed");
        let pool = draft.of_name("web").clone();
        (draft.keep(&pool), refused(Refusal::SlotState, &[2]))
    });
    // What only LKG has was proven once, too, but no flow goes there now.
    running.bench.commit(&change());
    running.bench.commit(&base(4));
    running.refuses("a pool that only LKG has", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        (draft.keep(&pool), refused(Refusal::Incomplete, &[2, 0, 1]))
    });
}

#[test]
fn pools_are_kept_as_they_are() {
    let running = Running::new();
    running.refuses("a pool kept twice", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("web").clone();
        draft.keep(&pool).expect("kept");
        let number = pool_of(draft, "web");
        (draft.keep(&pool), refused(Refusal::InUse, &[number]))
    });
    running.refuses("a pool put and kept", |draft| {
        draft.written().expect("written");
        let pool = draft.of_name("web").clone();
        let number = pool_of(draft, "web");
        (draft.keep(&pool), refused(Refusal::InUse, &[number]))
    });
    running.refuses("a pool kept and put", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("web").clone();
        draft.keep(&pool).expect("kept");
        let number = pool_of(draft, "web");
        (draft.pool(&pool), refused(Refusal::InUse, &[number]))
    });
    running.refuses("a backend added to what is kept", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("web").clone();
        draft.keep(&pool).expect("kept");
        let mut added = pool.members[0].clone();
        added.id = pool.entry.member_base + pool.entry.member_limit;
        let id = u64::from(added.id);
        (draft.members(&[added]), refused(Refusal::InUse, &[id]))
    });
    running.refuses("a VIP of a family that the pool never served", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("six").clone();
        draft.keep(&pool).expect("kept");
        let mut vip = draft.vip_of_name("new").clone();
        vip.entry.pool = pool.number;
        let place = u64::from(vip.place);
        (draft.vips(&[vip]), refused(Refusal::InUse, &[place]))
    });
}

/// The overlay is no part of what was proven: a backend that is up needs its next hop now.
#[test]
fn a_kept_pool_is_judged_by_what_its_backends_are_now() {
    let running = Running::new();
    let hop = |resolved| running.bench.set_hop(1, 1500, resolved);
    running.refuses("a pool whose next hops are lost", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("web").clone();
        hop(false);
        let number = pool_of(draft, "web");
        (
            draft.keep(&pool),
            refused(Refusal::NextHopMissing, &[number, 1]),
        )
    });
    hop(true);
    let mut draft = Draft::of(&running.bench, &change());
    draft.cleared().expect("cleared");
    let pool = draft.of_name("web").clone();
    let members = draft.keep(&pool).expect("kept")[0];
    assert_eq!(members, 4, "a refusal leaves nothing behind");
}
