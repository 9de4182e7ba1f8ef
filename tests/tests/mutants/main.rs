//! Slots drawn from a seed: good ones, none of which is refused, and mutated ones, each refused by
//! the invariant that it violates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lb_common::control::SHARE_ALL;
use lb_common::guard::{Op, Refusal};
use lb_common::slot::forward_mode;
use lb_tests::bench::Bench;
use lb_tests::draft::{Draft, Said};
use lb_tests::seeded::Seeded;
use lb_userspace::kernel::KernelError;
use lb_userspace::kernel::image::{MemberImage, PoolImage};
use lb_userspace::kernel::maps::Maps;
use lb_userspace::kernel::numbers::Numbers;
use lb_userspace::kernel::stage::recycle;

/// Changes between two commits of another base.
const A_BASE: usize = 50;
/// Sizes that a lookup table may have.
const SIZES: [u32; 4] = [251, 509, 1021, 4099];

/// A VIP, its pool and its backends. Number 0 is IPv6, number 1 is `l2`, the others are `ipip`.
fn service(random: &mut Seeded, number: u64) -> String {
    let (forward, v6) = match number {
        0 => ("ipip", true),
        1 => ("l2", false),
        _ => ("ipip", false),
    };
    let address = if v6 {
        "2001:db8::10".to_owned()
    } else {
        format!("203.0.113.{}", 10 + number)
    };
    let size = SIZES[random.index(SIZES.len())];
    let protocol = ["tcp", "udp"][random.index(2)];
    let port = [0, 53, 80, 443][random.index(4)];
    let mut text = format!(
        "[[vip]]\nname = \"s{number}\"\nservice = \"s{number}\"\naddress = \"{address}\"\n\
         port = {port}\nprotocol = \"{protocol}\"\npool = \"s{number}\"\n\
         [[pool]]\nname = \"s{number}\"\nservice = \"s{number}\"\nforward = \"{forward}\"\n\
         table_size = {size}\n"
    );
    let first = random.below(4);
    for backend in first..first + 2 + random.below(6) {
        let host = if v6 {
            format!("fd00::{:x}", backend + 1)
        } else {
            format!("10.0.{number}.{}", backend + 1)
        };
        let weight = 1 + random.below(200);
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"b{backend}\"\naddress = \"{host}\"\nweight = {weight}\n"
        );
    }
    text
}

/// A good configuration: the two special services, and some of the others.
fn good(random: &mut Seeded) -> String {
    let mut text = String::from("version = 1\n");
    for number in 0..10 {
        if number < 3 || random.below(2) == 0 {
            text += &service(random, number);
        }
    }
    text
}

/// A balancer with a random generation in ACTIVE and one in LKG.
struct Running {
    bench: Bench,
    random: Seeded,
}

impl Running {
    fn new(what: &str) -> Self {
        let mut running = Self {
            bench: Bench::new(),
            random: Seeded::announced(what),
        };
        running.another_base();
        running.another_base();
        running
    }

    fn another_base(&mut self) {
        let text = good(&mut self.random);
        self.recycle();
        self.bench.commit(&text);
    }

    /// Numbers of backends that are in no slot any more are used again.
    fn recycle(&self) {
        let idle = Numbers::read(&self.bench.kernel.maps)
            .unwrap()
            .idle_members();
        recycle(&self.bench.kernel, &idle).expect("recycle");
    }

    /// Numbers keep the next hop that they were first put with: none may be left with a bad one.
    fn mend(&self) {
        let kernel = &self.bench.kernel;
        for id in 1..kernel.node.members {
            let member = kernel.maps.member(id).expect("a member");
            if member.identity != 0 && member.next_hop != 1 {
                let good = [u64::from(id), 0, 1];
                kernel.guard.call(Op::SetMember, 0, &good, &[]).unwrap();
            }
        }
    }

    /// What a refused change may not touch.
    fn standing(&self) -> [u64; 6] {
        let record = self.bench.record();
        let digest = |slot: u8| self.bench.kernel.maps.header(slot).unwrap().checksum;
        [
            record.active_generation,
            record.lkg_generation,
            u64::from(record.share),
            u64::from(record.flags),
            digest(record.active),
            digest(record.lkg),
        ]
    }
}

/// What is done wrongly, and how the guard must call it.
struct Mutation {
    name: &'static str,
    refusal: Refusal,
    attempt: fn(&mut Draft<'_>, &mut Seeded) -> Said,
}

/// A pool with a table of its own: one that ACTIVE has is not written again.
fn own_pool<'a>(draft: &'a mut Draft<'_>, random: &mut Seeded) -> &'a mut PoolImage {
    let pools = &mut draft.image.pools;
    let own: Vec<usize> = (0..pools.len())
        .filter(|index| !pools[*index].table.shared)
        .collect();
    let index = own[random.index(own.len())];
    &mut pools[index]
}

/// A backend of such a pool whose number is free: one that has a number keeps its next hop, which is
/// no part of a generation.
fn newcomer<'a>(draft: &'a mut Draft<'_>, random: &mut Seeded) -> &'a mut MemberImage {
    let maps = &draft.bench.kernel.maps;
    let pools = draft.image.pools.iter_mut().filter(|p| !p.table.shared);
    let mut all: Vec<_> = pools
        .flat_map(|pool| &mut pool.members)
        .filter(|image| is_new(maps, image))
        .collect();
    let index = random.index(all.len());
    all.swap_remove(index)
}

fn is_new(maps: &Maps, image: &MemberImage) -> bool {
    let there = maps.member(image.id);
    there.is_none_or(|there| there.slots == 0 && there.identity == 0)
}

/// Whether every mutation finds something to damage.
fn suitable(draft: &Draft<'_>) -> bool {
    let maps = &draft.bench.kernel.maps;
    let pools = draft.image.pools.iter().filter(|p| !p.table.shared);
    let mut members = pools.flat_map(|pool| &pool.members);
    members.any(|image| is_new(maps, image))
}

fn any_place(pool: &PoolImage, random: &mut Seeded) -> usize {
    random.index(pool.table.entries.len())
}

fn any_member(pool: &PoolImage, random: &mut Seeded) -> usize {
    random.index(pool.members.len())
}

/// The share, in ppm, of the backend with the most entries.
fn largest_ppm(pool: &PoolImage) -> u64 {
    let mut counts = BTreeMap::<u16, u64>::new();
    for entry in &pool.table.entries {
        *counts.entry(*entry).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    most * 1_000_000 / pool.table.entries.len() as u64
}

fn trial(draft: &Draft<'_>, share: u64, lease: u64, deadline: u64) -> Said {
    draft.call(Op::Trial, &[share, 1, lease, deadline, 3], &[])
}

const MUTATIONS: &[Mutation] = &[
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
            draft.image.vips.retain(|vip| vip.name != gone);
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
            let index = random.index(draft.image.addresses.len());
            draft.image.addresses.remove(index);
            draft.compared()
        },
    },
    Mutation {
        name: "another identity under a number in use",
        refusal: Refusal::InUse,
        attempt: |draft, random| {
            let record = draft.bench.record();
            let bits = (1u8 << record.active) | (1 << record.lkg);
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
];

fn mutants(count: usize) {
    let mut running = Running::new("mutants");
    running.bench.set_hop(2, 1500, false);
    let mut table = BTreeMap::<&str, u32>::new();
    for number in 0..count {
        if number % A_BASE == A_BASE - 1 {
            running.another_base();
        }
        let mutation = &MUTATIONS[number % MUTATIONS.len()];
        let what = format!("{number}, {}", mutation.name);
        let before = running.standing();
        let (text, mut draft) = loop {
            let text = good(&mut running.random);
            let draft = Draft::of(&running.bench, &text);
            if suitable(&draft) {
                break (text, draft);
            }
        };
        let said = (mutation.attempt)(&mut draft, &mut running.random);
        match said {
            Err(KernelError::Refused(refused)) => {
                assert_eq!(
                    refused.refusal, mutation.refusal,
                    "{what}: {refused}\n{text}"
                );
            }
            Err(other) => panic!("{what}: {other}\n{text}"),
            Ok(_) => panic!("{what}: taken\n{text}"),
        }
        assert_eq!(running.standing(), before, "{what}");
        *table.entry(mutation.name).or_default() += 1;
        running.mend();
    }
    for (name, refused) in &table {
        println!("{name:<40} {refused:>6} refused, 0 taken");
    }
    println!("{:<40} {count:>6} refused, 0 taken", "all");
}

fn good_ones(count: usize) {
    let mut running = Running::new("good slots");
    let (mut trials, mut classes) = (0, [0; 4]);
    for number in 0..count {
        let text = good(&mut running.random);
        let bench = &running.bench;
        let sealed = bench.stage(&bench.image(&text));
        let sealed = sealed.unwrap_or_else(|error| panic!("{number}: {error}\n{text}"));
        classes[usize::from(sealed.class)] += 1;
        if number % A_BASE == A_BASE - 1 {
            bench
                .trial(3)
                .unwrap_or_else(|error| panic!("{number}: {error}\n{text}"));
            trials += 1;
            if running.random.below(2) == 0 {
                bench.confirm().unwrap();
            } else {
                bench.revert().unwrap();
            }
            running.recycle();
        }
    }
    println!("good slots sealed {count:>6}, refused 0");
    println!("  of class R0 to R3 {classes:?}");
    println!("  put on trial      {trials:>6}, refused 0");
}

#[test]
fn mutated_slots_are_refused_by_the_invariant_they_violate() {
    mutants(78);
}

#[test]
fn good_slots_are_not_refused() {
    good_ones(60);
}

#[test]
#[ignore = "a minute; `cargo xtask soak guard` runs it"]
fn soak_guard_1000_mutated_slots() {
    mutants(1_040);
}

#[test]
#[ignore = "minutes; `cargo xtask soak guard` runs it"]
fn soak_guard_10000_good_slots() {
    good_ones(10_000);
}
