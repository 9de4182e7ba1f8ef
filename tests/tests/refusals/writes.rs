//! K2, K5: what is not the slot's to write.

use lb_common::guard::{Op, Refusal};
use lb_common::slot::NextHop;
use lb_tests::draft::Draft;

use crate::{Running, base, change, refused};

#[test]
fn tables_that_are_not_the_slots_to_write() {
    let running = Running::new();
    let active = Draft::of(&running.bench, &base(4)).image.pools[0]
        .table
        .clone();
    assert!(active.shared, "ACTIVE's own table");
    let id = u64::from(active.id);
    running.refuses("a table that is not sealed", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        draft.open(pool.number, &pool.table).expect("open");
        draft.write(&pool.table).expect("write");
        draft.pool(&pool).expect("pool");
        draft.members(&pool.members).expect("members");
        (draft.walk(&pool), refused(Refusal::Incomplete, &[4, 0, 1]))
    });
    running.refuses("a table of another pool", |draft| {
        draft.cleared().expect("cleared");
        draft.of_name("new").entry.table = active.id;
        let pool = draft.of_name("new").clone();
        (draft.pool(&pool), refused(Refusal::InUse, &[id]))
    });
    running.refuses("a table that nobody has", |draft| {
        draft.cleared().expect("cleared");
        draft.of_name("new").entry.table = 50;
        let pool = draft.of_name("new").clone();
        (draft.pool(&pool), refused(Refusal::InUse, &[50]))
    });
    running.refuses("a table that does not exist", |draft| {
        draft.cleared().expect("cleared");
        draft.of_name("new").entry.table = 1 << 20;
        let pool = draft.of_name("new").clone();
        (draft.pool(&pool), refused(Refusal::OutOfRange, &[1 << 20]))
    });
    running.refuses("ACTIVE's table opened again", |draft| {
        draft.cleared().expect("cleared");
        (draft.open(0, &active), refused(Refusal::InUse, &[id]))
    });
    running.refuses("ACTIVE's table written", |draft| {
        draft.cleared().expect("cleared");
        (draft.write(&active), refused(Refusal::InUse, &[id]))
    });
    running.refuses("ACTIVE's table sealed again", |draft| {
        draft.cleared().expect("cleared");
        (draft.seal_table(&active), refused(Refusal::InUse, &[id]))
    });
    running.refuses("a sealed table of its own written", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        draft.table(&pool).expect("table");
        let own = u64::from(pool.table.id);
        (draft.write(&pool.table), refused(Refusal::InUse, &[own]))
    });
    running.refuses("a table across ACTIVE's", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        let mut table = pool.table;
        table.start = active.start + 1;
        (
            draft.open(pool.number, &table),
            refused(Refusal::Overlap, &[id]),
        )
    });
    running.refuses("a table beyond the map", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        let mut table = pool.table;
        table.start = draft.bench.kernel.node.chunks - 1;
        let own = u64::from(table.id);
        (
            draft.open(pool.number, &table),
            refused(Refusal::OutOfRange, &[own]),
        )
    });
    running.refuses("elements beyond a table", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        draft.open(pool.number, &pool.table).expect("open");
        let own = u64::from(pool.table.id);
        let said = draft.call(Op::WriteTable, &[own, 7, 2], &[0; 128]);
        (said, refused(Refusal::OutOfRange, &[own]))
    });
}

#[test]
fn pools_and_backends_that_are_not_as_announced() {
    let running = Running::new();
    running.refuses("a pool put twice", |draft| {
        draft.written().expect("written");
        let pool = draft.of_name("new").clone();
        let number = u64::from(pool.number);
        (draft.pool(&pool), refused(Refusal::InUse, &[number]))
    });
    running.refuses("a pool before the slot is cleared", |draft| {
        draft.begin().expect("begun");
        let pool = draft.of_name("web").clone();
        (draft.pool(&pool), refused(Refusal::Incomplete, &[5, 0]))
    });
    running.refuses("backends before their pool", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        (
            draft.members(&pool.members),
            refused(Refusal::Incomplete, &[2, 0, 1]),
        )
    });
    running.refuses("a pool walked that is not there", |draft| {
        draft.cleared().expect("cleared");
        let pool = draft.of_name("new").clone();
        (draft.walk(&pool), refused(Refusal::Incomplete, &[2, 0, 1]))
    });
    running.refuses("a backend fewer than the pool announces", |draft| {
        draft.of_name("new").entry.members = 4;
        (draft.walked(), refused(Refusal::Incomplete, &[3, 3, 4]))
    });
    running.refuses("another identity under ACTIVE's number", |draft| {
        let member = &mut draft.of_name("web").members[0];
        member.member.identity ^= 1;
        let id = u64::from(member.id);
        (draft.written(), refused(Refusal::InUse, &[id]))
    });
    running.refuses("another address under ACTIVE's number", |draft| {
        let member = &mut draft.of_name("web").members[2];
        member.member.address = lb_common::address::Address::v4([10, 9, 9, 9]);
        let id = u64::from(member.id);
        (draft.written(), refused(Refusal::InUse, &[id]))
    });
    running.refuses("another name under the number of ACTIVE's pool", |draft| {
        let pool = draft.of_name("web");
        "renamed".clone_into(&mut pool.name);
        let number = u64::from(pool.number);
        (draft.written(), refused(Refusal::InUse, &[number]))
    });
    running.refuses("another name under the number of ACTIVE's VIP", |draft| {
        let vip = draft.vip_of_name("web");
        "renamed".clone_into(&mut vip.name);
        let place = u64::from(vip.place);
        (draft.written(), refused(Refusal::InUse, &[place]))
    });
    running.refuses("a backend outside its pool's region", |draft| {
        let pool = draft.of_name("new");
        let outside = pool.entry.member_base + pool.entry.member_limit + 1;
        pool.members[0].id = outside;
        let numbers = [u64::from(outside)];
        (draft.written(), refused(Refusal::OutOfRange, &numbers))
    });
    running.refuses("a backend after its pool was walked", |draft| {
        draft.walked().expect("walked");
        let pool = draft.of_name("new").clone();
        let id = u64::from(pool.members[0].id);
        (draft.members(&pool.members), refused(Refusal::InUse, &[id]))
    });
    running.refuses("a region beyond the map", |draft| {
        let pool = draft.of_name("new");
        pool.entry.member_limit = u32::from(u16::MAX);
        let number = u64::from(pool.number);
        (draft.written(), refused(Refusal::OutOfRange, &[number]))
    });
}

/// What goes back to LKG is read out by its own names, too; a number that neither has is free for any.
#[test]
fn names_of_what_only_lkg_has_stay() {
    let running = Running::new();
    running.bench.commit(&change());
    running.bench.commit(&base(4));
    let numbers = |draft: &mut Draft<'_>| {
        let pool = draft.of_name("new").number;
        (pool, draft.vip_of_name("new").entry.vip)
    };
    running.refuses("another name under LKG's pool number", |draft| {
        let pool = draft.of_name("new");
        "renamed".clone_into(&mut pool.name);
        let number = u64::from(pool.number);
        (draft.written(), refused(Refusal::InUse, &[number]))
    });
    running.refuses("another name under LKG's VIP number", |draft| {
        let vip = draft.vip_of_name("new");
        "renamed".clone_into(&mut vip.name);
        let place = u64::from(vip.place);
        (draft.written(), refused(Refusal::InUse, &[place]))
    });
    running.bench.commit(&base(4));
    let mut draft = Draft::of(&running.bench, &change());
    let (pool, vip) = numbers(&mut draft);
    "renamed".clone_into(&mut draft.of_name("new").name);
    "renamed".clone_into(&mut draft.vip_of_name("new").name);
    draft.sealed().expect("sealed");
    let maps = &running.bench.kernel.maps;
    assert_eq!(maps.pool_name(pool).expect("name"), "renamed");
    assert_eq!(maps.vip_name(vip).expect("name"), "renamed");
}

#[test]
fn an_overlay_keeps_to_its_maps() {
    let running = Running::new();
    let hop = [0u8; size_of::<NextHop>()];
    running.refuses("next hop 0", |draft| {
        let said = draft.call(Op::PutNextHops, &[0, 1], &hop);
        (said, refused(Refusal::OutOfRange, &[0]))
    });
    running.refuses("a next hop beyond the map", |draft| {
        let beyond = u64::from(draft.bench.kernel.node.next_hops);
        let said = draft.call(Op::PutNextHops, &[beyond, 1], &hop);
        (said, refused(Refusal::OutOfRange, &[beyond]))
    });
    running.refuses("a member that is not there", |draft| {
        let said = draft.call(Op::SetMember, &[2_000, 0, 1], &[]);
        (said, refused(Refusal::OutOfRange, &[2_000]))
    });
    running.refuses("a state that does not exist", |draft| {
        let id = u64::from(draft.of_name("web").members[0].id);
        let said = draft.call(Op::SetMember, &[id, 3, 1], &[]);
        (said, refused(Refusal::OutOfRange, &[id]))
    });
    running.refuses("freeing a number that ACTIVE has", |draft| {
        let id = u64::from(draft.of_name("web").members[0].id);
        let said = draft.call(Op::FreeMember, &[id], &[]);
        (said, refused(Refusal::InUse, &[id]))
    });
}
