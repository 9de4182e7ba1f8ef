//! The whole: 100,000 harmless steps, and how long faults take to be seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::run::{Outcome, Until, run, seconds};
use super::traffic::{Fault, Model};
use super::{CALM, MINUTE, STORMY, decided};
use crate::evidence::noninferiority::Arm;
use crate::evidence::plan::Plan;

/// Runs `runs` of them on all CPUs, in the order of their seeds.
fn all(model: Model, seed: u64, runs: u64, until: Until) -> Vec<Outcome> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let next = AtomicU64::new(0);
    let mut outcomes: Vec<(u64, Outcome)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= runs {
                    return done;
                }
                done.push((number, run(model, seed + number, until)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap());
        done.flatten().collect()
    });
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn bakes() -> u64 {
    let set = std::env::var("LBGUARD_BAKES").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// Harmless steps of ten minutes, all of alpha spent on one.
#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_false_alarms() {
    let began = Instant::now();
    // Rate, backends that are counted, and how many of 100 runs.
    let mix = [
        (10.0, 0, 30),
        (30.0, 0, 30),
        (100.0, 0, 28),
        (100.0, 10, 2),
        (300.0, 0, 7),
        (1000.0, 0, 3),
    ];
    let shares = [10_000, 100_000, 500_000, 900_000];
    println!(
        "| flows/s | w | backends | bakes | failed | by | breaker | inconclusive | passed | median s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (mut runs, mut failed, mut tripped) = (0, 0, 0);
    for (row, (rate, members, percent)) in mix.into_iter().enumerate() {
        for (column, share_ppm) in shares.into_iter().enumerate() {
            let model = Model {
                rate,
                share_ppm,
                members,
                ..STORMY
            };
            let until = Until {
                slices: 10 * MINUTE,
                decided: false,
                steps: 1,
            };
            let count = (bakes() * percent / 100 / shares.len() as u64).max(1);
            let seed = (row as u64 * 10 + column as u64) << 32;
            let outcomes = all(model, seed, count, until);
            let of = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|o| is(o)).count();
            let fails = of(|o| o.failed.is_some());
            let trips = of(|o| o.tripped.is_some());
            println!(
                "| {rate} | {} % | {members} | {count} | {fails} | {} | {trips} | {} | {} | {} |",
                share_ppm / 10_000,
                signals(&outcomes),
                of(|o| o.inconclusive.is_some()),
                of(|o| o.passed.is_some()),
                shown(quantile(outcomes.iter().filter_map(|o| o.passed), 0.5)),
            );
            runs += count;
            failed += fails;
            tripped += trips;
        }
    }
    println!(
        "{runs} harmless bakes: {failed} failed, {tripped} breakers tripped ({:.0} s)",
        began.elapsed().as_secs_f64()
    );
    assert!(failed as u64 * 1000 <= runs);
    assert!(tripped as u64 * 1000 <= runs);
}

fn signals(outcomes: &[Outcome]) -> String {
    let mut by: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, signal, _) in outcomes.iter().filter_map(|o| o.failed.as_ref()) {
        *by.entry(signal).or_default() += 1;
    }
    let parts: Vec<String> = by.iter().map(|(s, n)| format!("{s} {n}")).collect();
    parts.join(", ")
}

/// Slices at a quantile.
fn quantile(slices: impl Iterator<Item = u64>, q: f64) -> Option<u64> {
    let mut slices: Vec<u64> = slices.collect();
    slices.sort_unstable();
    let last = slices.len().checked_sub(1)?;
    slices.get((last as f64 * q).ceil() as usize).copied()
}

fn shown(slices: Option<u64>) -> String {
    slices.map_or("-".to_owned(), |slices| format!("{:.1}", seconds(slices)))
}

/// Delays of the faults of GUARDRAILS 4, from the fault's first flow to the verdict, the time
/// that a handshake is given included.
#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_delays() {
    let total = Fault::Dead(1.0);
    let half = Fault::Dead(0.5);
    let rows: [(&str, Fault, f64, u32, u64); 25] = [
        ("total misroute, steady", total, 100.0, 100_000, 0),
        (
            "other answers, steady",
            Fault::OtherAnswers,
            100.0,
            100_000,
            0,
        ),
        ("total misroute, no floods", total, 100.0, 100_000, 0),
        (
            "other answers, no floods",
            Fault::OtherAnswers,
            100.0,
            100_000,
            0,
        ),
        ("total misroute", total, 10.0, 100_000, 0),
        ("total misroute", total, 30.0, 100_000, 0),
        ("total misroute", total, 100.0, 50_000, 0),
        ("total misroute", total, 100.0, 100_000, 0),
        ("total misroute", total, 100.0, 500_000, 0),
        ("total misroute", total, 100.0, 900_000, 0),
        ("total misroute", total, 1000.0, 10_000, 0),
        ("total misroute", total, 1000.0, 100_000, 0),
        ("total, 60 s into the bake", total, 100.0, 900_000, MINUTE),
        ("half the pool dead", half, 100.0, 100_000, 0),
        ("half the pool dead", half, 100.0, 500_000, 0),
        ("half the pool dead", half, 1000.0, 100_000, 0),
        ("1 of 4 dead", Fault::Dead(0.25), 100.0, 100_000, 0),
        ("1 of 4 dead", Fault::Dead(0.25), 100.0, 500_000, 0),
        ("1 of 10 dead", Fault::Dead(0.1), 100.0, 500_000, 0),
        ("1 of 10 dead", Fault::Dead(0.1), 1000.0, 500_000, 0),
        (
            "1 of 10 dead, no floods",
            Fault::Dead(0.1),
            1000.0,
            500_000,
            0,
        ),
        ("other answers", Fault::OtherAnswers, 10.0, 100_000, 0),
        ("other answers", Fault::OtherAnswers, 100.0, 100_000, 0),
        ("other answers", Fault::OtherAnswers, 100.0, 500_000, 0),
        ("other answers", Fault::OtherAnswers, 1000.0, 100_000, 0),
    ];
    println!(
        "| fault | flows/s | w | judge median s | p99 | breaker median s | p99 | exposed median | p99 | missed, passed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (number, (name, fault, rate, share_ppm, fault_at)) in rows.into_iter().enumerate() {
        let model = Model {
            rate,
            share_ppm,
            fault,
            fault_at,
            ..CALM
        };
        let model = Model {
            drift: !name.ends_with("steady"),
            floods: !name.ends_with("no floods") && !name.ends_with("steady"),
            ..model
        };
        let until = Until {
            decided: fault_at == 0,
            ..decided(fault_at + 2 * MINUTE)
        };
        let outcomes = all(model, (number as u64 + 1) << 40, 2_000, until);
        let after = |o: &Outcome| o.failed.as_ref().map(|(after, _, _)| *after);
        let at = |q| shown(quantile(outcomes.iter().filter_map(after), q));
        let breaker = |q| shown(quantile(outcomes.iter().filter_map(|o| o.tripped), q));
        let flows = |o: &Outcome| o.failed.as_ref().map(|(_, _, flows)| *flows);
        let exposed = |q| quantile(outcomes.iter().filter_map(flows), q).unwrap_or(0);
        let missed = outcomes.iter().filter(|o| o.failed.is_none());
        let passed = |o: &&Outcome| o.passed.is_some() && o.failed.is_none();
        println!(
            "| {name} | {rate} | {} % | {} | {} | {} | {} | {} | {} | {}, {} |",
            share_ppm / 10_000,
            at(0.5),
            at(0.99),
            breaker(0.5),
            breaker(0.99),
            exposed(0.5),
            exposed(0.99),
            missed.count(),
            outcomes.iter().filter(passed).count(),
        );
    }
}

/// Arms that are worse by delta, the least that a pass has to rule out: how many pass, with control's
/// failing share only known from its flows.
#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_false_passes() {
    println!("| control fails | w | worse by delta: passed of 20,000 | median flows |");
    println!("|---|---|---|---|");
    for p0 in [0.001, 0.01, 0.1] {
        for w in [0.1, 0.5, 0.9] {
            let passed: Vec<u64> = (0..20_000).filter_map(|seed| passes(p0, w, seed)).collect();
            let median = quantile(passed.iter().copied(), 0.5);
            println!(
                "| {} % | {} % | {} | {} |",
                p0 * 100.0,
                w * 100.0,
                passed.len(),
                median.map_or("-".to_owned(), |flows| flows.to_string())
            );
        }
    }
}

/// New-arm flows after which an arm passes that is worse by delta, looked at after every ten flows of
/// 3,000.
fn passes(p0: f64, w: f64, seed: u64) -> Option<u64> {
    let mut random = SmallRng::seed_from_u64(seed);
    let margin = Plan::new(Vec::new(), Vec::new()).margin();
    let (mut new, mut control) = (Arm::default(), Arm::default());
    for _ in 0..300 {
        for _ in 0..10 {
            let (arm, p) = if random.random_bool(w) {
                (&mut new, p0 + margin.delta)
            } else {
                (&mut control, p0)
            };
            arm.flows += 1;
            arm.failed += u64::from(random.random_bool(p));
        }
        if margin.standing(new, control).proven {
            return Some(new.flows);
        }
    }
    None
}

/// What it does to harmless steps if a SYN that comes again after three seconds counts as another flow: it
/// has the label of the first one as long as the salt is the same.
#[test]
#[ignore = "minutes; `cargo xtask soak evidence` runs it"]
fn soak_evidence_syns_counted_again() {
    println!("| flows/s | w | counted again | bakes | failed | breaker | inconclusive |");
    println!("|---|---|---|---|---|---|---|");
    for (row, (rate, counted_again)) in [
        (300.0, true),
        (300.0, false),
        (1000.0, true),
        (1000.0, false),
    ]
    .into_iter()
    .enumerate()
    {
        let model = Model {
            rate,
            share_ppm: 500_000,
            counted_again,
            ..STORMY
        };
        let until = Until {
            slices: 10 * MINUTE,
            decided: false,
            steps: 1,
        };
        let count = bakes() / 50;
        let outcomes = all(model, (row as u64 + 90) << 48, count, until);
        let of = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|o| is(o)).count();
        println!(
            "| {rate} | 50 % | {counted_again} | {count} | {} | {} | {} |",
            of(|o| o.failed.is_some()),
            of(|o| o.tripped.is_some()),
            of(|o| o.inconclusive.is_some()),
        );
    }
}
