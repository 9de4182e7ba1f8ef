//! VIP flags: whose flows are one, what is remembered, and what a backend is chosen by.

use std::collections::BTreeSet;

use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::guard::{Op, TrialPut};
use lb_tests::bench::{Bench, node};
use lb_tests::packets::{Flags, Talk, inner, tcp, too_big, udp};
use lb_userspace::change::golden;
use lb_userspace::config::Policy;
use lb_userspace::kernel::image::Image;
use lb_userspace::plan::Plan;
use zerocopy::IntoBytes;

use crate::world::{addr, backend, commit, flagged, probe, services, shop, trial};

/// The shop with flags, its web server's VIP for any port.
fn shop_of(numbers: &[u8], flags: &str) -> String {
    let any = shop(numbers).replace("port = 80", "port = 0");
    flagged(&flagged(&any, "shop", flags), "dns", flags)
}

/// A client by its number, from a port of no meaning to a port.
fn from(number: u8, port: u16, to: u16) -> Talk {
    Talk::new("198.51.100.7:1", "203.0.113.5:80")
        .sender_address(addr(&format!("198.51.100.{number}")))
        .sender_port(port)
        .receiver_port(to)
}

fn syn_to(bench: &Bench, image: &Image, talk: Talk) -> String {
    backend(image, &probe(bench, &tcp(talk, Flags::Syn, &[])))
}

fn ack_to(bench: &Bench, image: &Image, talk: Talk) -> String {
    backend(image, &probe(bench, &tcp(talk, Flags::Ack, &[])))
}

const EIGHT: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn a_clients_flows_reach_one_backend_whatever_their_ports() {
    let bench = Bench::new();
    let image = commit(&bench, &shop_of(&EIGHT, "client-affinity"), 1);
    let mut used = BTreeSet::new();
    for number in 1..=60 {
        let first = syn_to(&bench, &image, from(number, 1000, 80));
        for (port, to) in [(1001, 80), (1002, 443), (40_000, 8080)] {
            let talk = from(number, port, to);
            assert_eq!(syn_to(&bench, &image, talk), first);
            assert_eq!(ack_to(&bench, &image, talk), first);
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 8, "60 clients over 8 backends: {used:?}");
}

#[test]
fn a_known_client_stays_when_the_table_changes() {
    let bench = Bench::new();
    let image = commit(&bench, &shop_of(&[1], "client-affinity"), 1);
    for number in 1..=60 {
        assert_eq!(syn_to(&bench, &image, from(number, 1, 80)), "web-1");
        probe(&bench, &udp(from(number, 1, 53), b"x"));
    }
    let image = commit(&bench, &shop_of(&EIGHT, "client-affinity"), 2);
    for number in 1..=60 {
        assert_eq!(syn_to(&bench, &image, from(number, 2, 443)), "web-1");
        let datagram = probe(&bench, &udp(from(number, 2, 53), b"x"));
        assert_eq!(backend(&image, &datagram), "web-1");
    }
    let others: BTreeSet<_> = (100..=160)
        .map(|number| syn_to(&bench, &image, from(number, 1, 80)))
        .collect();
    assert!(others.len() > 4, "new clients go by the table: {others:?}");
}

/// Another flag moves new flows at most: who is connected stays connected.
#[test]
fn connections_outlive_a_flag_that_comes_or_goes() {
    let bench = Bench::new();
    let image = commit(&bench, &shop_of(&EIGHT, ""), 1);
    let owners: Vec<_> = (1..=60)
        .map(|number| syn_to(&bench, &image, from(number, 1, 80)))
        .collect();
    let image = commit(&bench, &shop_of(&EIGHT, "client-affinity"), 2);
    for (number, owner) in (1..).zip(&owners) {
        assert_eq!(&ack_to(&bench, &image, from(number, 1, 80)), owner);
    }
    let owners: Vec<_> = (1..=60)
        .map(|number| syn_to(&bench, &image, from(number, 2, 80)))
        .collect();
    // A port that comes round belongs to the client now, not to its flow from before.
    for (number, owner) in (1..).zip(&owners) {
        assert_eq!(&syn_to(&bench, &image, from(number, 1, 80)), owner);
        assert_eq!(&ack_to(&bench, &image, from(number, 1, 80)), owner);
    }
    let image = commit(&bench, &shop_of(&EIGHT, ""), 3);
    for (number, owner) in (1..).zip(&owners) {
        assert_eq!(&ack_to(&bench, &image, from(number, 2, 80)), owner);
    }
}

/// On trial the first flow of a client draws, and the others follow it.
#[test]
fn a_client_is_in_one_arm() {
    let bench = Bench::new();
    commit(&bench, &shop_of(&[1], "client-affinity"), 1);
    let known = from(250, 1, 80);
    probe(&bench, &tcp(known, Flags::Syn, &[]));
    let new = bench.image(&shop_of(&[1, 2], "client-affinity"));
    let slot = bench.stage(&new).unwrap().slot;
    follow(&bench, u64::from(SHARE_ALL) / 2, 2);
    let kept = probe(&bench, &tcp(known.sender_port(2), Flags::Syn, &[]));
    assert_ne!(kept.slot, slot, "a client from before stays in control");
    let mut arms = [0, 0];
    for number in 1..=200 {
        let first = probe(&bench, &tcp(from(number, 1, 80), Flags::Syn, &[]));
        arms[usize::from(first.slot == slot)] += 1;
        for port in 2..=4 {
            let syn = probe(&bench, &tcp(from(number, port, 443), Flags::Syn, &[]));
            let ack = probe(&bench, &tcp(from(number, port, 443), Flags::Ack, &[]));
            for decision in [&syn, &ack] {
                assert_eq!((decision.slot, decision.member), (first.slot, first.member));
            }
        }
        // A SYN that comes again goes to control, and its client with it.
        let again = probe(&bench, &tcp(from(number, 1, 80), Flags::Syn, &[]));
        assert_ne!(again.slot, slot);
        let other = probe(&bench, &tcp(from(number, 9, 80), Flags::Syn, &[]));
        assert_eq!((other.slot, other.member), (again.slot, again.member));
    }
    assert!(arms[0] > 50 && arms[1] > 50, "{arms:?}");
    let shop = new.vips.iter().find(|vip| vip.name == "shop").unwrap();
    let kernel = &bench.kernel;
    let counted = kernel.maps.evidence(&kernel.node, shop.entry.vip).unwrap();
    let flows = [counted[0].flows, counted[1].flows];
    assert_eq!(flows, arms, "one draw a client");
    assert_eq!(counted[0].untracked + counted[1].untracked, 0);
}

/// Puts SHADOW on trial with this share, its flows followed.
fn follow(bench: &Bench, share: u64, change: u64) {
    let args = [share, 0x5eed, 60_000, 60_000, change];
    let base = bench.active();
    bench
        .kernel
        .guard
        .call(Op::Trial, base, &args, judged().as_bytes())
        .unwrap();
}

fn judged() -> TrialPut {
    TrialPut {
        breaker: Breaker::default(),
        within_ms: 300,
        pace: 0,
    }
}

#[test]
fn a_stateless_vip_neither_reads_nor_writes_the_flow_table() {
    let bench = Bench::new();
    commit(&bench, &shop_of(&[1], "stateless"), 1);
    for port in 1..=100 {
        for flags in [Flags::Syn, Flags::Ack, Flags::Ack] {
            assert!(!probe(&bench, &tcp(from(7, port, 80), flags, &[])).followed);
        }
    }
    // Nothing was remembered, so the table of the next generation decides.
    let image = commit(&bench, &shop_of(&EIGHT, "stateless"), 2);
    let owners: BTreeSet<_> = (1..=100)
        .map(|port| ack_to(&bench, &image, from(7, port, 80)))
        .collect();
    assert_eq!(owners.len(), 8, "{owners:?}");
}

/// Each packet is drawn, and steadily: other salts change nothing, and a larger share takes flows
/// over and gives none back.
#[test]
fn a_stateless_flow_changes_its_arm_once_at_most() {
    let bench = Bench::new();
    commit(&bench, &shop_of(&[1], "stateless"), 1);
    let new = bench.image(&shop_of(&[2], "stateless"));
    let slot = bench.stage(&new).unwrap().slot;
    follow(&bench, u64::from(SHARE_ALL) / 4, 2);
    let in_new = |flags| {
        let frame = |port| tcp(from(7, port, 80), flags, &[]);
        let ports = (1..=400).filter(|port| probe(&bench, &frame(*port)).slot == slot);
        ports.collect::<BTreeSet<u16>>()
    };
    let step = |share: u32, salt: u64, deadline: u64| {
        let args = [u64::from(share), salt, deadline];
        let guard = &bench.kernel.guard;
        guard
            .call(Op::Step, bench.active(), &args, judged().as_bytes())
            .unwrap();
    };
    let quarter = in_new(Flags::Syn);
    // 400 draws of 1/4: 100, standard deviation 8.7. Six of them.
    assert!((48..=152).contains(&quarter.len()), "{}", quarter.len());
    assert_eq!(in_new(Flags::Ack), quarter, "whatever the packet is");
    step(SHARE_ALL / 4, 0xdead_beef, 0);
    assert_eq!(in_new(Flags::Ack), quarter, "whatever the salt is");
    step(SHARE_ALL / 2, 1, 60_000);
    let half = in_new(Flags::Ack);
    assert!(half.is_superset(&quarter) && half.len() > quarter.len());
    bench.confirm().unwrap();
    assert_eq!(in_new(Flags::Ack).len(), 400);
}

#[test]
fn hash_dport_chooses_by_the_port_alone() {
    let bench = Bench::new();
    let image = commit(
        &bench,
        &shop_of(&EIGHT, "hash-dport").replace("port = 53", "port = 0"),
        1,
    );
    let mut used = BTreeSet::new();
    for to in 1000..1060 {
        let first = syn_to(&bench, &image, from(1, 1, to));
        for number in 2..=5 {
            assert_eq!(syn_to(&bench, &image, from(number, 77, to)), first);
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 8, "60 ports over 8 backends");
}

/// Errors go to the backend that has the flow, under every flag.
#[test]
fn an_error_goes_to_the_owner_under_every_flag() {
    for flags in ["", "client-affinity", "stateless", "hash-dport"] {
        let bench = Bench::new();
        let text = shop_of(&EIGHT, flags).replace("port = 53", "port = 0");
        let image = commit(&bench, &text, 1);
        for number in 1..=20 {
            let talk = from(number, 1, 80);
            let owner = syn_to(&bench, &image, talk);
            let quote = inner(&tcp(talk.back(), Flags::Ack, &[0; 1200]))[..28].to_vec();
            let error = too_big(addr("192.0.2.99"), talk.to.ip(), 1400, &quote);
            assert_eq!(backend(&image, &probe(&bench, &error)), owner, "{flags}");
        }
    }
}

/// Another flag may move every flow: class R3, and the plan says so beforehand.
#[test]
fn another_flag_is_of_the_highest_class() {
    let policy = Policy::default();
    for flags in ["client-affinity", "stateless", "hash-dport"] {
        let bench = Bench::new();
        let plain = services(
            &[("any", "203.0.113.9", 0, "tcp", "p")],
            &[("p", "ipip", &[("a", "10.0.2.1", ""), ("b", "10.0.2.2", "")])],
        );
        let with = flagged(&plain, "any", flags);
        for (old, new) in [(&plain, &with), (&with, &plain)] {
            commit(&bench, old, 1);
            let sealed = bench.stage(&bench.image(new)).unwrap();
            let (old, new) = (bench.config(old), bench.config(new));
            let plan = Plan::of(&old, &new, 1, node().fleet_seed, &policy).unwrap();
            assert_eq!(
                (sealed.class, sealed.moved_ppm, sealed.vips_changed),
                (3, 1_000_000, 1),
                "{flags}"
            );
            assert_eq!((plan.class, plan.moved_ppm()), (3, 1_000_000), "{flags}");
            bench
                .kernel
                .guard
                .call(Op::Abandon, bench.active(), &[], &[])
                .unwrap();
        }
    }
}

#[test]
fn golden_packets_know_every_flag() {
    for flags in ["client-affinity", "stateless", "hash-dport"] {
        let bench = Bench::new();
        let text = shop_of(&EIGHT, flags).replace("port = 53", "port = 0");
        let (image, slot) = trial(&bench, &text, 1);
        let report = golden::run(&bench.kernel, &image, slot).unwrap();
        assert!(report.passed(), "{flags}: {:#?}", report.failed);
    }
}
