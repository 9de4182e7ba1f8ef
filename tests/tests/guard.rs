//! The guard in the kernel: what it lets through, what it refuses, and in which words.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use lb_common::control::{Cause, NO_SLOT, control_flag};
use lb_common::guard::{Op, Refusal};
use lb_common::slot::{Member, member_state};
use lb_tests::bench::{Bench, refusal, shop};
use lb_userspace::kernel::image::{Image, MemberImage};

#[test]
fn a_change_goes_through_its_slot_and_back() {
    let bench = Bench::new();
    assert_eq!((bench.record().active, bench.active()), (0, 0));

    let sealed = bench.stage(&bench.image(&shop(4))).unwrap();
    assert_eq!(
        (sealed.class, sealed.vips_added, sealed.moved_ppm),
        (2, 1, 0)
    );
    bench.trial(1).unwrap();
    assert_ne!(bench.record().flags & control_flag::TRIAL, 0);
    assert_eq!(bench.active(), 0, "on trial, ACTIVE stays");
    bench.confirm().unwrap();
    let first = bench.record();
    assert_eq!((first.active_generation, first.lkg_generation), (1, 0));
    assert_eq!(first.shadow, NO_SLOT);

    // One of four backends away: a quarter moves, and little of the rest.
    let sealed = bench.stage(&bench.image(&shop(3))).unwrap();
    assert_eq!(sealed.class, 2);
    assert!(
        (250_000..300_000).contains(&sealed.moved_ppm),
        "{}",
        sealed.moved_ppm
    );
    bench.trial(2).unwrap();
    bench.revert().unwrap();
    let back = bench.record();
    assert_eq!((back.active_generation, back.share), (1, 0));
    assert_eq!(Cause::from_code(back.cause), Cause::Revert);

    bench.commit(&shop(5));
    assert_eq!(bench.active(), 3, "numbers only rise");
    bench.revert().unwrap();
    assert_eq!(bench.active(), 1, "after a commit, back is LKG");
    assert_eq!(refusal(bench.revert()), Some(Refusal::NoLkg));
}

#[test]
fn an_unchanged_table_is_shared_and_moves_nothing() {
    let bench = Bench::new();
    let first = bench.commit(&shop(4));
    let again = bench.image(&shop(4));
    assert!(again.pools[0].table.shared);
    assert_eq!(again.pools[0].table.id, first.pools[0].table.id);
    let sealed = bench.stage(&again).unwrap();
    assert_eq!(
        (sealed.class, sealed.moved_ppm, sealed.vips_changed),
        (0, 0, 0)
    );
}

#[test]
fn commands_of_another_session_or_base_are_refused() {
    let bench = Bench::new();
    bench.commit(&shop(3));
    let image = bench.image(&shop(2));
    bench.stage(&image).unwrap();
    let guard = &bench.kernel.guard;
    assert_eq!(
        refusal(guard.call(Op::Trial, 7, &[65_536, 1, 9, 9, 1], &[])),
        Some(Refusal::StaleBase)
    );
    assert_eq!(
        refusal(guard.call(Op::Begin, 1, &[2], &[0; 32])),
        Some(Refusal::OldGeneration)
    );
    assert_eq!(
        refusal(guard.call(Op::Lease, 0, &[100], &[])),
        Some(Refusal::NoTrial)
    );
    assert_eq!(refusal(bench.confirm()), Some(Refusal::NoTrial));
    assert_eq!(refusal(bench.trial_of(0, 1, 9, 9)), Some(Refusal::BadShare));
    assert_eq!(
        refusal(bench.trial_of(9, 0, 9, 9)),
        Some(Refusal::OutOfRange)
    );
    assert_eq!(
        refusal(bench.trial_of(9, 1, 9, 0)),
        Some(Refusal::BadDeadline)
    );
    assert_eq!(
        refusal(bench.trial_of(9, 1, 9, 3_600_001)),
        Some(Refusal::BadDeadline)
    );
}

#[test]
fn recycled_numbers_wait_for_two_sweeps() {
    let bench = Bench::new();
    bench.commit(&shop(4));
    bench.commit(&shop(3));
    bench.commit(&shop(2));
    // Three commits: no slot has web-4 any more once the third was cleared for.
    bench.stage(&bench.image(&shop(2))).unwrap();
    let numbers = lb_userspace::kernel::numbers::Numbers::read(&bench.kernel.maps).unwrap();
    let idle = numbers.idle_members();
    assert!(!idle.is_empty());
    let first = u64::from(idle[0]);
    assert_eq!(
        refusal(bench.kernel.guard.call(Op::FreeMember, 0, &[first], &[])),
        Some(Refusal::Unswept)
    );
    let freed = lb_userspace::kernel::stage::recycle(&bench.kernel, &idle).unwrap();
    assert_eq!(freed, idle.len());
}

/// The backend of that name in an image.
fn backend<'a>(image: &'a mut Image, name: &str) -> &'a mut MemberImage {
    let members = image.pools.iter_mut().flat_map(|pool| &mut pool.members);
    members
        .into_iter()
        .find(|member| member.name == name)
        .unwrap()
}

/// State and next hop of a member, as packets see them.
fn overlay(bench: &Bench, id: u32) -> (u8, u16) {
    let Member {
        state, next_hop, ..
    } = bench.kernel.maps.member(id).unwrap();
    (state, next_hop)
}

#[test]
fn a_number_that_no_slot_has_is_put_with_state_and_next_hop_anew() {
    let bench = Bench::new();
    bench.set_hop(2, 1500, false);
    bench.commit(&shop(2));
    // A newcomer that cannot be reached: down, so that the guard takes it. Then put back.
    let mut image = bench.image(&shop(3));
    let newcomer = backend(&mut image, "web-3");
    (newcomer.member.state, newcomer.member.next_hop) = (member_state::DOWN, 2);
    let id = newcomer.id;
    bench.stage(&image).unwrap();
    assert_eq!(overlay(&bench, id), (member_state::DOWN, 2));
    bench.trial(1).unwrap();
    bench.revert().unwrap();

    let mut again = bench.image(&shop(3));
    assert_eq!(backend(&mut again, "web-3").id, id, "numbers follow names");
    bench.stage(&again).unwrap();
    assert_eq!(overlay(&bench, id), (member_state::UP, 1));
}

#[test]
fn a_number_that_a_slot_has_keeps_state_and_next_hop() {
    let bench = Bench::new();
    bench.set_hop(2, 1500, true);
    let id = backend(&mut bench.commit(&shop(3)), "web-3").id;
    let down = [u64::from(id), u64::from(member_state::DOWN), 2];
    bench
        .kernel
        .guard
        .call(Op::SetMember, 0, &down, &[])
        .unwrap();
    let mut image = bench.image(&shop(4));
    let put = &backend(&mut image, "web-3").member;
    assert_eq!((put.state, put.next_hop), (member_state::UP, 1));
    bench.stage(&image).unwrap();
    assert_eq!(overlay(&bench, id), (member_state::DOWN, 2), "ACTIVE's");
}

#[test]
fn a_restore_that_was_cut_short_is_begun_again() {
    let bench = Bench::new();
    let image = bench.image(&shop(2));
    for _ in 0..2 {
        // An agent that died after the seal: nothing is committed, so the number may be used again.
        lb_userspace::kernel::stage::stage(&bench.kernel, &image, 7, 0).unwrap();
    }
    bench.trial(1).unwrap();
    bench.confirm().unwrap();
    assert_eq!(bench.active(), 7);
    let again = lb_userspace::kernel::stage::stage(&bench.kernel, &image, 7, 7);
    assert_eq!(refusal(again), Some(Refusal::OldGeneration));
}
