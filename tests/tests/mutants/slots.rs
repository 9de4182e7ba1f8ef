//! Slots that are not whole, that come from the past, that may not be tried (K2, K3, K4).

use lb_common::control::SHARE_ALL;
use lb_common::guard::{Op, Refusal};

use crate::damage::{Mutation, last_of_a_row, own_pool, running, trial};

/// Each with the refusal that is due.
pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "table not sealed",
        refusal: Refusal::Incomplete,
        attempt: |draft, random| {
            draft.cleared()?;
            let pool = own_pool(draft, random).clone();
            draft.open(pool.number, &pool.table)?;
            draft.write(&pool.table)?;
            draft.pool(&pool)?;
            draft.members(&pool.members)?;
            draft.walk(&pool)
        },
    },
    Mutation {
        name: "sealed table written",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            draft.cleared()?;
            let pool = own_pool(draft, random).clone();
            draft.table(&pool)?;
            draft.write(&pool.table)
        },
    },
    Mutation {
        name: "table of ACTIVE written",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            let record = draft.bench.record();
            let maps = &draft.bench.kernel.maps;
            let pool = own_pool(draft, random).clone();
            let six = draft.of_name("s0").number;
            let entry = maps.pool(&draft.bench.kernel.node, record.active, six)?;
            draft.cleared()?;
            let mut table = pool.table;
            table.id = entry.table;
            draft.write(&table)
        },
    },
    Mutation {
        name: "stale base at the beginning",
        refusal: Refusal::StaleBase,
        attempt: |draft, random| {
            draft.base = draft.base.wrapping_add(random.draw() | 1);
            draft.begin()
        },
    },
    Mutation {
        name: "stale base at the seal",
        refusal: Refusal::StaleBase,
        attempt: |draft, random| {
            draft.compared()?;
            draft.base = draft.base.wrapping_add(random.draw() | 1);
            draft.seal(draft.totals())
        },
    },
    Mutation {
        name: "stale base at the trial",
        refusal: Refusal::StaleBase,
        attempt: |draft, random| {
            draft.sealed()?;
            draft.base = draft.base.wrapping_add(random.draw() | 1);
            trial(draft, u64::from(SHARE_ALL), 1_000, 1_000)
        },
    },
    Mutation {
        name: "wrong generation",
        refusal: Refusal::OldGeneration,
        attempt: |draft, random| {
            let highest = draft.bench.record().highest_generation;
            draft.generation = random.below(highest + 1);
            draft.begin()
        },
    },
    Mutation {
        name: "unsealed slot on trial",
        refusal: Refusal::SlotState,
        attempt: |draft, _| {
            draft.compared()?;
            trial(draft, u64::from(SHARE_ALL), 1_000, 1_000)
        },
    },
    Mutation {
        name: "moves too much without deadmen",
        refusal: Refusal::NeedsDeadmen,
        attempt: |draft, random| {
            let gone = ["s1", "s2"][random.index(2)];
            // Laid out anew: without it alone, what lies behind it would not be found.
            draft.config.vips.retain(|vip| vip.name != gone);
            draft.image = draft.bench.image_of(&draft.config);
            draft.sealed()?;
            trial(draft, u64::from(SHARE_ALL), 0, 1_000)
        },
    },
    Mutation {
        name: "deadline beyond the policy",
        refusal: Refusal::BadDeadline,
        attempt: |draft, random| {
            draft.sealed()?;
            let beyond = 3_600_001 + random.below(1 << 40);
            trial(draft, u64::from(SHARE_ALL), 1_000, beyond)
        },
    },
    Mutation {
        name: "bad share",
        refusal: Refusal::BadShare,
        attempt: |draft, random| {
            draft.sealed()?;
            let share = [0, u64::from(SHARE_ALL) + 1 + random.below(1 << 32)];
            trial(draft, share[random.index(2)], 1_000, 1_000)
        },
    },
    Mutation {
        name: "totals not as announced",
        refusal: Refusal::Incomplete,
        attempt: |draft, random| {
            draft.compared()?;
            let mut totals = draft.totals();
            totals[random.index(3)] += 1 + random.below(100);
            draft.seal(totals)
        },
    },
    Mutation {
        name: "VIP not compared",
        refusal: Refusal::Incomplete,
        attempt: |draft, random| {
            draft.walked()?;
            let left_out = random.index(draft.image.vips.len());
            for (index, vip) in draft.image.vips.iter().enumerate() {
                if index != left_out {
                    draft.compare(vip)?;
                }
            }
            draft.seal(draft.totals())
        },
    },
    Mutation {
        name: "VIP where no packet finds it",
        refusal: Refusal::OutOfRange,
        attempt: |draft, random| {
            let places = draft.bench.kernel.node.vip_places;
            let index = random.index(draft.image.vips.len());
            let away = 8 + u32::try_from(random.below(u64::from(places) - 16)).unwrap();
            let vip = &mut draft.image.vips[index];
            vip.place = (vip.place + away) % places;
            draft.compared()
        },
    },
    Mutation {
        name: "address not announced",
        refusal: Refusal::Incomplete,
        attempt: |draft, random| {
            let index = last_of_a_row(draft, random);
            draft.image.addresses.remove(index);
            draft.compared()
        },
    },
    Mutation {
        name: "another identity under a number in use",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            let bits = running(draft.bench);
            let maps = &draft.bench.kernel.maps;
            let images = draft.image.pools.iter_mut().flat_map(|p| &mut p.members);
            let mut taken: Vec<_> = images
                .filter(|image| maps.member(image.id).is_some_and(|m| m.slots & bits != 0))
                .collect();
            let index = random.index(taken.len());
            taken[index].member.identity ^= 1 + random.below(1 << 40);
            draft.written()
        },
    },
    Mutation {
        name: "two VIPs of one number",
        refusal: Refusal::SharedNumber,
        attempt: |draft, random| {
            let vips = &mut draft.image.vips;
            let first = random.index(vips.len());
            let other = (first + 1 + random.index(vips.len() - 1)) % vips.len();
            vips[other].entry.vip = vips[first].entry.vip;
            vips[other].name = vips[first].name.clone();
            draft.sealed()
        },
    },
    Mutation {
        name: "another name under a number in use",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            // These three are in every base.
            let name = ["s0", "s1", "s2"][random.index(3)];
            if random.below(2) == 0 {
                draft.of_name(name).name.push('x');
            } else {
                draft.vip_of_name(name).name.push('x');
            }
            draft.written()
        },
    },
    Mutation {
        name: "a kept pool that ACTIVE has not",
        refusal: Refusal::Incomplete,
        attempt: |draft, random| {
            draft.cleared()?;
            let free = u64::from(draft.bench.kernel.node.pools) - 1 - random.below(8);
            draft.call(Op::KeepPool, &[free], &[])
        },
    },
    Mutation {
        name: "a kept pool written",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            draft.cleared()?;
            let name = ["s0", "s1", "s2"][random.index(3)];
            let pool = draft.of_name(name).clone();
            draft.keep(&pool)?;
            match random.below(3) {
                0 => draft.pool(&pool),
                1 => draft.members(&pool.members[..1]),
                _ => draft.keep(&pool),
            }
        },
    },
    Mutation {
        name: "a kept pool, and an older base",
        refusal: Refusal::StaleBase,
        attempt: |draft, random| {
            draft.cleared()?;
            let pool = draft.of_name("s1").clone();
            draft.base = draft.base.wrapping_add(random.draw() | 1);
            draft.keep(&pool)
        },
    },
    Mutation {
        name: "an IPv4 VIP on a kept pool of IPv6 backends",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            draft.cleared()?;
            let pool = draft.of_name("s0").clone();
            draft.keep(&pool)?;
            let name = ["s1", "s2"][random.index(2)];
            let mut vip = draft.vip_of_name(name).clone();
            vip.entry.pool = pool.number;
            draft.vips(&[vip])
        },
    },
];
