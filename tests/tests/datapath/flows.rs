//! The flow table: who reads it, who writes it, and when an entry is followed.

use lb_common::counter::Reason;
use lb_common::slot::member_state;
use lb_tests::bench::Bench;
use lb_tests::expect::{self, key};
use lb_tests::packets::{Flags, Talk, inner, tcp, too_big, udp};
use lb_userspace::kernel::image::Image;

use crate::world::{
    addr, asker, backend, by_table, client, commit, probe, services, set_state, shop, shop_with,
};

/// A flow that is pinned to web-1, and that web-1..8's table would send elsewhere.
struct Pinned {
    bench: Bench,
    /// Of the generation with all backends.
    image: Image,
    talk: Talk,
}

fn pinned() -> Pinned {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1]), 1);
    for port in 1..=100 {
        assert_eq!(
            backend(&image, &probe(&bench, &tcp(client(port), Flags::Syn, &[]))),
            "web-1"
        );
    }
    let image = commit(&bench, &shop(&[1, 2, 3, 4, 5, 6, 7, 8]), 2);
    let elsewhere = |port: &u16| {
        let table = by_table(&bench, &tcp(client(*port), Flags::Ack, &[]));
        backend(&image, &table) != "web-1"
    };
    let port = (1..=100).find(elsewhere).unwrap();
    Pinned {
        bench,
        image,
        talk: client(port),
    }
}

#[test]
fn a_flow_follows_its_entry_and_not_the_table() {
    let Pinned { bench, image, talk } = pinned();
    for flags in [
        Flags::Ack,
        Flags::PshAck,
        Flags::FinAck,
        Flags::Rst,
        Flags::RstAck,
    ] {
        let decision = probe(&bench, &tcp(talk, flags, b"data"));
        assert_eq!(backend(&image, &decision), "web-1", "{flags:?}");
        assert!(decision.followed);
    }
}

/// An error belongs to the backend that has the flow, not to the one that the table would choose
/// now: it alone knows the connection.
#[test]
fn an_error_goes_to_the_owner_of_the_flow() {
    let Pinned { bench, image, talk } = pinned();
    let quote = inner(&tcp(talk.back(), Flags::Ack, &[0; 1200]))[..28].to_vec();
    let frame = too_big(addr("192.0.2.99"), talk.to.ip(), 1400, &quote);
    assert_ne!(backend(&image, &by_table(&bench, &frame)), "web-1");
    let decision = probe(&bench, &frame);
    assert_eq!(
        (decision.reason, decision.followed),
        (Some(Reason::IcmpError), true)
    );
    assert_eq!(backend(&image, &decision), "web-1");
    let tunnelled = expect::ipip(&bench.kernel.node, &frame, &key(talk, 6), addr("10.0.5.1"));
    assert_eq!(decision.packet, tunnelled);
}

/// A source port is used anew: the old connection's entry is of no meaning for the new one.
#[test]
fn a_syn_never_reads_and_always_writes() {
    let Pinned { bench, image, talk } = pinned();
    let syn = probe(&bench, &tcp(talk, Flags::Syn, &[]));
    assert!(!syn.followed);
    let chosen = backend(&image, &syn);
    assert_ne!(chosen, "web-1");
    let next = probe(&bench, &tcp(talk, Flags::Ack, &[]));
    assert_eq!((backend(&image, &next), next.followed), (chosen, true));
}

#[test]
fn who_is_remembered() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1, 2, 3]), 1);
    let quote = |talk: Talk| inner(&tcp(talk.back(), Flags::Ack, &[]))[..28].to_vec();
    let error = |talk: Talk| too_big(addr("192.0.2.99"), talk.to.ip(), 1400, &quote(talk));
    let firsts = [
        ("SYN", tcp(client(1), Flags::Syn, &[]), client(1), true),
        ("segment", tcp(client(2), Flags::Ack, &[]), client(2), true),
        ("FIN", tcp(client(3), Flags::FinAck, &[]), client(3), true),
        ("RST", tcp(client(4), Flags::Rst, &[]), client(4), false),
        (
            "RST with ACK",
            tcp(client(5), Flags::RstAck, &[]),
            client(5),
            false,
        ),
        ("ICMP error", error(client(6)), client(6), false),
    ];
    for (about, first, talk, remembered) in firsts {
        assert!(!probe(&bench, &first).followed, "{about}");
        let second = probe(&bench, &tcp(talk, Flags::Rst, &[]));
        assert_eq!(second.followed, remembered, "{about}");
    }
    assert!(!probe(&bench, &udp(asker(7), b"x")).followed);
    assert!(
        probe(&bench, &udp(asker(7), b"x")).followed,
        "UDP is remembered"
    );
}

/// Test runs that leave the flow table alone neither read nor write it.
#[test]
fn no_flows_means_none() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1, 2, 3]), 1);
    let frame = tcp(client(1), Flags::Ack, &[]);
    assert!(!by_table(&bench, &frame).followed);
    assert!(
        !probe(&bench, &frame).followed,
        "the one before was not remembered"
    );
    assert!(!by_table(&bench, &frame).followed);
    assert!(probe(&bench, &frame).followed);
}

/// Protocols, ports and addresses are different flows.
#[test]
fn flows_are_told_apart() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1, 2, 3]), 1);
    probe(&bench, &tcp(client(9), Flags::Syn, &[]));
    let other = Talk::new("198.51.100.8:9", "203.0.113.5:80");
    for frame in [
        tcp(client(10), Flags::Rst, &[]),
        tcp(other, Flags::Rst, &[]),
        udp(asker(9), b"x"),
    ] {
        assert!(!probe(&bench, &frame).followed);
    }
    assert!(probe(&bench, &tcp(client(9), Flags::Rst, &[])).followed);
}

/// Drained by the file: what it has stays with it, nothing new comes to it.
#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_new_ones() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2, 3, 4]), 1);
    let owner: Vec<String> = (1..=200)
        .map(|port| backend(&image, &probe(&bench, &tcp(client(port), Flags::Syn, &[]))))
        .collect();
    assert!(owner.iter().filter(|name| *name == "web-1").count() > 20);
    let drained = shop_with(
        &[1, 2, 3, 4],
        |n| if n == 1 { "state = \"drain\"" } else { "" },
    );
    let image = commit(&bench, &drained, 2);
    for (port, owner) in (1..).zip(&owner) {
        let decision = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_eq!(
            (&backend(&image, &decision), decision.followed),
            (owner, true)
        );
        assert_ne!(
            backend(
                &image,
                &probe(&bench, &tcp(client(1000 + port), Flags::Syn, &[]))
            ),
            "web-1"
        );
    }
}

/// The same by command or health, without a new generation.
#[test]
fn a_member_s_state_counts_at_once() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2, 3, 4]), 1);
    let to = |frame: &[u8]| backend(&image, &probe(&bench, frame));
    let port = (1..=1000)
        .find(|port| to(&tcp(client(*port), Flags::Syn, &[])) == "web-1")
        .unwrap();
    let (syn, ack) = (
        tcp(client(port), Flags::Syn, &[]),
        tcp(client(port), Flags::Ack, &[]),
    );

    set_state(&bench, &image, "web-1", member_state::DRAIN);
    assert_eq!(to(&ack), "web-1", "the flow stays");
    assert_ne!(
        to(&tcp(client(port).sender_port(port), Flags::Syn, &[])),
        "web-1"
    );
    set_state(&bench, &image, "web-1", member_state::UP);
    assert_eq!(to(&syn), "web-1");
    set_state(&bench, &image, "web-1", member_state::DOWN);
    assert_ne!(to(&ack), "web-1", "down: the flow has to move");
    set_state(&bench, &image, "web-1", member_state::UP);
    assert_ne!(to(&ack), "web-1", "and stays where it went");
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        set_state(&bench, &image, name, member_state::DOWN);
    }
    let decision = probe(&bench, &ack);
    assert_eq!(
        (decision.reason, decision.member),
        (Some(Reason::NoBackend), None)
    );
}

/// An entry is followed iff its backend is in the VIP's pool in the slot that decides. A backend
/// removed moves its own flows and no other's, however the table was shuffled.
#[test]
fn only_flows_of_a_removed_backend_move() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2, 3, 4]), 1);
    let owner: Vec<String> = (1..=200)
        .map(|port| backend(&image, &probe(&bench, &tcp(client(port), Flags::Syn, &[]))))
        .collect();
    let image = commit(&bench, &shop(&[2, 3, 4, 5, 6, 7, 8, 9]), 2);
    for (port, owner) in (1..).zip(&owner) {
        let decision = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        if owner == "web-1" {
            assert!(!decision.followed);
        } else {
            assert_eq!(
                (&backend(&image, &decision), decision.followed),
                (owner, true)
            );
        }
    }
    // Back to the first: flows of 2, 3 and 4 do not notice; those that moved stay if they can.
    bench.revert().unwrap();
    let image = bench.image(&shop(&[1, 2, 3, 4]));
    for (port, owner) in (1..).zip(&owner).filter(|(_, owner)| *owner != "web-1") {
        let decision = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_eq!(
            (&backend(&image, &decision), decision.followed),
            (owner, true)
        );
    }
}

/// The same address in another pool is another backend: the VIP's flows are not followed into it.
#[test]
fn a_backend_of_another_pool_is_not_followed() {
    let bench = Bench::new();
    let vip = |pool| [("shop", "203.0.113.5", 80, "tcp", pool)];
    let pools: [crate::world::PoolText<'_>; 2] = [
        ("web", "ipip", &[("web-1", "10.0.5.1", "")]),
        (
            "other",
            "ipip",
            &[("web-1", "10.0.5.1", ""), ("web-2", "10.0.5.2", "")],
        ),
    ];
    let all = |pool| {
        let mut vips = vip(pool).to_vec();
        vips.push(("keep-a", "203.0.113.6", 80, "tcp", "web"));
        vips.push(("keep-b", "203.0.113.7", 80, "tcp", "other"));
        services(&vips, &pools)
    };
    commit(&bench, &all("web"), 1);
    let frame = tcp(client(1), Flags::Syn, &[]);
    let before = probe(&bench, &frame);
    commit(&bench, &all("other"), 2);
    let after = probe(&bench, &tcp(client(1), Flags::Ack, &[]));
    assert!(!after.followed);
    assert_ne!(after.member, before.member, "members belong to one pool");
}

/// Half of the backends down is the most that health may take out (K10): the flows of the down ones
/// go to those that are up, and are not dropped. Seeds are fixed, so this is no matter of luck.
#[test]
fn with_half_of_the_backends_down_no_flow_is_dropped() {
    let bench = Bench::new();
    let image = commit(&bench, &shop(&[1, 2]), 1);
    set_state(&bench, &image, "web-1", member_state::DOWN);
    let dropped = (1..=2000)
        .map(|port| by_table(&bench, &tcp(client(port), Flags::Syn, &[])))
        .filter(|decision| decision.reason == Some(Reason::NoBackend))
        .count();
    assert_eq!(dropped, 0);
}
