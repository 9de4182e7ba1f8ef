//! For which VIP a followed flow counts, if the arms do not have the same ones.

use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::evidence::Evidence;
use lb_common::guard::{Op, TrialPut};
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, tcp};
use lb_userspace::kernel::image::Image;
use zerocopy::IntoBytes;

use crate::world::{VipText, client, commit, probe, services};

const HALF: u64 = SHARE_ALL as u64 / 2;
const ANY: VipText<'_> = ("any", "203.0.113.5", 0, "tcp", "old");
const FLOWS: u16 = 200;

/// A VIP on port 80, served by this pool.
fn port(pool: &str) -> VipText<'_> {
    ("port", "203.0.113.5", 80, "tcp", pool)
}

fn shop(vips: &[VipText<'_>]) -> String {
    let pools = [
        ("old", "ipip", &[("web-1", "10.0.5.1", "")][..]),
        ("new", "ipip", &[("web-2", "10.0.5.2", "")][..]),
    ];
    let used = pools.iter().filter(|(name, ..)| {
        let uses = |vip: &VipText<'_>| vip.4 == *name;
        vips.iter().any(uses)
    });
    services(vips, &used.copied().collect::<Vec<_>>())
}

/// A trial of half of the flows of port 80 and of port 81, one handshake each.
fn tried(before: &[VipText<'_>], after: &[VipText<'_>]) -> (Bench, Image) {
    let bench = Bench::new();
    commit(&bench, &shop(before), 1);
    let new = bench.image(&shop(after));
    bench.stage(&new).unwrap();
    let put = TrialPut {
        breaker: Breaker::default(),
        within_ms: 300,
        pace: 0,
    };
    let args = [HALF, 0x5eed, 60_000, 60_000, 2];
    let guard = &bench.kernel.guard;
    guard.call(Op::Trial, 1, &args, put.as_bytes()).unwrap();
    for to in [80, 81] {
        for from in 1..=FLOWS {
            for flags in [Flags::Syn, Flags::Ack] {
                let talk = client(from).receiver_port(to);
                probe(&bench, &tcp(talk, flags, &[]));
            }
        }
    }
    (bench, new)
}

fn evidence(bench: &Bench, image: &Image, name: &str) -> [Evidence; 2] {
    let vip = image.vips.iter().find(|vip| vip.name == name).unwrap();
    let kernel = &bench.kernel;
    kernel.maps.evidence(&kernel.node, vip.entry.vip).unwrap()
}

/// Flows that began and were complete, control and new.
fn counted(bench: &Bench, image: &Image, name: &str) -> [(u32, u32); 2] {
    evidence(bench, image, name).map(|counts| (counts.flows, counts.completed.iter().sum()))
}

fn both_arms_have(counts: [(u32, u32); 2]) {
    let [control, new] = counts;
    assert_eq!(control.0 + new.0, u32::from(FLOWS), "{counts:?}");
    // A fair coin, 200 times: below 50 has a chance of 10^-13.
    assert!(control.0 > 50 && new.0 > 50, "{counts:?}");
    assert_eq!((control.0, new.0), (control.1, new.1));
}

#[test]
fn a_vip_that_is_carved_out_of_one_of_all_ports_is_judged_by_its_own_flows() {
    let (bench, new) = tried(&[ANY], &[ANY, port("new")]);
    both_arms_have(counted(&bench, &new, "port"));
    // The other port's flows are not moved: they stay where they are, and are no evidence.
    assert_eq!(counted(&bench, &new, "any"), [(0, 0); 2]);
    let passed_over = evidence(&bench, &new, "any").map(|counts| counts.passed_over);
    assert_eq!(passed_over, [u32::from(FLOWS), 0]);
}

#[test]
fn a_vip_of_all_ports_is_judged_by_the_flows_that_it_inherits() {
    let (bench, new) = tried(&[ANY, port("new")], &[ANY]);
    let [control, arm] = counted(&bench, &new, "any");
    assert_eq!(control.0 + arm.0, 2 * u32::from(FLOWS));
    assert!(control.0 > 100 && arm.0 > 100, "{control:?} {arm:?}");
}
