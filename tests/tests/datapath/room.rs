//! Room in the flow table: it grows and loses no flow; a flood takes nobody's place.

use lb_common::flow_table::Shape;
use lb_tests::bench::{AGENT, Bench};
use lb_tests::packets::{Flags, Talk, tcp, udp};
use lb_userspace::kernel::probe::Ask;

use crate::world::{asker, client, commit, probe, set_state, shop};

/// A balancer whose flow table is meant for so many flows.
fn with_flows(flows: u32, flood_rate: u32) -> Bench {
    let flows = format!("flows = {flows}\nflood_rate = {flood_rate}");
    let bench = Bench::by(&AGENT.replace("flows = 8192", &flows));
    commit(&bench, &shop(&[1, 2, 3, 4]), 1);
    bench
}

fn of(number: u32) -> Talk {
    let host = 1 + number / 50_000;
    let port = u16::try_from(1 + number % 50_000).unwrap();
    Talk::new(&format!("198.51.100.{host}:1"), "203.0.113.5:80").sender_port(port)
}

fn send(bench: &Bench, number: u32, flags: Flags) {
    let frame = tcp(of(number), flags, &[]);
    bench.kernel.prober.run_unmarked(&frame).unwrap();
}

/// Whether a flow is remembered. A reset follows and is not remembered itself.
fn is_known(bench: &Bench, number: u32) -> bool {
    probe(bench, &tcp(of(number), Flags::Rst, &[])).followed
}

fn shape(bench: &Bench) -> Shape {
    Shape(bench.kernel.maps.control().unwrap().shape)
}

#[test]
fn a_table_that_grows_loses_no_flow() {
    let bench = with_flows(1 << 20, 1);
    let small = shape(&bench);
    let flows = u32::try_from(small.crowded()).unwrap() + 5_000;
    for number in 0..flows {
        send(&bench, number, Flags::Syn);
        let earlier = number / 2;
        if number % 64 == 0 {
            assert!(is_known(&bench, earlier), "{earlier} after {number}");
        }
    }
    assert!(shape(&bench).now() > small.now(), "it has grown");
    for number in 0..flows {
        assert!(is_known(&bench, number), "flow {number}");
    }
    let counts = bench.kernel.maps.flow_counts().unwrap();
    assert_eq!((counts.refused, counts.evicted), (0, 0));
    assert_eq!(counts.added, u64::from(flows));
}

/// Floods are counted by CPU: a thread that moves about floods none of them.
pub fn stay_on_this_cpu() {
    let mut only = nix::sched::CpuSet::new();
    // SAFETY: takes nothing; -1 if it fails, which is no CPU.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
    only.set(cpu).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &only).unwrap();
}

/// Fills a full table with new flows until one is refused. Flows are counted in batches by the second and
/// CPU, so when that is depends on the clock, that it will be does not.
fn flood(bench: &Bench) -> u32 {
    stay_on_this_cpu();
    for number in 0..1_000_000 {
        send(bench, number, Flags::Syn);
        if bench.kernel.maps.flow_counts().unwrap().refused > 0 {
            return number;
        }
    }
    panic!("a million new flows and no flood");
}

#[test]
fn a_flood_stops_at_the_limit_and_whoever_is_established_stays() {
    let bench = with_flows(512, 1);
    for number in 999_000..999_064 {
        send(&bench, number, Flags::Syn);
    }
    let refused = flood(&bench);
    assert!(!is_known(&bench, refused), "it was not remembered");
    for number in 999_000..999_064 {
        assert!(is_known(&bench, number), "established flow {number}");
    }
    let counts = bench.kernel.maps.flow_counts().unwrap();
    assert_eq!(counts.evicted, 0, "nobody lost his place");
    assert!(counts.floods > 0);
}

/// Below its capacity the table takes all, however fast they come.
#[test]
fn with_room_there_is_no_flood() {
    let bench = with_flows(8_192, 1);
    for number in 0..8_000 {
        send(&bench, number, Flags::Syn);
    }
    let counts = bench.kernel.maps.flow_counts().unwrap();
    assert_eq!((counts.refused, counts.floods, counts.evicted), (0, 0, 0));
    for number in 0..8_000 {
        assert!(is_known(&bench, number), "flow {number}");
    }
}

/// PARITY: the anchor counted each datagram of a moved flow as a new one, and so switched its table off.
#[test]
fn defect_5_datagrams_of_moved_flows_are_no_flood() {
    let bench = with_flows(512, 1);
    let image = bench.image(&shop(&[1, 2, 3, 4]));
    for port in 1..=100 {
        probe(&bench, &udp(asker(port), b"x"));
    }
    let added = bench.kernel.maps.flow_counts().unwrap().added;
    for round in 0..50 {
        let name = if round % 2 == 0 { "web-1" } else { "web-2" };
        let other = if round % 2 == 0 { "web-2" } else { "web-1" };
        set_state(&bench, &image, name, lb_common::slot::member_state::DOWN);
        set_state(&bench, &image, other, lb_common::slot::member_state::UP);
        for port in 1..=100 {
            bench
                .kernel
                .prober
                .run(&udp(asker(port), b"x"), Ask::default())
                .unwrap();
        }
    }
    let counts = bench.kernel.maps.flow_counts().unwrap();
    assert_eq!((counts.added, counts.refused), (added, 0));
    assert!(probe(&bench, &udp(asker(1), b"x")).followed);
    assert!(!probe(&bench, &tcp(client(1), Flags::Rst, &[])).followed);
}
