//! Overlays of a backend's state: slow start, and who is asked when nobody else is left.

use std::collections::BTreeMap;

use lb_common::guard::Op;
use lb_common::slot::{hold, member_state};
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, tcp};
use lb_userspace::kernel::image::Image;

use crate::world::{backend, by_table, client, commit, set_state, shop};

/// Lets a backend take `256 - withheld` of 256 of its new flows.
fn withhold(bench: &Bench, image: &Image, name: &str, withheld: u8) {
    let id = image.members().find(|m| m.name == name).unwrap().id;
    let (up, cause) = (u64::from(member_state::UP), u64::from(hold::HEALTH));
    let args = [u64::from(id), up, 0, cause, u64::from(withheld)];
    bench
        .kernel
        .guard
        .call(Op::SetMember, 0, &args, &[])
        .unwrap();
}

/// Who takes the new flows from the first 4,000 ports. Seeds are fixed, so it is no matter of luck.
fn takers(bench: &Bench, image: &Image) -> BTreeMap<String, usize> {
    let mut takers = BTreeMap::new();
    for port in 1..=4000 {
        let decision = by_table(bench, &tcp(client(port), Flags::Syn, &[]));
        *takers.entry(backend(image, &decision)).or_default() += 1;
    }
    takers
}

/// A backend with a quarter of its share open takes 1/4 of 1/4 at the first place, and so on at the
/// places after it: 0.0625 / (1 - 0.1875) = 7.7 %.
#[test]
fn a_backend_that_is_slow_to_start_takes_its_share() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2, 3, 4]), 1);
    let mut last = 0;
    for (withheld, least, most) in [
        (255, 0, 20),
        (192, 260, 360),
        (128, 510, 640),
        (0, 920, 1080),
    ] {
        withhold(&bench, &image, "web-1", withheld);
        let takers = takers(&bench, &image);
        let own = takers.get("web-1").copied().unwrap_or_default();
        assert!((least..=most).contains(&own), "{withheld}: {takers:?}");
        assert!(
            own >= last && takers.len() >= 3 && !takers.contains_key(""),
            "{takers:?}"
        );
        last = own;
    }
}

#[test]
fn with_nobody_else_a_slow_starter_takes_all_and_then_a_draining_one() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2]), 1);
    withhold(&bench, &image, "web-1", 255);
    set_state(&bench, &image, "web-2", member_state::DRAIN);
    assert_eq!(
        takers(&bench, &image),
        BTreeMap::from([("web-1".to_owned(), 4000)])
    );
    set_state(&bench, &image, "web-1", member_state::DOWN);
    assert_eq!(
        takers(&bench, &image),
        BTreeMap::from([("web-2".to_owned(), 4000)])
    );
}

/// Each cause is held by itself: health that comes back does not undo a drain, and the other way round.
#[test]
fn who_lets_go_undoes_only_what_he_held() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2, 3]), 1);
    let id = image.members().find(|m| m.name == "web-1").unwrap().id;
    let set = |state: u8, cause: u8| {
        let args = [u64::from(id), u64::from(state), 0, u64::from(cause)];
        bench
            .kernel
            .guard
            .call(Op::SetMember, 0, &args, &[])
            .unwrap();
        bench.kernel.maps.member(id).unwrap()
    };
    let hop = bench.kernel.maps.member(id).unwrap().next_hop;
    let (up, drain, down) = (member_state::UP, member_state::DRAIN, member_state::DOWN);
    for (state, cause, becomes) in [
        (drain, hold::OPERATOR, drain),
        (down, hold::HEALTH, down),
        (up, hold::HEALTH, drain),
        (down, hold::HEALTH, down),
        (up, hold::OPERATOR, down),
        (up, hold::HEALTH, up),
    ] {
        let member = set(state, cause);
        assert_eq!(
            (member.state, member.next_hop),
            (becomes, hop),
            "{state} by {cause}"
        );
    }
}
