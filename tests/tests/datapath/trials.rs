//! Two generations side by side: which one decides.

use lb_common::control::SHARE_ALL;
use lb_common::counter::Reason;
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, Ip, echo_request, frame, inner, ip, tcp, too_big, udp};
use lb_userspace::kernel::probe::{Action, Ask};

use crate::world::{
    addr, asker, backend, by_table, client, commit, probe, services, shop, to, trial,
};

/// Old generation: web-1. New one: web-2.
fn on_trial() -> (
    Bench,
    lb_userspace::kernel::image::Image,
    lb_userspace::kernel::image::Image,
    u8,
) {
    let bench = Bench::new();
    let old = commit(&bench, &shop(&[1]), 1);
    for port in 1..=9 {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
        probe(&bench, &udp(asker(port), b"x"));
    }
    let (new, slot) = trial(&bench, &shop(&[2]), 2);
    (bench, old, new, slot)
}

#[test]
fn with_the_whole_share_beginnings_are_new_and_all_else_is_control() {
    let (bench, old, new, slot) = on_trial();
    let active = bench.record().active;
    let table = [
        ("SYN", tcp(client(20), Flags::Syn, &[]), slot),
        ("SYN of a known flow", tcp(client(1), Flags::Syn, &[]), slot),
        ("UDP without entry", udp(asker(21), b"x"), slot),
        (
            "ACK without entry",
            tcp(client(22), Flags::Ack, &[]),
            active,
        ),
        (
            "RST without entry",
            tcp(client(23), Flags::Rst, &[]),
            active,
        ),
        (
            "SYN-ACK without entry",
            tcp(client(24), Flags::SynAck, &[]),
            active,
        ),
        (
            "ACK of a flow from before",
            tcp(client(2), Flags::Ack, &[]),
            active,
        ),
        ("UDP of a flow from before", udp(asker(2), b"x"), active),
    ];
    for (about, frame, decided) in table {
        let decision = probe(&bench, &frame);
        assert_eq!(decision.slot, decided, "{about}");
        let (image, name) = if decided == slot {
            (&new, "web-2")
        } else {
            (&old, "web-1")
        };
        assert_eq!(backend(image, &decision), name, "{about}");
    }
}

#[test]
fn a_flow_stays_in_its_arm_and_a_way_back_moves_only_what_it_must() {
    let (bench, old, new, slot) = on_trial();
    probe(&bench, &tcp(client(30), Flags::Syn, &[]));
    let ack = tcp(client(30), Flags::Ack, &[]);
    let decision = probe(&bench, &ack);
    assert_eq!((decision.slot, decision.followed), (slot, true));
    assert_eq!(backend(&new, &decision), "web-2");
    // An error about it goes the same way.
    let quote = inner(&tcp(client(30).back(), Flags::Ack, &[]))[..28].to_vec();
    let error = probe(
        &bench,
        &too_big(addr("192.0.2.99"), client(30).to.ip(), 1400, &quote),
    );
    assert_eq!((error.slot, error.reason), (slot, Some(Reason::IcmpError)));

    bench.revert().unwrap();
    let decision = probe(&bench, &ack);
    assert_eq!(
        (decision.slot, decision.followed),
        (bench.record().active, false)
    );
    assert_eq!(
        backend(&old, &decision),
        "web-1",
        "web-2 is in no pool of ACTIVE"
    );
    let decision = probe(&bench, &tcp(client(2), Flags::Ack, &[]));
    assert!(decision.followed, "flows from before never noticed");
}

/// After a way back the same flow is control's, whatever its entry says of the trial that ended.
#[test]
fn entries_of_an_ended_trial_are_of_no_arm() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1, 2]), 1);
    trial(&bench, &shop(&[1, 2, 3]), 2);
    for port in 1..=50 {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
    }
    bench.revert().unwrap();
    let (_, slot) = trial(&bench, &shop(&[1, 2, 4]), 3);
    for port in 1..=50 {
        let decision = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_ne!(
            decision.slot, slot,
            "an entry of change 2 is not change 3's"
        );
    }
}

/// Committed: what was born in the trial follows on, without a move.
#[test]
fn a_commit_moves_no_flow_of_the_new_arm() {
    let (bench, _, new, _) = on_trial();
    probe(&bench, &tcp(client(31), Flags::Syn, &[]));
    bench.confirm().unwrap();
    let decision = probe(&bench, &tcp(client(31), Flags::Ack, &[]));
    assert_eq!(
        (backend(&new, &decision).as_str(), decision.followed),
        ("web-2", true)
    );
    let decision = probe(&bench, &tcp(client(2), Flags::Ack, &[]));
    assert!(!decision.followed, "web-1 is gone, so its flows move");
    assert_eq!(backend(&new, &decision), "web-2");
}

#[test]
fn a_share_of_the_flows_and_the_same_flow_always_alike() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1]), 1);
    bench.stage(&bench.image(&shop(&[2]))).unwrap();
    let quarter = u64::from(SHARE_ALL / 4);
    bench.trial_of(quarter, 2, 60_000, 60_000).unwrap();
    let shadow = bench.record().shadow;
    let arms: Vec<bool> = (1..=2000u16)
        .map(|port| probe(&bench, &tcp(client(port), Flags::Syn, &[])).slot == shadow)
        .collect();
    let taken = arms.iter().filter(|new| **new).count();
    // 2,000 draws of 1/4: 500, standard deviation 19. Six of them.
    assert!((384..=616).contains(&taken), "{taken} of 2000");
    for (port, new) in (1..).zip(&arms) {
        let again = probe(&bench, &tcp(client(port), Flags::Syn, &[])).slot == shadow;
        assert_eq!(again, *new, "a repeated SYN is the same flow's");
        let ack = probe(&bench, &tcp(client(port), Flags::Ack, &[])).slot == shadow;
        assert_eq!(ack, *new);
    }
}

const OLD_VIP: (&str, &str, u16, &str, &str) = ("old", "203.0.113.6", 80, "tcp", "web");
const OLD_DNS: (&str, &str, u16, &str, &str) = ("old-dns", "203.0.113.6", 53, "udp", "web");
const NEW_VIP: (&str, &str, u16, &str, &str) = ("new", "203.0.113.7", 80, "tcp", "web");
const KEPT: (&str, &str, u16, &str, &str) = ("kept", "203.0.113.5", 80, "tcp", "web");
const WEB: crate::world::PoolText<'static> = ("web", "ipip", &[("web-1", "10.0.5.1", "")]);

/// Whoever SHADOW would no longer serve is passed and counted as a tombstone: the sign that a
/// change removes what is in use.
#[test]
fn tombstones() {
    let bench = Bench::new();
    commit(&bench, &services(&[KEPT, OLD_VIP, OLD_DNS], &[WEB]), 1);
    probe(
        &bench,
        &tcp(to("203.0.113.6:80").sender_port(1), Flags::Syn, &[]),
    );
    let (_, slot) = trial(&bench, &services(&[KEPT], &[WEB]), 2);
    let active = bench.record().active;
    let old = |port| to("203.0.113.6:80").sender_port(port);
    let table = [
        (
            "SYN",
            tcp(old(9), Flags::Syn, &[]),
            Action::Pass,
            Reason::Tombstone,
            slot,
        ),
        (
            "UDP",
            udp(old(9).receiver_port(53), b"x"),
            Action::Pass,
            Reason::Tombstone,
            slot,
        ),
        (
            "flow",
            tcp(old(1), Flags::Ack, &[]),
            Action::Tx,
            Reason::Forwarded,
            active,
        ),
        (
            "mid-flow",
            tcp(old(2), Flags::Ack, &[]),
            Action::Tx,
            Reason::Forwarded,
            active,
        ),
        (
            "no VIP's",
            tcp(old(9).receiver_port(81), Flags::Syn, &[]),
            Action::Pass,
            Reason::NotVip,
            active,
        ),
        (
            "ping",
            echo_request("198.51.100.7", "203.0.113.6", b"x"),
            Action::Tx,
            Reason::EchoReply,
            active,
        ),
    ];
    for (about, frame, verdict, reason, decided) in table {
        let decision = probe(&bench, &frame);
        assert_eq!(
            (decision.action, decision.reason),
            (verdict, Some(reason)),
            "{about}"
        );
        assert_eq!(decision.slot, decided, "{about}");
        if verdict == Action::Pass {
            assert_eq!(decision.packet, frame, "{about}: untouched");
        }
    }
}

/// There is no control to belong to.
#[test]
fn a_vip_that_only_shadow_has_sends_all_its_flows_there() {
    let bench = Bench::new();
    commit(&bench, &services(&[KEPT], &[WEB]), 1);
    let (image, slot) = trial(&bench, &services(&[KEPT, NEW_VIP], &[WEB]), 2);
    let talk = to("203.0.113.7:80");
    for frame in [
        tcp(talk, Flags::Syn, &[]),
        tcp(talk.sender_port(7), Flags::Ack, &[]),
    ] {
        let decision = probe(&bench, &frame);
        assert_eq!(
            (decision.slot, decision.reason),
            (slot, Some(Reason::Forwarded))
        );
        assert_eq!(
            decision.vip.and_then(|vip| image.vip_name(vip)),
            Some("new")
        );
    }
    let ping = probe(&bench, &echo_request("198.51.100.7", "203.0.113.7", b"x"));
    assert_eq!(ping.reason, Some(Reason::EchoReply));
    let first = Ip {
        more: true,
        dont_fragment: false,
        ..Ip::default()
    };
    let fragment = frame(&ip(&first, talk.from.ip(), talk.to.ip(), 6, &[0; 64]));
    assert_eq!(probe(&bench, &fragment).reason, Some(Reason::Fragment));
    bench.revert().unwrap();
    assert_eq!(
        probe(&bench, &tcp(talk, Flags::Ack, &[])).reason,
        Some(Reason::NotVip)
    );
}

/// ACTIVE covers the port with its port-0 VIP, so flows without an entry are control's there.
#[test]
fn an_exact_vip_beside_active_s_port_0() {
    let bench = Bench::new();
    let any = ("any", "203.0.113.5", 0, "tcp", "web");
    commit(&bench, &services(&[any], &[WEB]), 1);
    let exact = ("exact", "203.0.113.5", 80, "tcp", "web");
    let (image, slot) = trial(&bench, &services(&[any, exact], &[WEB]), 2);
    let syn = probe(&bench, &tcp(client(1), Flags::Syn, &[]));
    assert_eq!(
        (syn.slot, syn.vip.and_then(|vip| image.vip_name(vip))),
        (slot, Some("exact"))
    );
    let ack = probe(&bench, &tcp(client(2), Flags::Ack, &[]));
    assert_ne!(ack.slot, slot);
    assert_eq!(ack.vip.and_then(|vip| image.vip_name(vip)), Some("any"));
}

/// A test run may ask what a slot that decides nothing yet would do.
#[test]
fn a_test_run_names_its_slot() {
    let bench = Bench::new();
    let old = commit(&bench, &shop(&[1]), 1);
    let new = bench.image(&shop(&[2]));
    let sealed = bench.stage(&new).unwrap();
    let frame = tcp(client(1), Flags::Syn, &[]);
    let ask = Ask {
        slot: Some(sealed.slot),
        no_flows: true,
    };
    let decision = bench.kernel.prober.run(&frame, ask).unwrap();
    assert_eq!(
        (decision.slot, backend(&new, &decision).as_str()),
        (sealed.slot, "web-2")
    );
    assert_eq!(backend(&old, &by_table(&bench, &frame)), "web-1");
}

/// The lease ran out: the packet path itself goes back, at the very next packet.
#[test]
fn a_lapsed_lease_ends_the_trial_in_the_packet_path() {
    let bench = Bench::new();
    let old = commit(&bench, &shop(&[1]), 1);
    bench.stage(&bench.image(&shop(&[2]))).unwrap();
    bench
        .trial_of(u64::from(SHARE_ALL), 2, 150, 60_000)
        .unwrap();
    assert_eq!(
        probe(&bench, &tcp(client(1), Flags::Syn, &[])).slot,
        bench.record().shadow
    );
    std::thread::sleep(std::time::Duration::from_millis(160));
    let decision = probe(&bench, &tcp(client(1), Flags::Syn, &[]));
    assert_eq!(backend(&old, &decision), "web-1");
    assert_eq!(decision.slot, bench.record().active);
}
