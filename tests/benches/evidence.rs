//! What a trial costs a packet: ns a packet in one run, state beside state, so that only differences
//! count. `cargo xtask bench`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use std::fmt::Write as _;

use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::counter::Reason;
use lb_common::guard::{Op, TrialPut};
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, Talk, tcp};
use lb_userspace::kernel::probe::Ask;
use zerocopy::IntoBytes;

const ROUNDS: usize = 41;
const RUNS: u32 = 20_000;
/// Aims of the design: ns above the same packet without evidence.
const BORN_BEFORE: i64 = 15;
const FOLLOWED: i64 = 120;

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
        reserved: 0,
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

fn median(mut times: Vec<u64>) -> i64 {
    times.sort_unstable();
    i64::try_from(times[times.len() / 2]).unwrap()
}

fn main() {
    let quiet = Bench::new();
    quiet.commit(&services(1));
    send(&quiet, 1, &[Flags::Syn, Flags::Ack]);
    let (unfollowed, followed) = (on_trial(false), on_trial(true));
    let watched = watched(0);
    let ack = |port| tcp(client(port), Flags::Ack, &[]);
    let mut times: [Vec<u64>; 7] = Default::default();
    for round in 0..ROUNDS {
        // Followed for two seconds from its handshake on; then its record is gone.
        let port = u16::try_from(1_000 + round).unwrap();
        send(&followed, port, &[Flags::Syn, Flags::Ack]);
        send(&watched, port, &[Flags::Syn, Flags::Ack]);
        let gone = u16::try_from(10_000 + round).unwrap();
        send(&followed, gone, &[Flags::Syn, Flags::Ack, Flags::FinAck]);
        let cases = [
            (&quiet, 1),
            (&unfollowed, 1),
            (&followed, 1),
            (&followed, gone),
            (&followed, port),
            (&watched, 1),
            (&watched, port),
        ];
        for (times, (bench, port)) in times.iter_mut().zip(cases) {
            times.push(bench.kernel.prober.time(&ack(port), RUNS).unwrap());
        }
    }
    let [quiet, base, before, gone, tracked, other, sampled] = times.map(median);
    println!("ns a packet (established TCP over l2), medians of {ROUNDS} rounds");
    println!("  no trial                                   {quiet:>5}");
    for (what, ns) in [
        ("no trial, watched, flow not followed", other),
        ("no trial, watched, flow followed", sampled),
    ] {
        println!("  {what:<40}   {ns:>5}  {:>+5}  over no trial", ns - quiet);
    }
    println!("  trial without evidence                     {base:>5}  (base)");
    for (what, ns, aim) in [
        ("trial, flow born before it", before, Some(BORN_BEFORE)),
        ("trial, flow born in it, not followed", gone, None),
        ("trial, flow followed", tracked, Some(FOLLOWED)),
    ] {
        let more = ns - base;
        let told = match aim {
            None => String::new(),
            Some(aim) if more <= aim => format!("aim {aim}: met"),
            Some(aim) => format!("aim {aim}: MISSED"),
        };
        println!("  {what:<40}   {ns:>5}  {more:>+5}  {told}");
    }
}
