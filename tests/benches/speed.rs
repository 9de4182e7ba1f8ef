//! What a packet costs, and what memory and verifier make of it: ns a packet in one run, case beside
//! case. `cargo xtask bench`.
//!
//! A test run does not reset the packet between repeats, so only packets are timed that come out as they
//! went in but for MAC addresses: `l2` and what is passed. That a packet comes out as it should is looked
//! at first, and a wrong one has no figure. The many-flow figures of docs/BENCHMARKS.md need a
//! new packet each run, and are the neutral judge's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use lb_common::flow_table::{LOAD, Shape};
use lb_common::guard::Op;
use lb_tests::bench::{AGENT, Bench};
use lb_tests::bpf;
use lb_tests::bpffs::Bpffs;
use lb_tests::packets::{Flags, Talk, tcp, turned};
use lb_userspace::kernel::probe::{Action, Ask};

const ROUNDS: usize = 31;
const RUNS: u32 = 20_000;

const SERVICES: &str = r#"version = 1
[[vip]]
name = "v4"
service = "s"
address = "203.0.113.5"
port = 80
protocol = "tcp"
pool = "p4"
[[vip]]
name = "v6"
service = "s"
address = "2001:db8::5"
port = 80
protocol = "tcp"
pool = "p6"
[[pool]]
name = "p4"
service = "s"
forward = "l2"
[[pool.backend]]
name = "b"
address = "10.0.5.1"
weight = 100
[[pool]]
name = "p6"
service = "s"
forward = "l2"
[[pool.backend]]
name = "b"
address = "fd00::1"
weight = 100
"#;

/// A case: what it is, its frame, what becomes of it.
struct Case {
    what: &'static str,
    frame: Vec<u8>,
    action: Action,
    times: Vec<u64>,
}

fn cases() -> Vec<Case> {
    let v4 = Talk::new("198.51.100.7:4000", "203.0.113.5:80");
    let v6 = Talk::new("[2001:db8:c::7]:4000", "[2001:db8::5]:80");
    let other = Talk::new("198.51.100.7:4000", "203.0.113.99:80");
    let case = |what, frame, action| Case {
        what,
        frame,
        action,
        times: Vec::new(),
    };
    vec![
        case("IPv4, no VIP", tcp(other, Flags::Ack, &[]), Action::Pass),
        case("IPv4, known flow", tcp(v4, Flags::Ack, &[]), Action::Tx),
        case("IPv6, known flow", tcp(v6, Flags::Ack, &[]), Action::Tx),
        case(
            "IPv4, SYN of a known flow",
            tcp(v4, Flags::Syn, &[]),
            Action::Tx,
        ),
        case(
            "IPv4 with options, known flow: the long way",
            tcp_long(v4),
            Action::Tx,
        ),
    ]
}

/// A packet that the short way does not take.
fn tcp_long(talk: Talk) -> Vec<u8> {
    let options = lb_tests::packets::Ip {
        options: vec![1; 4],
        ..lb_tests::packets::Ip::default()
    };
    lb_tests::packets::tcp_with(&options, talk, Flags::Ack, &[])
}

/// That a packet comes out as it should; otherwise there is nothing to time.
fn check(bench: &Bench, case: &Case) {
    let seen = bench
        .kernel
        .prober
        .run(&case.frame, Ask::default())
        .unwrap();
    assert_eq!(seen.action, case.action, "{}: {seen:?}", case.what);
    let (action, out) = bench.kernel.prober.run_unmarked(&case.frame).unwrap();
    assert_eq!(action, case.action, "{}", case.what);
    let expected = match case.action {
        Action::Tx => lb_tests::packets::framed(
            lb_tests::packets::inner(&case.frame),
            lb_tests::bench::OWN,
            lb_tests::bench::HOP,
        ),
        _ => case.frame.clone(),
    };
    assert_eq!(out, expected, "{}: a wrong packet has no figure", case.what);
    assert_ne!(turned(&case.frame), case.frame);
}

fn speed() {
    let bench = Bench::new();
    bench.commit(SERVICES);
    let mut cases = cases();
    for case in &cases {
        check(&bench, case);
    }
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let time = bench.kernel.prober.time(&case.frame, RUNS).unwrap();
            case.times.push(time);
        }
    }
    println!("ns a packet, test run and its loop included, medians of {ROUNDS} rounds, least");
    for case in &mut cases {
        case.times.sort_unstable();
        println!(
            "  {:<44} {:>5} {:>5}",
            case.what,
            case.times[ROUNDS / 2],
            case.times[0]
        );
    }
}

/// What the table takes and touches, and whether every flow is remembered.
fn memory() {
    const FLOWS: u32 = 4_194_304;
    let bench = Bench::by(&AGENT.replace("flows = 8192", &format!("flows = {FLOWS}")));
    bench.commit(SERVICES);
    let lines = u64::from(bench.kernel.node.flow_lines);
    println!(
        "flow table of {FLOWS} flows: {} MiB, {} bytes a flow",
        lines >> 14,
        lines * 64 / u64::from(FLOWS)
    );
    let (mut sent, mut seen) = (0_u32, 0);
    while seen < 3 && sent < 400_000 {
        let shape = Shape(bench.kernel.maps.control().unwrap().shape);
        let host = 1 + sent / 50_000;
        let port = u16::try_from(1 + sent % 50_000).unwrap();
        let talk = Talk::new(&format!("198.51.100.{host}:1"), "203.0.113.5:80").sender_port(port);
        bench
            .kernel
            .prober
            .run_unmarked(&tcp(talk, Flags::Syn, &[]))
            .unwrap();
        sent += 1;
        let now = Shape(bench.kernel.maps.control().unwrap().shape);
        if now.lines() != shape.lines() || sent == 1 {
            seen += 1;
            println!(
                "  from {sent:>7} flows on {:>4} MiB of it are in use",
                now.lines() >> 14
            );
        }
    }
    let counts = bench.kernel.maps.flow_counts().unwrap();
    println!(
        "  {} of {sent} remembered, {} forgotten, load {LOAD} a line at its capacity",
        counts.added, counts.evicted
    );
}

fn verifier() {
    let bpffs = Bpffs::new();
    let bench = Bench::pinned(&bpffs.pins());
    for name in ["lb", "guard"] {
        let program = bpf::open_pin(&bpffs.pins().program(name), 0).unwrap();
        println!(
            "{name}: {} instructions verified, of 1,000,000",
            bpf::fact(&program, "verified_insns")
        );
    }
    bench.kernel.guard.call(Op::Clock, 0, &[], &[]).unwrap();
}

fn main() {
    speed();
    memory();
    verifier();
}
