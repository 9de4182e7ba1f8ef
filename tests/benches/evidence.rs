//! What a trial costs a packet: ns a packet in one run, state beside state, so that only differences
//! count. `cargo xtask bench evidence`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use std::fmt::Write as _;
use std::process::ExitCode;

use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::counter::Reason;
use lb_common::guard::{Op, TrialPut};
use lb_common::pace;
use lb_tests::bench::Bench;
use lb_tests::expect;
use lb_tests::measure::balancer::{Balancer, USUAL};
use lb_tests::measure::programs::Programs;
use lb_tests::measure::report::{Aim, Report};
use lb_tests::measure::rig::{LOOPBACK, Rig};
use lb_tests::measure::shared::Traffic;
use lb_tests::measure::timing::{median, paired, stay_on_one_cpu};
use lb_tests::measure::trials::{Step, Trials, turns};
use lb_tests::measure::workload::V4_ACK_64K;
use lb_tests::packets::{Flags, Talk, tcp};
use lb_userspace::kernel::probe::{Action, Ask};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

const ROUNDS: usize = 41;
const RUNS: u32 = 20_000;
/// Packets of a connection.
const PACKETS: u32 = 4;
/// Aims of the design: ns above the same packet without evidence.
const BORN_BEFORE: f64 = 15.0;
const TRACKED: f64 = 120.0;

fn services(backends: u8) -> String {
    let mut text = String::from(
        "version = 1\n[[vip]]\nname = \"v\"\nservice = \"s\"\naddress = \"203.0.113.5\"\n\
         port = 80\nprotocol = \"tcp\"\npool = \"p\"\n[[pool]]\nname = \"p\"\nservice = \"s\"\n\
         forward = \"l2\"\n",
    );
    for n in 1..=backends {
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"b{n}\"\naddress = \"10.0.5.{n}\"\nweight = 100\n"
        );
    }
    text
}

fn client(port: u16) -> Talk {
    Talk::new("198.51.100.7:1", "203.0.113.5:80").sender_port(port)
}

/// The packets of a flow.
fn send(bench: &Bench, port: u16, flags: &[Flags]) {
    for flags in flags {
        let frame = tcp(client(port), *flags, &[]);
        let seen = bench.kernel.prober.run(&frame, Ask::default()).unwrap();
        assert_eq!(seen.reason, Some(Reason::Forwarded), "{flags:?}");
    }
}

/// A trial of half of the flows, followed or not; flow 1 was born before it.
fn on_trial(followed: bool) -> Bench {
    let bench = Bench::new();
    bench.commit(&services(1));
    send(&bench, 1, &[Flags::Syn, Flags::Ack]);
    bench.stage(&bench.image(&services(2))).unwrap();
    let put = TrialPut {
        breaker: Breaker::default(),
        within_ms: 300,
        pace: 0,
    };
    let payload = if followed { put.as_bytes() } else { &[] };
    let args = [u64::from(SHARE_ALL) / 2, 7, 60_000, 60_000, 2];
    let guard = &bench.kernel.guard;
    guard.call(Op::Trial, 1, &args, payload).unwrap();
    bench
}

/// No trial, one of 2^`sampling` flows followed; flow 1 was born before.
fn watched(sampling: u64) -> Bench {
    let bench = Bench::new();
    bench.commit(&services(1));
    send(&bench, 1, &[Flags::Syn, Flags::Ack]);
    let guard = &bench.kernel.guard;
    guard.call(Op::Watch, 0, &[1, sampling, 300], &[]).unwrap();
    bench
}

/// The packet of a case, and the balancer that it goes through.
struct Case<'a> {
    what: &'static str,
    bench: &'a Bench,
    /// What it is compared with, by its place; none compares with itself.
    base: usize,
    aim: Option<Aim>,
    times: Vec<f64>,
}

fn time(bench: &Bench, port: u16) -> f64 {
    let frame = tcp(client(port), Flags::Ack, &[]);
    // What is timed comes out as it should.
    let (action, out) = bench.kernel.prober.run_unmarked(&frame).unwrap();
    assert_eq!((action, out), (Action::Tx, expect::l2(&frame)));
    let time = bench.kernel.prober.time(&frame, RUNS).unwrap();
    f64::from(u32::try_from(time).unwrap())
}

fn measure(rounds: usize, cases: &mut [Case]) {
    for round in 0..rounds {
        for case in &mut *cases {
            let port = match case.what {
                // Followed for two seconds from its handshake on; then its record is gone.
                WATCHED | FOLLOWED => {
                    let port = u16::try_from(1_000 + round).unwrap();
                    send(case.bench, port, &[Flags::Syn, Flags::Ack]);
                    port
                }
                GONE => {
                    let port = u16::try_from(10_000 + round).unwrap();
                    send(case.bench, port, &[Flags::Syn, Flags::Ack, Flags::FinAck]);
                    port
                }
                _ => 1,
            };
            case.times.push(time(case.bench, port));
        }
    }
}

/// Connections in a trial: percent of them in the new arm, its step, what of them is followed.
const CONNECTIONS: [(u32, u32, u16, &str); 4] = [
    (10, 0, pace::ALL, "step 1, 10 %, all followed"),
    (10, 0, u16::MAX, "step 1, 10 %, passed over"),
    (90, 3, pace::ALL, "step 4, 90 %, all followed"),
    (90, 3, u16::MAX, "step 4, 90 %, passed over"),
];

/// ns a packet of connections of four packets (SYN, two ACKs, FIN), and nothing else, without and with a
/// trial by turns.
fn connections(step: Step, pace: u16, rounds: usize) -> [Vec<f64>; 2] {
    let mut rig = Rig::empty(Programs::load(1));
    rig.add("lbguard", V4_ACK_64K, Balancer::new(USUAL));
    rig.fill();
    let lane = &rig.lanes[0];
    assert!(lane.wrong.is_none(), "{:?}", lane.wrong);
    let balancer = lane.subject.balancer().unwrap();
    rig.programs.aim(&balancer.program);
    rig.programs.feed(&Traffic {
        every: PACKETS,
        more: PACKETS - 1,
        ..V4_ACK_64K.traffic(1, 0)
    });
    let run = || {
        let length = V4_ACK_64K.frame_length();
        rig.programs.run(length, RUNS, LOOPBACK).ns
    };
    let mut trials = Trials::new(&balancer.bench, step, pace);
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for on_trial in turns(round) {
            trials.begin(&balancer.bench, on_trial);
            run();
            // The kernel tells whole nanoseconds; the mean of some runs tells more.
            let times: Vec<f64> = (0..10).map(|_| run()).collect();
            trials.end(&balancer.bench, on_trial);
            all[usize::from(on_trial)].push(times.iter().sum::<f64>() / 10.0);
        }
    }
    all
}

/// Says what a trial costs a connection.
fn tell_connections(report: &mut Report) {
    let rounds = report.rounds(ROUNDS);
    report.say(format_args!(
        "ns a connection of {PACKETS} packets (IPIP), over the same without a trial"
    ));
    for (percent, number, pace, what) in CONNECTIONS {
        let share = SHARE_ALL * percent / 100;
        let [without, with] = connections(Step { number, share }, pace, rounds);
        let more = f64::from(PACKETS) * paired(&with, &without, |a, b| a - b);
        let all = f64::from(PACKETS) * median(&without);
        report.say(format_args!(
            "  {what:<38} {:>5.0}  {more:+.0} over {all:.0}",
            all + more
        ));
        report.put(what, json!({"connection_ns": all, "more": more}));
    }
}

const WATCHED: &str = "no trial, watched, flow followed";
const FOLLOWED: &str = "trial, flow followed";
const GONE: &str = "trial, flow born in it, not followed";

fn main() -> ExitCode {
    stay_on_one_cpu();
    let mut report = Report::new();
    let quiet = Bench::new();
    quiet.commit(&services(1));
    send(&quiet, 1, &[Flags::Syn, Flags::Ack]);
    let (unfollowed, followed) = (on_trial(false), on_trial(true));
    let watched = watched(0);
    let case = |what, bench, base, aim: Option<f64>| Case {
        what,
        bench,
        base,
        aim: aim.map(Aim::AtMost),
        times: Vec::new(),
    };
    let mut cases = [
        case("no trial", &quiet, 0, None),
        case("no trial, watched, flow not followed", &watched, 0, None),
        case(WATCHED, &watched, 0, None),
        case("trial without evidence", &unfollowed, 3, None),
        case(
            "trial, flow born before it",
            &followed,
            3,
            Some(BORN_BEFORE),
        ),
        case(GONE, &followed, 3, None),
        case(FOLLOWED, &followed, 3, Some(TRACKED)),
    ];
    let rounds = report.rounds(ROUNDS);
    measure(rounds, &mut cases);
    report.say(format_args!(
        "ns a packet (established TCP over l2, one flow), medians of {rounds} rounds"
    ));
    for it in &cases {
        let base = &cases[it.base];
        let (ns, more) = (
            median(&it.times),
            paired(&it.times, &base.times, |a, b| a - b),
        );
        let aim = it.aim.map_or(String::new(), |aim| aim.told(more));
        let over = if std::ptr::eq(it, base) {
            String::new()
        } else {
            format!("{more:+.0} over {}", base.what)
        };
        report.say(format_args!("  {:<38} {ns:>5.0}  {over}   {aim}", it.what));
        let aim = it.aim.map_or(Value::Null, |aim| aim.json(more));
        report.put(
            it.what,
            json!({"ns": ns, "more": more, "than": base.what, "aim": aim}),
        );
    }
    tell_connections(&mut report);
    report.say("packets/s of a mix: see `cargo xtask bench live`");
    report.finish()
}
