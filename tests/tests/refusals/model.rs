//! The kernel's walks and the same over arrays agree on slots drawn at random.

use lb_common::slot::{NextHop, next_hop_flag};
use lb_tests::draft::Draft;
use lb_tests::model::{PoolModel, VipModel, class};
use lb_userspace::kernel::KernelError;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use zerocopy::FromZeros;

use crate::{Running, base, change};

/// What is changed in `new`, the pool that the change adds, or in `web`'s table.
#[derive(Clone, Debug)]
struct Fault {
    /// Place in the table, and what it names instead.
    entries: Vec<(usize, u16)>,
    /// Next hop of each backend; 1 is resolved, 2 is not.
    hops: Vec<u16>,
    min_backends: u32,
    max_share_ppm: u32,
    announced: u32,
    /// Entries of `web`'s table that move to its next backend.
    moved: usize,
}

prop_compose! {
    fn fault()(
        entries in prop_oneof![
            2 => Just(Vec::new()),
            1 => prop::collection::vec((0usize..251, 1u16..4), 0..80),
            1 => prop::collection::vec((0usize..251, 0u16..20), 1..4),
        ],
        hops in prop::collection::vec(prop_oneof![12 => Just(1u16), 1 => Just(0), 1 => Just(2)], 3),
        min_backends in prop_oneof![3 => 0u32..4, 1 => Just(4u32)],
        max_share_ppm in prop_oneof![2 => Just(0u32), 1 => 300_000u32..700_000],
        announced in prop_oneof![9 => Just(3u32), 1 => 2u32..5],
        moved in prop_oneof![1 => Just(0usize), 3 => 0usize..251],
    ) -> Fault {
        Fault { entries, hops, min_backends, max_share_ppm, announced, moved }
    }
}

fn damage(draft: &mut Draft<'_>, fault: &Fault) {
    let pool = draft.of_name("new");
    for (place, entry) in &fault.entries {
        pool.table.entries[*place] = *entry;
    }
    for (image, hop) in pool.members.iter_mut().zip(&fault.hops) {
        image.member.next_hop = *hop;
    }
    pool.entry.min_backends = fault.min_backends;
    pool.entry.max_share_ppm = fault.max_share_ppm;
    pool.entry.members = fault.announced;
    let web = draft.of_name("web");
    for entry in &mut web.table.entries[..fault.moved] {
        *entry = *entry % 4 + 1;
    }
}

/// The pool `new` as the guard will see it: in a slot of its own.
fn pool_model(draft: &mut Draft<'_>) -> PoolModel {
    const BIT: u8 = 4;
    let pool = draft.of_name("new");
    let hop = |flags| NextHop {
        flags,
        interface: 1,
        ..NextHop::new_zeroed()
    };
    let mut members = vec![lb_common::slot::Member::new_zeroed(); 16];
    for image in &pool.members {
        let place = (image.id - pool.entry.member_base - 1) as usize;
        members[place] = lb_common::slot::Member {
            slots: BIT,
            ..image.member
        };
    }
    members.truncate(pool.entry.member_limit as usize);
    PoolModel {
        number: pool.number,
        entry: lb_common::slot::PoolEntry {
            serves_v4: 1,
            ..pool.entry
        },
        table: pool.table.entries.clone(),
        members,
        hops: vec![hop(0), hop(next_hop_flag::RESOLVED), hop(0)],
        bit: BIT,
    }
}

/// The VIPs of a draft as K4 sees them.
fn vip_models(draft: &Draft<'_>) -> Vec<VipModel> {
    let model = |(key, vip): (usize, &lb_userspace::kernel::image::VipImage)| {
        let pool = draft
            .image
            .pools
            .iter()
            .find(|pool| pool.number == vip.entry.pool);
        let pool = pool.expect("the VIP's pool");
        VipModel {
            key: u8::try_from(key).expect("few"),
            pool: pool.number,
            forward: pool.entry.forward,
            table: pool.table.entries.clone(),
        }
    };
    let mut vips: Vec<_> = draft.image.vips.iter().collect();
    // `new`, which ACTIVE lacks, last.
    vips.sort_by_key(|vip| (vip.name == "new", vip.name.clone()));
    vips.into_iter().enumerate().map(model).collect()
}

fn agree(running: &Running, fault: &Fault, seen: &mut [u32; 2]) -> Result<(), TestCaseError> {
    let before = running.kept();
    let old = vip_models(&Draft::of(&running.bench, &base(4)));
    let mut draft = Draft::of(&running.bench, &change());
    let own = fresh(&mut draft);
    let web = draft.of_name("web");
    web.entry.table = own.id;
    web.table = own;
    damage(&mut draft, fault);
    let model = pool_model(&mut draft);
    let said = draft.sealed();
    let kernel = match &said {
        Ok(_) => Ok(()),
        Err(KernelError::Refused(refused)) => Err((refused.refusal, refused.detail[..4].to_vec())),
        Err(other) => panic!("{other}"),
    };
    let walked = model
        .walk()
        .map_err(|(refusal, numbers)| (refusal, numbers.to_vec()));
    prop_assert_eq!(&kernel, &walked);
    prop_assert_eq!(kernel.is_ok(), model.sane());
    if let Ok(sealed) = said {
        let expected = class(&old, &vip_models(&draft), 10, 34);
        prop_assert_eq!(sealed[0], u64::from(expected as u32));
        seen[usize::from(expected as u32 > 2)] += 1;
    }
    prop_assert!(running.kept() == before, "ACTIVE or LKG has changed");
    Ok(())
}

/// A table of its own with what `web` has in ACTIVE.
fn fresh(draft: &mut Draft<'_>) -> lb_userspace::kernel::image::TableImage {
    let new = draft.of_name("new").table.clone();
    let entries = draft.of_name("web").table.entries.clone();
    lb_userspace::kernel::image::TableImage {
        id: new.id + 1,
        start: new.start + 8,
        size: new.size,
        entries,
        shared: false,
    }
}

#[test]
fn the_kernel_agrees_with_the_model() {
    let running = Running::new();
    running.bench.set_hop(2, 1500, false);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let seen = std::cell::RefCell::new([0u32; 2]);
    let refused = std::cell::Cell::new(0);
    runner
        .run(&fault(), |fault| {
            let before: u32 = seen.borrow().iter().sum();
            agree(&running, &fault, &mut seen.borrow_mut())?;
            refused.set(refused.get() + u32::from(seen.borrow().iter().sum::<u32>() == before));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let [small, large] = seen.into_inner();
    assert!(
        small > 0 && large > 0 && refused.get() > 0,
        "{small} {large} {refused:?}"
    );
}
