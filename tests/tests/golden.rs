//! Golden packets: they pass on what was meant, and a sentence says what was not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use lb_common::TEST_SET;
use lb_common::address::Address;
use lb_common::guard::Op;
use lb_common::slot::{forward_mode, member_state};
use lb_tests::bench::Bench;
use lb_userspace::change::golden::{self, Report};
use lb_userspace::kernel::image::Image;

const SERVICES: &str = r#"
version = 1
[[vip]]
name = "shop-v4"
service = "shop"
address = "203.0.113.10"
port = 80
protocol = "tcp"
pool = "tunnels"
[[vip]]
name = "shop-any"
service = "shop"
address = "203.0.113.10"
port = 0
protocol = "tcp"
pool = "near"
[[vip]]
name = "shop-v6"
service = "shop"
address = "2001:db8::10"
port = 80
protocol = "tcp"
pool = "tunnels6"
[[vip]]
name = "mixed"
service = "shop"
address = "203.0.113.11"
port = 53
protocol = "udp"
pool = "tunnels6"
[[pool]]
name = "tunnels"
service = "shop"
forward = "ipip"
table_size = 4099
[[pool.backend]]
name = "web-1"
address = "10.0.1.1"
weight = 100
[[pool.backend]]
name = "web-2"
address = "10.0.1.2"
weight = 100
[[pool.backend]]
name = "web-3"
address = "10.0.1.3"
weight = 100
[[pool]]
name = "tunnels6"
service = "shop"
forward = "ipip"
table_size = 4099
[[pool.backend]]
name = "six-1"
address = "fd00::1"
weight = 100
[[pool.backend]]
name = "six-2"
address = "fd00::2"
weight = 300
[[pool]]
name = "near"
service = "shop"
forward = "l2"
table_size = 4099
[[pool.backend]]
name = "near-1"
address = "10.0.2.1"
weight = 100
"#;

/// Three VIPs with TCP, which has five kinds of packets, and one with UDP, which has four; 64 flows.
const ALL: usize = 64 * (3 * 5 + 4);

fn staged() -> (Bench, Image, u8) {
    let bench = Bench::new();
    let image = bench.image(SERVICES);
    let slot = bench.stage(&image).unwrap().slot;
    (bench, image, slot)
}

fn run(bench: &Bench, image: &Image, slot: u8) -> Report {
    golden::run(&bench.kernel, image, slot).unwrap()
}

#[test]
fn what_was_meant_passes_and_leaves_no_trace() {
    let (bench, image, slot) = staged();
    let report = run(&bench, &image, slot);
    assert_eq!(
        report,
        Report {
            run: ALL,
            ..Report::default()
        }
    );
    assert!(report.passed());
    for other in 0..TEST_SET {
        assert!(
            bench
                .kernel
                .maps
                .reasons(other)
                .unwrap()
                .packets
                .iter()
                .all(|count| *count == 0)
        );
    }
    let full = (0..bench.kernel.node.flow_lines).any(|line| {
        bench
            .kernel
            .maps
            .flow_line(line)
            .unwrap()
            .iter()
            .any(|entry| *entry != 0)
    });
    assert!(!full, "a flow was remembered");
    // Every backend had packets: the flows are spread.
    for member in image.members() {
        let counters = bench
            .kernel
            .maps
            .member_counters(&bench.kernel.node, TEST_SET, member.id)
            .unwrap();
        assert!(counters.packets > 20, "{}: {counters:?}", member.name);
    }
}

/// Edits what was meant, so that what is there is wrong; returns the first sentence.
fn wrong(edit: impl FnOnce(&mut Image)) -> (Report, String) {
    let (bench, mut image, slot) = staged();
    edit(&mut image);
    let report = run(&bench, &image, slot);
    assert!(!report.passed());
    assert!(report.failures >= report.failed.len() && report.failed.len() <= 50);
    let sentence = report.failed[0].to_string();
    (report, sentence)
}

fn pool<'a>(image: &'a mut Image, name: &str) -> &'a mut lb_userspace::kernel::image::PoolImage {
    image
        .pools
        .iter_mut()
        .find(|pool| pool.name == name)
        .unwrap()
}

#[test]
fn a_wrong_table_is_found() {
    let (report, sentence) = wrong(|image| {
        for entry in &mut pool(image, "tunnels").table.entries {
            *entry = *entry % 3 + 1;
        }
    });
    assert!(report.failed.iter().all(|failure| failure.vip == "shop-v4"));
    assert!(
        sentence.starts_with(
            "VIP shop-v4: a SYN from 198.18.0.0:1024 to 203.0.113.10:80 went to backend web-"
        ),
        "{sentence}"
    );
    // All but fragments, which go nowhere.
    assert_eq!(report.failures, 64 * 4);
}

#[test]
fn a_wrong_address_is_found() {
    let (report, sentence) = wrong(|image| {
        pool(image, "tunnels6").members[0].member.address =
            Address::from(std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]));
    });
    assert!(
        sentence.contains("came out with 0x01 at byte 53, should with 0x09"),
        "{sentence}"
    );
    let both = |name: &str| report.failed.iter().any(|failure| failure.vip == name);
    assert!(both("mixed"), "{sentence}");
}

#[test]
fn a_wrong_mode_is_found() {
    let (_, sentence) =
        wrong(|image| pool(image, "near").members[0].member.forward = forward_mode::IPIP);
    assert!(sentence.contains("VIP shop-any: a SYN"), "{sentence}");
    assert!(
        sentence.contains("came out with 114 bytes, should with 134"),
        "{sentence}"
    );
}

#[test]
fn a_missing_or_mistaken_vip_is_found() {
    let (_, sentence) = wrong(|image| {
        let vip = image
            .vips
            .iter_mut()
            .find(|vip| vip.name == "mixed")
            .unwrap();
        vip.entry.port = 54u16.to_be();
    });
    assert!(
        sentence.contains("VIP mixed: a datagram from 198.18.0.0:1024 to 203.0.113.11:54 ended as pass (not-vip), should as tx (forwarded)"),
        "{sentence}"
    );
    let (_, sentence) = wrong(|image| {
        let vip = image
            .vips
            .iter_mut()
            .find(|vip| vip.name == "shop-v6")
            .unwrap();
        vip.entry.vip += 9;
    });
    assert!(sentence.contains("counted for VIP #"), "{sentence}");
}

#[test]
fn another_slot_is_another_answer() {
    let (bench, image, slot) = staged();
    let report = run(&bench, &image, bench.record().active);
    assert_ne!(bench.record().active, slot);
    assert_eq!(
        (report.run, report.failures, report.failed.len()),
        (ALL, ALL, 50)
    );
}

/// Health is no part of a generation: packets that no backend could take are told apart.
#[test]
fn backends_that_are_down_are_no_failure_but_counted() {
    let (bench, image, slot) = staged();
    let set = |name: &str, state: u8| {
        let id = image
            .members()
            .find(|member| member.name == name)
            .unwrap()
            .id;
        let args = [u64::from(id), u64::from(state), 1];
        bench
            .kernel
            .guard
            .call(Op::SetMember, 0, &args, &[])
            .unwrap();
    };
    set("web-1", member_state::DOWN);
    set("near-1", member_state::DOWN);
    let report = run(&bench, &image, slot);
    assert!(report.passed(), "{:?}", report.failed.first());
    assert!(
        report.unserved >= 64 * 4,
        "near-1 was the only one: {}",
        report.unserved
    );
    bench.set_hop(1, 1500, false);
    assert!(run(&bench, &image, slot).passed());
}

#[test]
fn nothing_run_is_nothing_passed() {
    let (bench, mut image, slot) = staged();
    image.vips.clear();
    assert!(!run(&bench, &image, slot).passed());
}
