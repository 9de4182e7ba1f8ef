//! Frames over veth: millions a second through the balancer and the floors, what is lost on the way, and
//! what a judged trial costs a mix. `cargo xtask bench live`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use std::process::ExitCode;

use lb_common::control::SHARE_ALL;
use lb_tests::bench::Bench;
use lb_tests::measure::balancer::{Balancer, USUAL};
use lb_tests::measure::live::{Mix, Round, Street};
use lb_tests::measure::programs::Programs;
use lb_tests::measure::report::{Aim, Report, round};
use lb_tests::measure::rig::Rig;
use lb_tests::measure::shared::FLOWS as FLOOR_FLOWS;
use lb_tests::measure::timing::{median, paired, stay_on_one_cpu};
use lb_tests::measure::trials::{Step, Trials, turns};
use lb_tests::measure::workload::{V4_ACK_64K, V4_UDP_64K, Workload};
use serde_json::{Value, json};

const ROUNDS: usize = 11;
const PACKETS: u32 = 1_000_000;
/// Packets/s as a multiple of what a table of flows in an LRU hash allows.
const FASTER: f64 = 1.7;
/// Traffic during a trial: flows that were there before it, and connections of four packets among
/// them, one of which begins every so many packets. Their FIN makes room for the next to be followed,
/// as otherwise only time would: at these rates most would find none, which costs less.
const MIXES: [(&str, Option<Mix>); 3] = [
    ("no new flows", None),
    (
        "one SYN in 100 packets",
        Some(Mix {
            every: 100,
            more: 3,
        }),
    ),
    ("one SYN in 20 packets", Some(Mix { every: 20, more: 3 })),
];
/// Steps of a trial, percent of new flows: the first, the next, the last.
const STEPS: [(u32, u32); 3] = [(0, 10), (1, 25), (3, 90)];
/// Packets/s that a judged trial may cost, of 1.
const TRIAL_COST: f64 = 0.05;

const OURS: &str = "lbguard";

/// Every lane round by round, none of the first.
fn rounds(street: &mut Street, rounds: usize) -> Vec<Vec<Round>> {
    let lanes = street.rig.lanes.len();
    let mut all = vec![Vec::new(); lanes];
    for round in 0..=rounds {
        for (index, of_lane) in all.iter_mut().enumerate() {
            if street.rig.lanes[index].wrong.is_some() {
                continue;
            }
            let done = street.round(index, PACKETS, None);
            if round != 0 {
                of_lane.push(done);
            }
        }
    }
    all
}

fn mpps(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.mpps).collect()
}

/// Says what the lanes have measured.
fn tell(report: &mut Report, street: &Street, all: &[Vec<Round>]) -> Value {
    let mut document = json!({});
    for (lane, rounds) in street.rig.lanes.iter().zip(all) {
        document[lane.name] = if let Some(wrong) = &lane.wrong {
            report.no_figure(lane.name, wrong);
            json!({"wrong": wrong.0})
        } else {
            tell_rounds(report, lane.name, rounds)
        };
    }
    document
}

/// Says what came of some rounds.
fn tell_rounds(report: &Report, name: &str, rounds: &[Round]) -> Value {
    let sent: u64 = rounds.iter().map(|round| round.sent).sum();
    let arrived: u64 = rounds.iter().map(|round| round.arrived).sum();
    let lost = sent.saturating_sub(arrived);
    let middle = median(&mpps(rounds));
    report.say(format_args!(
        "  {name:<24} {middle:>6.2} Mpps   {sent} sent, {arrived} arrived, {lost} lost"
    ));
    json!({"mpps": round(middle), "sent": sent, "arrived": arrived, "lost": lost})
}

fn of<'a>(street: &Street, all: &'a [Vec<Round>], name: &str) -> &'a [Round] {
    let place = street.rig.lanes.iter().position(|lane| lane.name == name);
    &all[place.unwrap()]
}

/// All programs on one workload.
fn side_by_side(report: &mut Report, workload: Workload) -> Value {
    let mut rig = Rig::floors(
        Programs::load(u32::try_from(FLOOR_FLOWS).unwrap()),
        workload,
    );
    rig.add(OURS, workload, Balancer::new(USUAL));
    let mut street = Street::new(rig);
    street.rig.fill();
    let all = rounds(&mut street, report.rounds(ROUNDS));
    report.say(format_args!("{}", workload.name));
    let mut document = tell(report, &street, &all);
    let (ours, stateful) = (of(&street, &all, OURS), of(&street, &all, "stateful"));
    if !ours.is_empty() && !stateful.is_empty() {
        let ratio = paired(&mpps(ours), &mpps(stateful), |a, b| a / b);
        let aim = Aim::AtLeast(FASTER);
        report.say(format_args!(
            "    {OURS} / stateful: {ratio:.2}   {}",
            aim.told(ratio)
        ));
        document["ratio"] = aim.json(ratio);
    }
    document
}

/// How many new flows the trials have followed, how many they have passed over, and for how many there was no
/// room.
fn followed(report: &Report, bench: &Bench) -> Value {
    let kernel = &bench.kernel;
    let vips = 0..u16::try_from(kernel.node.vips).unwrap();
    let arms = vips.flat_map(|vip| kernel.maps.evidence(&kernel.node, vip).unwrap());
    let (mut followed, mut passed_over, mut no_room) = (0, 0, 0);
    for arm in arms {
        followed += u64::from(arm.flows);
        passed_over += u64::from(arm.passed_over);
        no_room += u64::from(arm.untracked);
    }
    report.say(format_args!(
        "    new flows in the trials: {followed} followed, {passed_over} passed over, {no_room} without room"
    ));
    json!({"followed": followed, "passed_over": passed_over, "no_room": no_room})
}

/// Rounds of the same traffic through the same balancer without a trial and with one.
fn by_turns(street: &mut Street, rounds: usize, mix: Option<Mix>, step: Step) -> [Vec<Round>; 2] {
    let mut trials = Trials::as_shipped(bench_of(street), step);
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for on_trial in turns(round) {
            trials.begin(bench_of(street), on_trial);
            let done = street.round(0, PACKETS, mix);
            trials.end(bench_of(street), on_trial);
            if round != 0 {
                all[usize::from(on_trial)].push(done);
            }
        }
    }
    all
}

fn bench_of(street: &Street) -> &Bench {
    &street.rig.lane(OURS).subject.balancer().unwrap().bench
}

/// The same traffic with and without a trial, at a step of so many percent.
fn trial(
    report: &mut Report,
    what: &str,
    mix: Option<Mix>,
    (number, percent): (u32, u32),
) -> Value {
    let share = SHARE_ALL * percent / 100;
    let step = Step { number, share };
    let mut rig = Rig::empty(Programs::load(1));
    rig.add(OURS, V4_ACK_64K, Balancer::new(USUAL));
    let mut street = Street::new(rig);
    street.rig.fill();
    report.say(format_args!(
        "64 k flows, {what}; step {} of a trial, {percent} % of new flows, and none, by turns",
        number + 1
    ));
    if let Some(wrong) = &street.rig.lane(OURS).wrong {
        report.no_figure(OURS, wrong);
        return json!({"wrong": wrong.0});
    }
    let [without, with] = by_turns(&mut street, report.rounds(ROUNDS), mix, step);
    let mut document = json!({
        "without": tell_rounds(report, "no trial", &without),
        "with": tell_rounds(report, "judged trial", &with),
    });
    document["followed"] = followed(report, bench_of(&street));
    let cost = 1.0 - paired(&mpps(&with), &mpps(&without), |a, b| a / b);
    let aim = Aim::AtMost(TRIAL_COST);
    report.say(format_args!(
        "    fewer packets/s: {:.1} %   {}",
        cost * 100.0,
        aim.told(cost)
    ));
    document["cost"] = aim.json(cost);
    document
}

fn main() -> ExitCode {
    stay_on_one_cpu();
    let mut report = Report::new();
    report.say(format_args!(
        "frames over veth: one core makes, balances and counts; medians of {} rounds of {PACKETS}",
        report.rounds(ROUNDS)
    ));
    let document = side_by_side(&mut report, V4_UDP_64K);
    report.put(V4_UDP_64K.name, document);
    let mut trials = json!({});
    for (what, mix) in MIXES {
        for step in STEPS {
            // Without new flows the steps do not differ.
            if mix.is_some() || step == STEPS[0] {
                trials[what][step.1.to_string()] = trial(&mut report, what, mix, step);
            }
        }
    }
    report.put("trial", trials);
    report.finish()
}
