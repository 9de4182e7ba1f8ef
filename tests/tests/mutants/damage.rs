//! What mutations damage, and by what.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::guard::{Op, Refusal};
use lb_tests::bench::Bench;
use lb_tests::draft::{Draft, Said};
use lb_tests::seeded::Seeded;
use lb_userspace::kernel::image::{MemberImage, PoolImage};

/// What is done wrongly, and how the guard must call it.
pub struct Mutation {
    /// What it is called in the table.
    pub name: &'static str,
    /// The refusal that is due.
    pub refusal: Refusal,
    /// Damages the draft and stages it.
    pub attempt: fn(&mut Draft<'_>, &mut Seeded) -> Said,
}

/// A pool with a table of its own: one that ACTIVE has is not written again.
pub fn own_pool<'a>(draft: &'a mut Draft<'_>, random: &mut Seeded) -> &'a mut PoolImage {
    let pools = &mut draft.image.pools;
    let own: Vec<usize> = (0..pools.len())
        .filter(|index| !pools[*index].table.shared)
        .collect();
    let index = own[random.index(own.len())];
    &mut pools[index]
}

/// A backend of such a pool that neither ACTIVE nor LKG has: another keeps its next hop, which is no
/// part of a generation.
pub fn newcomer<'a>(draft: &'a mut Draft<'_>, random: &mut Seeded) -> &'a mut MemberImage {
    let bench = draft.bench;
    let pools = draft.image.pools.iter_mut().filter(|p| !p.table.shared);
    let mut all: Vec<_> = pools
        .flat_map(|pool| &mut pool.members)
        .filter(|image| is_new(bench, image))
        .collect();
    let index = random.index(all.len());
    all.swap_remove(index)
}

fn is_new(bench: &Bench, image: &MemberImage) -> bool {
    let there = bench.kernel.maps.member(image.id);
    there.is_none_or(|there| there.slots & running(bench) == 0)
}

/// Bits of ACTIVE and LKG.
pub fn running(bench: &Bench) -> u8 {
    let record = bench.record();
    (1u8 << record.active) | (1 << record.lkg)
}

/// Whether every mutation finds something to damage.
pub fn suitable(draft: &Draft<'_>) -> bool {
    let pools = draft.image.pools.iter().filter(|p| !p.table.shared);
    let mut members = pools.flat_map(|pool| &pool.members);
    members.any(|image| is_new(draft.bench, image))
}

/// An address behind whose place there is room: without it, all else in the VIP table is found.
pub fn last_of_a_row(draft: &Draft<'_>, random: &mut Seeded) -> usize {
    let image = &draft.image;
    let places = draft.bench.kernel.node.vip_places;
    let all = image.vips.iter().chain(&image.addresses);
    let taken: BTreeSet<u32> = all.map(|entry| entry.place).collect();
    let free = |index: &usize| {
        let next = (image.addresses[*index].place + 1) % places;
        !taken.contains(&next)
    };
    let last: Vec<usize> = (0..image.addresses.len()).filter(free).collect();
    last[random.index(last.len())]
}

pub fn any_place(pool: &PoolImage, random: &mut Seeded) -> usize {
    random.index(pool.table.entries.len())
}

pub fn any_member(pool: &PoolImage, random: &mut Seeded) -> usize {
    random.index(pool.members.len())
}

/// The share, in ppm, of the backend with the most entries.
pub fn largest_ppm(pool: &PoolImage) -> u64 {
    let mut counts = BTreeMap::<u16, u64>::new();
    for entry in &pool.table.entries {
        *counts.entry(*entry).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    most * 1_000_000 / pool.table.entries.len() as u64
}

pub fn trial(draft: &Draft<'_>, share: u64, lease: u64, deadline: u64) -> Said {
    draft.call(Op::Trial, &[share, 1, lease, deadline, 3], &[])
}
