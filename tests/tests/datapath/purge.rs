//! Silent flows of a backend that has died: forgotten, kept or marked, as their pool says.

use std::time::{Duration, Instant};

use lb_common::counter::Reason;
use lb_common::slot::member_state;
use lb_tests::bench::{AGENT, Bench};
use lb_tests::packets::{Flags, tcp, udp};
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::stage::sweep;

use crate::world::{asker, backend, client, commit, probe, set_state, shop, trial, with_key};

/// Flows of one protocol in a scene.
const FLOWS: u16 = 200;

/// The shop with a policy, and all flows of four backends: TCP and UDP.
struct Scene {
    bench: Bench,
    image: Image,
    /// Ports of the flows to the first backend.
    tcp: Vec<u16>,
    udp: Vec<u16>,
}

fn text(policy: &str, numbers: &[u8]) -> String {
    with_key(&shop(numbers), "web", &format!("on_dead = \"{policy}\""))
}

impl Scene {
    fn new(policy: &str) -> Self {
        Self::of(Bench::new(), policy)
    }

    fn of(bench: Bench, policy: &str) -> Self {
        let image = commit(&bench, &text(policy, &[1, 2, 3, 4]), 1);
        let goes = |frame: &[u8]| backend(&image, &probe(&bench, frame)) == "web-1";
        let tcp = (1..=FLOWS).filter(|port| goes(&tcp(client(*port), Flags::Syn, &[])));
        let tcp: Vec<u16> = tcp.collect();
        let udp: Vec<u16> = (1..=FLOWS)
            .filter(|port| goes(&udp(asker(*port), b"x")))
            .collect();
        assert!(tcp.len() > 20 && udp.len() > 20);
        Self {
            bench,
            image,
            tcp,
            udp,
        }
    }

    fn set(&self, state: u8) {
        set_state(&self.bench, &self.image, "web-1", state);
    }

    /// Dead, swept, and back.
    fn outage(&self) {
        self.set(member_state::DOWN);
        sweep(&self.bench.kernel).unwrap();
        self.set(member_state::UP);
    }

    /// Whether a TCP flow is remembered. A reset follows and is not remembered itself.
    fn is_known(&self, port: u16) -> bool {
        probe(&self.bench, &tcp(client(port), Flags::Rst, &[])).followed
    }

    fn known(&self, ports: impl IntoIterator<Item = u16>) -> usize {
        ports
            .into_iter()
            .filter(|port| self.is_known(*port))
            .count()
    }

    fn purged(&self) -> usize {
        let purged = self.bench.kernel.maps.flow_room().unwrap().purged;
        usize::try_from(purged).unwrap()
    }

    fn all(&self) -> usize {
        self.tcp.len() + self.udp.len()
    }
}

#[test]
fn silent_flows_of_a_dead_backend_are_forgotten() {
    let scene = Scene::new("move");
    scene.outage();
    assert_eq!(scene.purged(), scene.all(), "its flows, all of them");
    assert_eq!(scene.known(scene.tcp.iter().copied()), 0);
    let others = (1..=FLOWS).filter(|port| !scene.tcp.contains(port));
    assert_eq!(
        scene.known(others),
        usize::from(FLOWS) - scene.tcp.len(),
        "and nobody else's"
    );
    for port in &scene.udp {
        assert!(!probe(&scene.bench, &udp(asker(*port), b"x")).followed);
    }
}

#[test]
fn silent_flows_stay_where_the_pool_keeps_them_or_a_way_back_needs_them() {
    let scene = Scene::new("keep");
    scene.outage();
    assert_eq!(scene.known(scene.tcp.iter().copied()), scene.tcp.len());

    // What is on trial keeps them, so what is on trial finds them.
    let scene = Scene::new("move");
    trial(&scene.bench, &text("keep", &[1, 2, 3, 4]), 2);
    scene.outage();
    scene.bench.revert().unwrap();
    assert_eq!(scene.known(scene.tcp.iter().copied()), scene.tcp.len());

    // Only LKG has it: no packet goes there, but a way back would.
    let scene = Scene::new("move");
    commit(&scene.bench, &text("move", &[2, 3, 4]), 2);
    scene.outage();
    scene.bench.revert().unwrap();
    assert_eq!(scene.known(scene.tcp.iter().copied()), scene.tcp.len());
    assert_eq!(scene.purged(), 0);
}

/// The client learns that its connection is gone when it next speaks, though the backend is back.
#[test]
fn silent_clients_get_their_reset_when_they_speak() {
    let scene = Scene::new("reset");
    scene.outage();
    assert_eq!(scene.purged(), scene.all());
    sweep(&scene.bench.kernel).unwrap();
    assert_eq!(scene.purged(), scene.all(), "each once");
    for (index, port) in scene.tcp.iter().enumerate() {
        let ack = tcp(client(*port), Flags::Ack, &[]);
        if index % 2 == 0 {
            let reset = probe(&scene.bench, &ack);
            assert_eq!(reset.reason, Some(Reason::FlowReset), "{port}");
            let next = probe(&scene.bench, &ack);
            assert_eq!(next.reason, Some(Reason::Forwarded), "told once");
            assert!(!next.followed);
        } else {
            // A new connection from the same port is none of that.
            let syn = probe(&scene.bench, &tcp(client(*port), Flags::Syn, &[]));
            assert_eq!(syn.reason, Some(Reason::Forwarded));
            let ack = probe(&scene.bench, &ack);
            assert!(ack.followed && ack.member == syn.member, "{ack:?}");
        }
    }
    for port in &scene.udp {
        let datagram = udp(asker(*port), b"x");
        let first = probe(&scene.bench, &datagram);
        assert_eq!(first.reason, Some(Reason::Forwarded), "datagrams move");
        assert!(!first.followed);
        assert!(probe(&scene.bench, &datagram).followed);
    }
}

/// Resets that are due are no less so in a table that has grown meanwhile.
#[test]
fn resets_that_are_due_outlive_the_tables_growth() {
    let flows = "flows = 1048576\nflood_rate = 1";
    let bench = Bench::by(&AGENT.replace("flows = 8192", flows));
    let scene = Scene::of(bench, "reset");
    scene.outage();
    let changes = || scene.bench.kernel.maps.flow_room().unwrap().changes;
    let before = changes();
    for number in 0..1_000_000u32 {
        let [_, third, high, low] = number.to_be_bytes();
        let from = format!("198.18.{third}.{}:1", 1 + high % 250);
        let port = 1 + u16::from(low) + 256 * u16::from(high / 250);
        let talk = lb_tests::packets::Talk::new(&from, "203.0.113.5:80").sender_port(port);
        let syn = tcp(talk, Flags::Syn, &[]);
        scene.bench.kernel.prober.run_unmarked(&syn).unwrap();
        if changes() > before {
            break;
        }
    }
    assert!(changes() > before, "it has grown");
    for port in &scene.tcp {
        let ack = probe(&scene.bench, &tcp(client(*port), Flags::Ack, &[]));
        assert_eq!(ack.reason, Some(Reason::FlowReset), "{port}");
    }
}

/// No agent, no call of the guard: the kernel's timer goes through the table by itself.
#[test]
fn the_timer_forgets_them_too() {
    let scene = Scene::new("move");
    scene.set(member_state::DOWN);
    let begun = Instant::now();
    while scene.purged() < scene.all() {
        assert!(
            begun.elapsed() < Duration::from_mins(4),
            "{}",
            scene.purged()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.set(member_state::UP);
    assert_eq!(scene.known(scene.tcp.iter().copied()), 0);
}
