//! K3 and K4 over arrays: the judges that the kernel runs against the design said anew.
#![allow(
    clippy::unwrap_used,
    reason = "a strategy that cannot be built fails the test"
)]

use lb_common::address::Address;
use lb_common::slot::{Member, NextHop, PoolEntry, forward_mode, next_hop_flag};
use lb_tests::model::{PoolModel, VipModel, class, classified};
use proptest::prelude::*;
use zerocopy::FromZeros;

const POOL: u16 = 3;
const BIT: u8 = 2;

/// Next hop 1 is resolved, 2 is not, 3 has no interface, 4 does not exist.
fn hops() -> Vec<NextHop> {
    let hop = |flags, interface| NextHop {
        flags,
        interface,
        ..NextHop::new_zeroed()
    };
    let resolved = next_hop_flag::RESOLVED;
    vec![hop(0, 0), hop(resolved, 1), hop(0, 1), hop(resolved, 0)]
}

/// Mostly the first.
fn rarely<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = T> {
    let first = Just(values[0].clone());
    prop_oneof![9 => first, 1 => prop::sample::select(values)]
}

prop_compose! {
    fn member()(
        v4 in prop::bool::weighted(0.9),
        stray in rarely(vec![0, 1, 2, 3]),
        next_hop in rarely(vec![1u16, 0, 2, 3, 4]),
        state in rarely(vec![0u8, 1, 2]),
    ) -> Member {
        Member {
            address: if v4 { Address::v4([10, 0, 0, 1]) } else { Address::v6([0xfd; 16]) },
            pool: if stray == 1 { POOL + 1 } else { POOL },
            slots: if stray == 2 { 1 } else { BIT | 1 },
            forward: if stray == 3 { forward_mode::L2 } else { forward_mode::IPIP },
            next_hop,
            state,
            ..Member::new_zeroed()
        }
    }
}

prop_compose! {
    fn pool()(
        members in prop::collection::vec(member(), 1..6),
        members_off in rarely(vec![0u32, 1]),
        forward in rarely(vec![forward_mode::IPIP, forward_mode::L2, 9]),
        serves in (0u8..2, rarely(vec![0u8, 1])),
        min_backends in rarely(vec![1u32, 0, 2, 3, 4]),
        max_share_ppm in rarely(vec![0u32, 1_000_000, 500_000, 333_333, 333_334, 100_000]),
        sound in prop::bool::weighted(0.8),
    )(
        table in prop::collection::vec(
            u16::from(sound)..=u16::try_from(members.len()).unwrap() + u16::from(!sound),
            1..100,
        ),
        members in Just(members), members_off in Just(members_off), forward in Just(forward),
        serves in Just(serves), min_backends in Just(min_backends),
        max_share_ppm in Just(max_share_ppm),
    ) -> PoolModel {
        let there = members.iter().filter(|m| m.slots & BIT != 0 && m.pool == POOL).count();
        PoolModel {
            number: POOL,
            entry: PoolEntry {
                member_limit: u32::try_from(members.len()).unwrap(),
                members: u32::try_from(there).unwrap() + members_off,
                min_backends,
                max_share_ppm,
                forward,
                serves_v4: serves.0,
                serves_v6: serves.1,
                ..PoolEntry::new_zeroed()
            },
            table,
            members,
            hops: hops(),
            bit: BIT,
        }
    }
}

prop_compose! {
    fn vip(key: u8)(
        pool in rarely(vec![1u16, 2]),
        forward in rarely(vec![1u8, 2]),
        size in rarely(vec![97usize, 101]),
        changes in prop_oneof![Just(0usize), rarely(vec![0usize, 1, 9, 10, 32, 33, 97])],
    ) -> VipModel {
        let table = (0..size).map(|i| if i < changes { 2 } else { 1 }).collect();
        VipModel { key, pool, forward, table }
    }
}

fn slot() -> impl Strategy<Value = Vec<VipModel>> {
    let present = prop::collection::vec(prop::bool::weighted(0.95), 3);
    (present, vip(0), vip(1), vip(2)).prop_map(|(present, a, b, c)| {
        let all = [a, b, c].into_iter().zip(present);
        all.filter_map(|(vip, present)| present.then_some(vip))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_pool_is_sealed_iff_it_is_sane(pool in pool()) {
        let verdict = pool.walk();
        prop_assert_eq!(verdict.is_ok(), pool.sane(), "{:?}", verdict);
    }

    #[test]
    fn the_class_is_what_the_design_says(old in slot(), new in slot()) {
        prop_assert_eq!(classified(&old, &new, 10, 34), class(&old, &new, 10, 34));
    }

    #[test]
    fn the_same_slot_again_is_class_0(slot in slot()) {
        prop_assert_eq!(classified(&slot, &slot, 10, 34) as u32, 0);
    }
}

#[test]
fn the_cases_reach_both_verdicts() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut sane = 0;
    let mut classes = [0; 4];
    for _ in 0..1_000 {
        let drawn = pool().new_tree(&mut runner).unwrap().current();
        sane += u32::from(drawn.sane());
        let (old, new) = (slot(), slot()).new_tree(&mut runner).unwrap().current();
        classes[class(&old, &new, 10, 34) as usize] += 1;
    }
    assert!((50..950).contains(&sane), "{sane} of 1000 are sane");
    assert!(classes.iter().all(|count| *count > 3), "{classes:?}");
}
