//! Pools, tables and backends that must not be (K2, K3).

use lb_common::guard::Refusal;
use lb_common::slot::forward_mode;

use crate::damage::{Mutation, any_member, any_place, largest_ppm, newcomer, own_pool};

/// Each with the refusal that is due.
pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "holes",
        refusal: Refusal::Hole,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            for _ in 0..=random.below(5) {
                let place = any_place(pool, random);
                pool.table.entries[place] = 0;
            }
            draft.sealed()
        },
    },
    Mutation {
        name: "entry out of range",
        refusal: Refusal::BadEntry,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            let place = any_place(pool, random);
            let beyond = u64::from(pool.entry.member_limit) + 1;
            let number = beyond + random.below(u64::from(u16::MAX) - beyond);
            pool.table.entries[place] = u16::try_from(number).unwrap();
            draft.sealed()
        },
    },
    Mutation {
        name: "backend of the table left out",
        refusal: Refusal::BadEntry,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            let gone = any_member(pool, random);
            let gone = pool.members.remove(gone);
            pool.entry.members -= 1;
            let number = u16::try_from(gone.id - pool.entry.member_base).unwrap();
            // A light backend may have no entry of its own.
            pool.table.entries[0] = number;
            draft.sealed()
        },
    },
    Mutation {
        name: "next hop missing",
        refusal: Refusal::NextHopMissing,
        attempt: |draft, random| {
            let hops = [0, 2, 16, 17, u16::MAX];
            let hop = hops[random.index(hops.len())];
            newcomer(draft, random).member.next_hop = hop;
            draft.sealed()
        },
    },
    Mutation {
        name: "above its cap",
        refusal: Refusal::AboveCap,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            let below = 1 + random.below(largest_ppm(pool) - 1);
            pool.entry.max_share_ppm = u32::try_from(below).unwrap();
            draft.sealed()
        },
    },
    Mutation {
        name: "too few backends",
        refusal: Refusal::TooFewBackends,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            let more = 1 + u32::try_from(random.below(100)).unwrap();
            pool.entry.min_backends = pool.entry.members + more;
            draft.sealed()
        },
    },
    Mutation {
        name: "backends not as announced",
        refusal: Refusal::Incomplete,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            pool.entry.members += 1 + u32::try_from(random.below(100)).unwrap();
            draft.sealed()
        },
    },
    Mutation {
        name: "IPv6 VIP, IPv4 backends",
        refusal: Refusal::Family,
        attempt: |draft, random| {
            let other = ["s1", "s2"][random.index(2)];
            let number = draft.of_name(other).number;
            draft.vip_of_name("s0").entry.pool = number;
            draft.sealed()
        },
    },
    Mutation {
        name: "backends of another mode than their pool",
        refusal: Refusal::Family,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            pool.entry.forward = match pool.entry.forward {
                forward_mode::L2 => forward_mode::IPIP,
                _ => forward_mode::L2,
            };
            draft.sealed()
        },
    },
    Mutation {
        name: "unknown mode",
        refusal: Refusal::Family,
        attempt: |draft, random| {
            let pool = own_pool(draft, random);
            let mode = 3 + u8::try_from(random.below(250)).unwrap();
            pool.entry.forward = mode;
            draft.sealed()
        },
    },
];
