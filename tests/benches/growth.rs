//! How the cost of a packet grows: with flows, VIPs, backends and CPUs. `cargo xtask bench growth`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;

use lb_tests::measure::balancer::{Balancer, Size, USUAL};
use lb_tests::measure::programs::{Programs, cpus};
use lb_tests::measure::report::{Report, round};
use lb_tests::measure::rig::{LOOPBACK, Rig};
use lb_tests::measure::shared::Traffic;
use lb_tests::measure::timing::{median, paired, stay_on, stay_on_one_cpu};
use lb_tests::measure::workload::{ELSEWHERE, V4_ACK_64K, Workload};
use serde_json::{Value, json};

const ROUNDS: usize = 9;
const PACKETS: u32 = 400_000;
const FLOWS: [u32; 6] = [1, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];
/// Powers of two.
const VIPS: [u16; 3] = [1, 64, 1_024];
const BACKENDS: [u32; 4] = [10, 100, 1_000, 10_000];

/// The balancer of this size on this traffic, ns over `tx`.
fn cost(report: &mut Report, what: &str, workload: Workload, size: Size) -> Value {
    let mut rig = Rig::empty(Programs::load(1));
    rig.add_tx("tx", workload);
    rig.add("lbguard", workload, Balancer::new(size));
    rig.fill();
    for _ in 0..report.rounds(ROUNDS) {
        rig.round(workload.flows.max(PACKETS));
    }
    for lane in &rig.lanes {
        if let Some(wrong) = &lane.wrong {
            report.no_figure(what, wrong);
            return Value::Null;
        }
    }
    let over = paired(&rig.lane("lbguard").times, &rig.lane("tx").times, |a, b| {
        a - b
    });
    report.say(format_args!("  {what:<20} {over:>7.1}"));
    json!(round(over))
}

fn flows(report: &mut Report) -> Value {
    let mut document = json!({});
    for flows in FLOWS {
        let workload = Workload {
            flows,
            ..V4_ACK_64K
        };
        let what = format!("{flows} flows");
        document[flows.to_string()] = cost(report, &what, workload, USUAL);
    }
    document
}

fn vips(report: &mut Report) -> Value {
    let mut document = json!({});
    for vips in VIPS {
        let workload = Workload { vips, ..V4_ACK_64K };
        let what = format!("{vips} VIPs");
        document[vips.to_string()] = cost(report, &what, workload, Size { vips, ..USUAL });
    }
    document
}

fn backends(report: &mut Report) -> Value {
    let mut document = json!({});
    for backends in BACKENDS {
        let what = format!("{backends} backends");
        let size = Size { backends, ..USUAL };
        document[backends.to_string()] = cost(report, &what, V4_ACK_64K, size);
    }
    document
}

/// Every CPU by itself and all at the same time, on flows of their own; loop and shim included.
fn several(report: &mut Report, here: usize) -> Value {
    let mut programs = Programs::load(1);
    let balancer = Balancer::new(USUAL);
    let mut rig = Rig::empty(Programs::load(1));
    let whole = Workload {
        flows: 1 << 20,
        ..V4_ACK_64K
    };
    rig.add("lbguard", whole, balancer);
    rig.fill();
    let lane = &mut rig.lanes[0];
    programs.aim(lane.subject.program());
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..report.rounds(ROUNDS) {
        for (times, busy) in times.iter_mut().zip([1, here]) {
            programs.feed_each(&shares());
            times.push(together(&programs, busy));
        }
    }
    let [one, all] = times.map(|times| median(&times));
    report.say(format_args!("  1 CPU {one:>7.1}"));
    report.say(format_args!("  {here} CPUs at once {all:>7.1}"));
    json!({"1": round(one), here.to_string(): round(all)})
}

/// 65,536 flows for each CPU, none of which another has.
fn shares() -> Vec<Traffic> {
    let mut shares = vec![V4_ACK_64K.traffic(ELSEWHERE, 0); cpus()];
    for (first, traffic) in (0..16).cycle().zip(&mut shares) {
        traffic.first = first * V4_ACK_64K.flows;
    }
    shares
}

/// ns a packet when this many CPUs run packets at the same time: of the slowest.
fn together(programs: &Programs, busy: usize) -> f64 {
    let start = Barrier::new(busy);
    let one = |cpu: usize| {
        stay_on(cpu);
        start.wait();
        programs
            .run(V4_ACK_64K.frame_length(), PACKETS, LOOPBACK)
            .ns
    };
    let one = &one;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..busy).map(|cpu| scope.spawn(move || one(cpu))).collect();
        let times = threads.into_iter().map(|thread| thread.join().unwrap());
        times.fold(0.0, f64::max)
    })
}

fn main() -> ExitCode {
    let here = thread::available_parallelism().map_or(1, usize::from);
    stay_on_one_cpu();
    let mut report = Report::new();
    report.say(format_args!(
        "ns a packet over tx, IPv4 and TCP, medians of {} rounds",
        report.rounds(ROUNDS)
    ));
    let document = flows(&mut report);
    report.put("flows", document);
    report.say("of 65,536 flows over all of them");
    let document = vips(&mut report);
    report.put("vips", document);
    let document = backends(&mut report);
    report.put("backends", document);
    report.say("65,536 flows for each CPU, with loop and shim, the slowest one's");
    let document = several(&mut report, here);
    report.put("cpus", document);
    report.finish()
}
