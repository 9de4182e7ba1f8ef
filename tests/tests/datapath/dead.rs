//! What becomes of the flows of a backend that is down, and of flows that are idle; the pool's MTU.

use std::time::{Duration, Instant};

use lb_common::counter::Reason;
use lb_common::flow::AGES;
use lb_common::slot::member_state;
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, Ip, Talk, inner, reset, tcp, tcp_with, turned, udp};
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::Action;

use crate::world::{asker, backend, client, commit, probe, services, set_state, shop, with_key};

/// An acknowledgement number.
const ACK: u32 = 0x0a0b_0c0d;

/// The shop's pool with a policy, and the flows of its eight backends: port and owner.
struct Scene {
    bench: Bench,
    image: Image,
    flows: Vec<(u16, String)>,
}

fn scene(keys: &str) -> Scene {
    let bench = Bench::new();
    let text = with_key(&shop(&[1, 2, 3, 4]), "web", keys);
    let image = commit(&bench, &text, 1);
    let flows = (1..=200)
        .map(|port| {
            probe(&bench, &udp(asker(port), b"x"));
            let syn = probe(&bench, &tcp(client(port), Flags::Syn, &[]));
            (port, backend(&image, &syn))
        })
        .collect();
    Scene {
        bench,
        image,
        flows,
    }
}

impl Scene {
    fn of(&self, name: &str) -> Vec<u16> {
        let mine = self.flows.iter().filter(|(_, owner)| owner == name);
        mine.map(|(port, _)| *port).collect()
    }

    fn to(&self, frame: &[u8]) -> String {
        backend(&self.image, &probe(&self.bench, frame))
    }
}

#[test]
fn flows_of_a_dead_backend_move_and_stay_where_they_went() {
    let scene = scene("on_dead = \"move\"");
    let hers = |port| scene.to(&udp(asker(port), b"x"));
    let datagrams: Vec<u16> = (1..=200).filter(|port| hers(*port) == "web-1").collect();
    assert!(datagrams.len() > 20);
    set_state(&scene.bench, &scene.image, "web-1", member_state::DOWN);
    let moved: Vec<String> = datagrams.iter().map(|port| hers(*port)).collect();
    assert!(!moved.contains(&"web-1".to_owned()));
    for port in scene.of("web-1") {
        assert_ne!(scene.to(&tcp(client(port), Flags::Ack, &[])), "web-1");
    }
    set_state(&scene.bench, &scene.image, "web-1", member_state::UP);
    let after: Vec<String> = datagrams.iter().map(|port| hers(*port)).collect();
    assert_eq!(after, moved, "nobody moves back");
}

#[test]
fn flows_of_a_dead_backend_may_be_kept() {
    let scene = scene("on_dead = \"keep\"");
    set_state(&scene.bench, &scene.image, "web-1", member_state::DOWN);
    let ports = scene.of("web-1");
    assert!(ports.len() > 20);
    for port in ports {
        assert_eq!(scene.to(&tcp(client(port), Flags::Ack, &[])), "web-1");
        let again = scene.to(&tcp(client(port), Flags::Syn, &[]));
        assert_ne!(again, "web-1", "what is new goes elsewhere");
    }
}

/// The client learns at once that its connection is gone, as from the backend's own host.
#[test]
fn clients_of_a_dead_backend_may_get_a_reset() {
    let text = with_key(
        &services(
            &[
                ("v4", "203.0.113.5", 80, "tcp", "p"),
                ("v6", "2001:db8::5", 80, "tcp", "p"),
                ("udp", "203.0.113.5", 53, "udp", "p"),
            ],
            &[(
                "p",
                "ipip",
                &[("a", "fd00:2::1", ""), ("b", "fd00:2::2", "")],
            )],
        ),
        "p",
        "on_dead = \"reset\"",
    );
    let bench = Bench::new();
    let image = commit(&bench, &text, 1);
    let talks = (1..=60).flat_map(|port| {
        [
            client(port),
            Talk::new("[2001:db8:c::7]:1", "[2001:db8::5]:80").sender_port(port),
        ]
    });
    let dead: Vec<Talk> = talks
        .filter(|talk| {
            let frame = tcp(*talk, Flags::Syn, &[]);
            backend(&image, &probe(&bench, &frame)) == "a"
        })
        .collect();
    assert!(dead.iter().any(|t| t.to.is_ipv4()) && dead.iter().any(|t| t.to.is_ipv6()));
    set_state(&bench, &image, "a", member_state::DOWN);
    for (number, talk) in dead.iter().enumerate() {
        let header = Ip {
            options: if talk.to.is_ipv4() && number % 3 == 0 {
                vec![1, 1, 1, 0]
            } else {
                Vec::new()
            },
            ..Ip::default()
        };
        // With an ACK the reset begins where the client waits; without, it acknowledges what came.
        let (flags, data, seq, ack) = match number % 3 {
            0 => (Flags::Ack, &b""[..], ACK, None),
            1 => (Flags::PshAck, &b"data"[..], ACK, None),
            _ => (Flags::None, &b"abc"[..], 0, Some(0x0102_0304 + 3)),
        };
        let mut frame = tcp_with(&header, *talk, flags, data);
        let tcp_at = frame.len() - data.len() - 20;
        frame[tcp_at + 8..tcp_at + 12].copy_from_slice(&ACK.to_be_bytes());
        let decision = probe(&bench, &frame);
        assert_eq!(
            (decision.action, decision.reason),
            (Action::Tx, Some(Reason::FlowReset)),
            "{flags:?}"
        );
        let wanted = turned(&reset(talk.back(), seq, ack));
        assert_eq!(decision.packet, wanted, "{talk:?} {flags:?}");
        // It is told once: what still comes goes to a backend that does not know it either.
        let next = probe(&bench, &tcp(*talk, Flags::Ack, &[]));
        assert_eq!(
            (next.reason, backend(&image, &next).as_str()),
            (Some(Reason::Forwarded), "b")
        );
    }
    for port in 1..=60 {
        let decision = probe(&bench, &udp(asker(port), b"x"));
        assert_eq!(backend(&image, &decision), "b", "datagrams move");
    }
}

/// Steps of 0.5 s instead of 17 s, so that nobody has to wait. The shortest timeout is over after three.
const QUICK: u32 = 29;

/// How many steps the timeout has, and one more, since nobody knows how far the first one was.
const OVER: u32 = 4;

#[test]
fn an_idle_flow_is_forgotten_after_its_time() {
    let begun = Instant::now();
    // A machine that does other things may let so much time pass between two lines that it is over.
    while !tried_to_forget() {
        assert!(begun.elapsed() < Duration::from_mins(2), "no quiet moment");
    }
}

/// One flow is silent, another goes on: false if two packets of that came too far apart to tell.
fn tried_to_forget() -> bool {
    let bench = Bench::ageing(QUICK);
    let text = |numbers: &[u8]| with_key(&shop(numbers), "web", "idle_timeout = \"5s\"");
    commit(&bench, &text(&[1]), 1);
    let age = || bench.kernel.maps.control().unwrap().age;
    let since = |then: u32| age().wrapping_sub(then) & (AGES - 1);
    let mut last = age();
    for port in [1, 2] {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
    }
    // Whoever is forgotten goes by a table that names others for most.
    let image = commit(&bench, &text(&[1, 2, 3, 4, 5, 6, 7, 8]), 2);
    let silent = age();
    let kept = probe(&bench, &tcp(client(1), Flags::Ack, &[]));
    if since(last) > 1 {
        return false;
    }
    assert!(kept.followed && backend(&image, &kept) == "web-1");
    let silent_since = || since(silent);
    while silent_since() < OVER + 1 {
        let now = age();
        let talks = probe(&bench, &tcp(client(2), Flags::Ack, &[]));
        if since(last) > 1 {
            return false;
        }
        assert!(talks.followed, "it was not silent");
        last = now;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!probe(&bench, &tcp(client(1), Flags::Rst, &[])).followed);
    assert!(probe(&bench, &tcp(client(2), Flags::Ack, &[])).followed || since(last) > 1);
    true
}

/// A pool's MTU is what its packets are held to, if it is less than the next hop's.
#[test]
fn a_pools_mtu_is_honoured() {
    let bench = Bench::new();
    for (key, fits) in [("mtu = 1400", 1380), ("mtu = 9000", 1480), ("", 1480)] {
        commit(&bench, &with_key(&shop(&[1]), "web", key), 1);
        let packet = |length: usize| {
            let frame = tcp(client(1), Flags::Ack, &vec![7; length - 40]);
            assert_eq!(inner(&frame).len(), length);
            probe(&bench, &frame)
        };
        assert_eq!(packet(fits).reason, Some(Reason::Forwarded), "{key}");
        let too_big = packet(fits + 1);
        assert_eq!(too_big.reason, Some(Reason::TooBig), "{key}");
        let said = u16::from_be_bytes([too_big.packet[40], too_big.packet[41]]);
        assert_eq!(usize::from(said), fits, "{key}");
    }
}
