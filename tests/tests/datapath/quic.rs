//! QUIC VIPs: who a connection id names has the packet, and a connection that begins is counted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::counter::Reason;
use lb_common::evidence::Evidence;
use lb_common::guard::{Op, TrialPut};
use lb_common::slot::member_state;
use lb_tests::bench::Bench;
use lb_tests::packets::{Talk, udp};
use lb_userspace::change::golden;
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::Decision;
use lb_userspace::lab::until;
use zerocopy::IntoBytes;

use crate::world::{addr, backend, commit, flagged, probe, services, set_state, trial, with_key};

/// A QUIC VIP over IPv4 and one over IPv6, backends `q-N` with these ids.
fn world(ids: &[(u8, u32)], keys: &str) -> String {
    let texts: Vec<_> = ids
        .iter()
        .map(|(n, id)| {
            let mut more = String::new();
            let _ = write!(more, "quic_id = {id}");
            (format!("q-{n}"), format!("fd00:2::{n}"), more)
        })
        .collect();
    let backends: Vec<_> = texts
        .iter()
        .map(|(name, address, more)| (name.as_str(), address.as_str(), more.as_str()))
        .collect();
    let text = services(
        &[
            ("quic", "203.0.113.8", 443, "udp", "q"),
            ("quic6", "2001:db8::8", 443, "udp", "q"),
        ],
        &[("q", "ipip", &backends)],
    );
    let text = if keys.is_empty() {
        text
    } else {
        with_key(&text, "q", keys)
    };
    flagged(&flagged(&text, "quic", "quic"), "quic6", "quic")
}

fn four(keys: &str) -> String {
    world(&[(1, 1), (2, 2), (3, 3), (4, 4)], keys)
}

fn from(number: u8, port: u16) -> Talk {
    Talk::new("198.51.100.7:1", "203.0.113.8:443")
        .sender_address(addr(&format!("198.51.100.{number}")))
        .sender_port(port)
}

/// A client's first packet, its connection id drawn by the client.
fn initial(talk: Talk, id: u8) -> Vec<u8> {
    let head = [0xc3, 0, 0, 0, 1, 8];
    udp(talk, &[&head[..], &[id; 8], &[0; 1180]].concat())
}

/// A Handshake packet with the server's connection id.
fn handshake(talk: Talk, id: &[u8]) -> Vec<u8> {
    let id = [id, &[0x5a; 8]].concat();
    udp(
        talk,
        &[&[0xe3, 0, 0, 0, 1, 8][..], &id[..8], &[0; 60]].concat(),
    )
}

/// A packet of a connection that stands.
fn short(talk: Talk, id: &[u8]) -> Vec<u8> {
    udp(talk, &[&[0x43][..], id, &[0x5a; 40]].concat())
}

/// The first bytes of a connection id with this server id, by the anchor's versions and by QUIC-LB.
fn ids(server: u32) -> [([u8; 5], &'static str); 5] {
    let [a, b, c, d] = server.to_be_bytes();
    let one = (server << 6).to_be_bytes();
    [
        ([0x40 | one[1], one[2], one[3] | 0x2a, 9, 9], ""),
        ([0x95, b, c, d, 9], ""),
        ([0xd5, a, b, c, d], ""),
        ([0x5f, c, d, 9, 9], "quic_id_bytes = 2"),
        ([0x1f, a, b, c, d], "quic_id_bytes = 4"),
    ]
}

#[test]
fn a_connection_id_leads_to_its_server_wherever_the_client_is() {
    for (layout, keys) in ids(0).iter().enumerate().map(|(n, (_, keys))| (n, *keys)) {
        let bench = Bench::new();
        let image = commit(&bench, &four(keys), 1);
        for server in 1..=4 {
            let id = ids(server)[layout].0;
            let name = format!("q-{server}");
            for client in 1..=8 {
                let talk = from(client, 4000);
                let talk6 =
                    Talk::new("[2001:db8:c::7]:1", "[2001:db8::8]:443").sender_port(client.into());
                for frame in [
                    short(talk, &id),
                    short(talk.sender_port(4001), &id),
                    handshake(talk, &id),
                    short(talk6, &id),
                ] {
                    let decision = probe(&bench, &frame);
                    assert_eq!(
                        decision.reason,
                        Some(Reason::Forwarded),
                        "{layout} {server}"
                    );
                    assert_eq!(backend(&image, &decision), name, "{layout} {server}");
                }
            }
        }
    }
}

/// A connection id that the client drew is no server's, even if it looks like one.
#[test]
fn what_begins_goes_by_the_table_and_is_remembered() {
    let bench = Bench::new();
    let image = commit(&bench, &four(""), 1);
    let mut used = BTreeSet::new();
    for client in 1..=60 {
        let talk = from(client, 1);
        // 0x40 0x40 0x40: version 1, server id 257; 0x40 0x00 0x40 would be server 1.
        let first = backend(&image, &probe(&bench, &initial(talk, 0x40)));
        let again = probe(&bench, &initial(talk, 0x40));
        assert_eq!(
            (backend(&image, &again), again.followed),
            (first.clone(), true)
        );
        used.insert(first);
    }
    assert_eq!(used.len(), 4);
    let crafted = udp(
        from(9, 9),
        &[&[0xc3, 0, 0, 0, 1, 8, 0x40, 0, 0x40][..], &[0; 1190]].concat(),
    );
    let owners: BTreeSet<_> = (1..=60)
        .map(|client| {
            let mut frame = crafted.clone();
            frame[29] = client;
            backend(&image, &probe(&bench, &frame))
        })
        .collect();
    assert!(owners.len() > 2, "not all to server 1: {owners:?}");
}

/// An id that nobody has goes where its flow went, else by the table, and is counted.
#[test]
fn an_unknown_id_falls_back_and_is_counted() {
    let bench = Bench::new();
    let image = commit(&bench, &four(""), 1);
    let unknown = ids(77)[1].0;
    let owner = backend(&image, &probe(&bench, &initial(from(1, 1), 7)));
    let known = probe(&bench, &short(from(1, 1), &unknown));
    assert_eq!(
        (known.reason, backend(&image, &known)),
        (Some(Reason::QuicUnknown), owner)
    );
    let strange = probe(&bench, &short(from(2, 2), &unknown));
    assert_eq!(strange.reason, Some(Reason::QuicUnknown));
    assert!(strange.member.is_some());
    // A server that is down can't have it either.
    let id = ids(1)[0].0;
    set_state(&bench, &image, "q-1", member_state::DOWN);
    let moved = probe(&bench, &short(from(3, 3), &id));
    assert_eq!(moved.reason, Some(Reason::QuicUnknown));
    assert_ne!(backend(&image, &moved), "q-1");
    // What is no QUIC is forwarded as any datagram.
    for data in [&b""[..], b"x", &[0x40; 4]] {
        let other = probe(&bench, &udp(from(4, 4), data));
        assert_eq!(other.reason, Some(Reason::Forwarded), "{data:?}");
    }
}

/// Deleting a mapping left the id to whoever got the server's place: here it is nobody's, and an id
/// that another backend gets is that backend's from then on.
#[test]
fn defect_8_a_removed_server_s_id_is_nobodys() {
    let bench = Bench::new();
    commit(&bench, &world(&[(1, 100_000), (2, 2)], ""), 1);
    let id = ids(100_000)[2].0;
    let image = commit(&bench, &world(&[(3, 3), (2, 2)], ""), 2);
    let decision = probe(&bench, &short(from(1, 1), &id));
    assert_eq!(decision.reason, Some(Reason::QuicUnknown));
    let image_then = commit(&bench, &world(&[(3, 3), (2, 100_000)], ""), 3);
    let decision = probe(&bench, &short(from(1, 1), &id));
    assert_eq!(backend(&image_then, &decision), "q-2");
    drop(image);
}

#[test]
fn an_unchanged_index_is_shared_and_many_ids_are_found() {
    let bench = Bench::new();
    let many: Vec<(u8, u32)> = (1..=250).map(|n| (n, u32::from(n) * 16_777)).collect();
    let first = commit(&bench, &world(&many, ""), 1);
    for (n, id) in &many {
        let decision = probe(&bench, &short(from(1, 1), &ids(*id)[2].0));
        assert_eq!(backend(&first, &decision), format!("q-{n}"));
    }
    let next = bench.image(&world(&many, "min_backends = 2"));
    let shared = |image: &Image| image.pools[0].ids.as_ref().unwrap().shared;
    assert!(!shared(&first) && shared(&next));
    bench.stage(&next).unwrap();
}

#[test]
fn golden_packets_know_quic_vips() {
    let bench = Bench::new();
    let (image, slot) = trial(&bench, &four(""), 1);
    let report = golden::run(&bench.kernel, &image, slot).unwrap();
    assert!(report.passed(), "{:#?}", report.failed);
}

/// q-1 in control, q-2 in the new arm, with all new connections, followed.
fn followed() -> (Bench, Image, u8) {
    let bench = Bench::new();
    commit(&bench, &world(&[(1, 1)], ""), 1);
    let new = bench.image(&world(&[(2, 2)], ""));
    let slot = bench.stage(&new).unwrap().slot;
    let put = TrialPut {
        breaker: Breaker::default(),
        within_ms: 2_000,
        pace: 0,
    };
    let args = [u64::from(SHARE_ALL) - 1, 0x5eed, 60_000, 60_000, 2];
    let base = bench.active();
    bench
        .kernel
        .guard
        .call(Op::Trial, base, &args, put.as_bytes())
        .unwrap();
    (bench, new, slot)
}

fn counts(bench: &Bench, image: &Image) -> [Evidence; 2] {
    let vip = image.vips.iter().find(|vip| vip.name == "quic").unwrap();
    let kernel = &bench.kernel;
    kernel.maps.evidence(&kernel.node, vip.entry.vip).unwrap()
}

fn sum(bins: &[u32]) -> u32 {
    bins.iter().sum()
}

/// S17: begun with an Initial, complete with the first packet that shows an answer.
#[test]
fn a_connection_is_complete_when_its_client_was_answered() {
    let (bench, new, slot) = followed();
    let id = ids(2)[0].0;
    let answers: [&dyn Fn(Talk) -> Vec<u8>; 3] = [
        &|talk| short(talk, &id),
        &|talk| handshake(talk, &id),
        // The acknowledgement of the server's Initial, to the server's connection id.
        &|talk| initial(talk, 0x99),
    ];
    for (number, answer) in (1..).zip(answers) {
        let talk = from(number, 1);
        let in_new = |decision: &Decision| decision.slot == slot;
        assert!(in_new(&probe(&bench, &initial(talk, 7))));
        let [_, before] = counts(&bench, &new);
        assert!(in_new(&probe(&bench, &answer(talk))));
        assert!(in_new(&probe(&bench, &answer(talk))));
        let [control, arm] = counts(&bench, &new);
        assert_eq!((before.flows, arm.flows), (number.into(), number.into()));
        assert_eq!(sum(&arm.completed), sum(&before.completed) + 1);
        assert_eq!(sum(&arm.started), u32::from(number));
        assert_eq!((arm.retried, arm.untracked, control.flows), (0, 0, 0));
    }
}

/// An Initial that comes again finds control, as a SYN does; the connection stays there.
#[test]
fn an_initial_that_comes_again_goes_to_control() {
    let (bench, new, slot) = followed();
    let active = bench.record().active;
    let talk = from(1, 1);
    assert_eq!(probe(&bench, &initial(talk, 7)).slot, slot);
    let again = until("the first flight is over", Duration::from_secs(20), || {
        let decision = probe(&bench, &initial(talk, 7));
        (decision.slot == active).then_some(decision)
    })
    .unwrap();
    assert!(again.member.is_some());
    for _ in 0..3 {
        let next = probe(&bench, &short(talk, &ids(1)[0].0));
        assert_eq!((next.slot, next.member), (active, again.member));
    }
    let [control, arm] = counts(&bench, &new);
    assert_eq!((arm.flows, arm.retried, sum(&arm.completed)), (1, 1, 0));
    assert_eq!((control.flows, sum(&control.completed)), (0, 0));
}
