//! K3: tables and backends that a walk finds unsound.

use lb_common::guard::Refusal;
use lb_common::invariant::ppm;
use lb_common::slot::forward_mode;
use lb_tests::draft::{Draft, Said};

use crate::{Refused, Running, pool_of, refused};

#[test]
fn tables_that_name_nobody_or_strangers() {
    let running = Running::new();
    running.refuses("one hole", |draft| {
        let pool = pool_of(draft, "new");
        draft.of_name("new").table.entries[7] = 0;
        (draft.walked(), refused(Refusal::Hole, &[pool, 1, 0, 0]))
    });
    running.refuses("three holes, the last entry among them", |draft| {
        let pool = pool_of(draft, "new");
        for place in [0, 100, 250] {
            draft.of_name("new").table.entries[place] = 0;
        }
        (draft.walked(), refused(Refusal::Hole, &[pool, 3, 0, 0]))
    });
    running.refuses("an entry beyond the pool's numbers", |draft| {
        let pool = draft.of_name("new");
        let beyond = pool.entry.member_limit + 1;
        pool.table.entries[250] = u16::try_from(beyond).expect("small");
        let numbers = [u64::from(pool.number), u64::from(beyond), 0, 0];
        (draft.walked(), refused(Refusal::BadEntry, &numbers))
    });
    running.refuses("an entry far beyond", |draft| {
        let pool = pool_of(draft, "new");
        draft.of_name("new").table.entries[0] = u16::MAX;
        let numbers = [pool, u64::from(u16::MAX), 0, 0];
        (draft.walked(), refused(Refusal::BadEntry, &numbers))
    });
    running.refuses("a backend that the slot has not", |draft| {
        let pool = pool_of(draft, "new");
        draft.of_name("new").table.entries[3] = 9;
        (draft.walked(), refused(Refusal::BadEntry, &[pool, 9, 0, 0]))
    });
    running.refuses("a backend that only ACTIVE has", |draft| {
        let pool = draft.of_name("web");
        let gone = pool.members.pop().expect("a backend");
        pool.entry.members -= 1;
        let number = u64::from(gone.id - pool.entry.member_base);
        let numbers = [u64::from(pool.number), number, 0, 0];
        (draft.walked(), refused(Refusal::BadEntry, &numbers))
    });
}

#[test]
fn backends_that_cannot_carry_their_share() {
    let running = Running::new();
    let bench = &running.bench;
    running.refuses("no next hop", |draft| {
        let pool = draft.of_name("new");
        pool.members[1].member.next_hop = 0;
        let number = u64::from(pool.members[1].id - pool.entry.member_base);
        let numbers = [u64::from(pool.number), number, 0, 0];
        (draft.walked(), refused(Refusal::NextHopMissing, &numbers))
    });
    bench.set_hop(2, 1500, false);
    running.refuses("an unresolved next hop", |draft| {
        let pool = draft.of_name("new");
        pool.members[0].member.next_hop = 2;
        let number = u64::from(pool.members[0].id - pool.entry.member_base);
        let numbers = [u64::from(pool.number), number, 0, 0];
        (draft.walked(), refused(Refusal::NextHopMissing, &numbers))
    });
    running.refuses("a next hop that does not exist", |draft| {
        let pool = draft.of_name("new");
        pool.members[0].member.next_hop = 60_000;
        let number = u64::from(pool.members[0].id - pool.entry.member_base);
        let numbers = [u64::from(pool.number), number, 0, 0];
        (draft.walked(), refused(Refusal::NextHopMissing, &numbers))
    });
    running.refuses("above its cap", |draft| {
        let pool = draft.of_name("new");
        pool.entry.max_share_ppm = 100_000;
        let first = u16::try_from(pool.members[0].id - pool.entry.member_base).expect("small");
        let count = pool
            .table
            .entries
            .iter()
            .filter(|entry| **entry == first)
            .count();
        let share = ppm(u32::try_from(count).expect("small"), 251);
        let numbers = [pool.number.into(), first.into(), share.into(), 100_000];
        (draft.walked(), refused(Refusal::AboveCap, &numbers))
    });
    running.refuses("fewer than the minimum", |draft| {
        let pool = draft.of_name("new");
        pool.entry.min_backends = 4;
        let numbers = [u64::from(pool.number), 3, 4, 0];
        (draft.walked(), refused(Refusal::TooFewBackends, &numbers))
    });
}

/// `vip` is sent to `pool`, whose first backend does not fit.
fn misled(draft: &mut Draft<'_>, vip: &str, pool: &str) -> (Said, Refused) {
    let (number, first) = {
        let pool = draft.of_name(pool);
        (pool.number, pool.members[0].id - pool.entry.member_base)
    };
    draft.vip_of_name(vip).entry.pool = number;
    let numbers = [u64::from(number), u64::from(first), 0, 0];
    (draft.walked(), refused(Refusal::Family, &numbers))
}

#[test]
fn families_and_modes_that_do_not_fit() {
    let running = Running::new();
    running.refuses("IPv6 in IPv4", |draft| misled(draft, "six", "new"));
    running.refuses("IPv6 to IPv4 by MAC address", |draft| {
        misled(draft, "six", "metal")
    });
    running.refuses("IPv4 to IPv6 by MAC address", |draft| {
        let pool = draft.of_name("new");
        pool.entry.forward = forward_mode::L2;
        for (host, image) in (1u8..).zip(&mut pool.members) {
            let mut bytes = [0xfd; 16];
            bytes[15] = host;
            image.member.address = lb_common::address::Address::v6(bytes);
            image.member.forward = forward_mode::L2;
        }
        misled(draft, "new", "new")
    });
    running.refuses("a backend of another mode than its pool", |draft| {
        draft.of_name("new").members[0].member.forward = forward_mode::L2;
        misled(draft, "new", "new")
    });
    running.refuses("a mode that does not exist", |draft| {
        let pool = draft.of_name("new");
        pool.entry.forward = 9;
        for image in &mut pool.members {
            image.member.forward = 9;
        }
        misled(draft, "new", "new")
    });
}
