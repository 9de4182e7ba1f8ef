//! What a packet costs: a test run whose packet is new each time, the balancer beside the floors, and
//! what memory and verifier make of it. `cargo xtask bench speed`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use std::process::ExitCode;

use lb_common::flow_table::Shape;
use lb_common::slot::{CHUNK_ENTRIES, Chunk};
use lb_tests::bpf;
use lb_tests::measure::balancer::{Balancer, FLOWS, USUAL};
use lb_tests::measure::programs::Programs;
use lb_tests::measure::report::{Aim, Report, round};
use lb_tests::measure::rig::{Lane, Rig};
use lb_tests::measure::shared::FLOWS as FLOOR_FLOWS;
use lb_tests::measure::timing::{median, paired, stay_on_one_cpu};
use lb_tests::measure::workload::{
    V4_ACK_1, V4_ACK_1M, V4_ACK_64K, V4_OTHER, V4_SYN_NEW, V4_UDP_64K, V6_ACK_1, V6_ACK_64K,
    Workload,
};
use serde_json::{Value, json};

const ROUNDS: usize = 15;
/// Packets of a round; of a million flows each should come.
const PACKETS: u32 = 400_000;
/// New flows in all rounds together: they have to fit the tables.
const NEW_FLOWS: u32 = 3_000_000;

/// A workload, and what our time over `tx` may be as a multiple of a lane's.
struct Case {
    workload: Workload,
    against: Option<(&'static str, f64)>,
}

/// The aims of the design.
const CASES: [Case; 6] = [
    Case {
        workload: V4_ACK_1,
        against: Some(("stateless", 1.4)),
    },
    Case {
        workload: V4_ACK_64K,
        against: Some(("stateful", 0.25)),
    },
    Case {
        workload: V4_ACK_1M,
        against: Some(("stateful", 0.38)),
    },
    Case {
        workload: V4_SYN_NEW,
        against: Some(("stateful", 0.35)),
    },
    Case {
        workload: V4_UDP_64K,
        against: None,
    },
    Case {
        workload: V4_OTHER,
        against: Some(("stateless", 1.3)),
    },
];
/// IPv6 beside the same of IPv4.
const PAIRS: [(Workload, Workload); 2] = [(V6_ACK_1, V4_ACK_1), (V6_ACK_64K, V4_ACK_64K)];
const PAIR_AIM: f64 = 1.25;

/// Names of lanes.
const OURS: &str = "lbguard";
const OURS_V4: &str = "lbguard, IPv4";
const TX_V4: &str = "tx, IPv4";

fn packets(workload: &Workload, rounds: usize) -> u32 {
    if workload.flows == 0 {
        return (NEW_FLOWS / u32::try_from(rounds).unwrap()).min(PACKETS);
    }
    workload.flows.max(PACKETS)
}

fn run(rig: &mut Rig, workload: &Workload, rounds: usize) {
    rig.fill();
    for _ in 0..rounds {
        rig.round(packets(workload, rounds));
    }
}

/// ns over the lane of `tx`.
fn over(rig: &Rig, lane: &Lane, tx: &str) -> Vec<f64> {
    let base = &rig.lane(tx).times;
    lane.times.iter().zip(base).map(|(a, b)| a - b).collect()
}

/// Says what a lane has measured; its document.
fn lane(report: &mut Report, rig: &Rig, lane: &Lane, tx: &str) -> Value {
    let what = format!("{:<16} {}", lane.workload.name, lane.name);
    if let Some(wrong) = &lane.wrong {
        report.no_figure(&what, wrong);
        return json!({"wrong": wrong.0});
    }
    let least = lane.times.iter().copied().fold(f64::INFINITY, f64::min);
    let (all, over) = (median(&lane.times), median(&over(rig, lane, tx)));
    report.say(format_args!(
        "  {what:<32} {all:>7.1} {least:>7.1} {over:>8.1}"
    ));
    json!({"ns": round(all), "least_ns": round(least), "over_tx_ns": round(over)})
}

/// Says a ratio and its aim, unless one of both has no figure.
fn ratio(report: &Report, what: &str, ours: &[f64], other: &[f64], aim: f64) -> Value {
    if ours.is_empty() || other.is_empty() {
        return Value::Null;
    }
    let ratio = paired(ours, other, |ours, other| ours / other);
    let aim = Aim::AtMost(aim);
    report.say(format_args!("    {what}: {ratio:.2}   {}", aim.told(ratio)));
    aim.json(ratio)
}

fn case(report: &mut Report, case: &Case) -> Value {
    let workload = case.workload;
    let rounds = report.rounds(ROUNDS);
    let mut rig = Rig::floors(
        Programs::load(u32::try_from(FLOOR_FLOWS).unwrap()),
        workload,
    );
    rig.add(OURS, workload, Balancer::new(USUAL));
    run(&mut rig, &workload, rounds);
    let mut document = json!({});
    for index in 0..rig.lanes.len() {
        let it = &rig.lanes[index];
        document[it.name] = lane(report, &rig, it, "tx");
    }
    if let Some((name, aim)) = case.against {
        let ours = over(&rig, rig.lane(OURS), "tx");
        let other = over(&rig, rig.lane(name), "tx");
        let what = format!("{OURS} / {name}");
        document["ratio"] = ratio(report, &what, &ours, &other, aim);
        document["against"] = json!(name);
    }
    if workload.flows == 0 {
        document["remembered"] = remembered(report, rig.lane(OURS));
    }
    document
}

/// Whether every new flow is in the table.
fn remembered(report: &mut Report, lane: &Lane) -> Value {
    let balancer = lane.subject.balancer().unwrap();
    let counts = balancer.bench.kernel.maps.flow_counts().unwrap();
    let (asked, found) = lane.remembered().unwrap();
    let sent = lane.sent;
    report.say(format_args!(
        "    {sent} new flows: {} remembered, {} had to give way, {} refused; {found} of {asked} \
         found when looked up",
        counts.added, counts.evicted, counts.refused
    ));
    let all = counts.added == u64::from(sent) && counts.evicted == 0 && found == asked;
    report.say(format_args!(
        "    every new flow remembered: {}",
        if all { "met" } else { "MISSED" }
    ));
    json!({
        "sent": sent, "added": counts.added, "evicted": counts.evicted,
        "refused": counts.refused, "asked": asked, "found": found, "met": all,
    })
}

fn pair(report: &mut Report, v6: Workload, v4: Workload) -> Value {
    let mut rig = Rig::empty(Programs::load(1));
    rig.add_tx("tx", v6);
    rig.add(OURS, v6, Balancer::new(USUAL));
    rig.add_tx(TX_V4, v4);
    rig.add(OURS_V4, v4, Balancer::new(USUAL));
    run(&mut rig, &v6, report.rounds(ROUNDS));
    let mut document = json!({});
    for index in 0..rig.lanes.len() {
        let it = &rig.lanes[index];
        let tx = if it.workload.is_v6 { "tx" } else { TX_V4 };
        document[it.name] = lane(report, &rig, it, tx);
    }
    let ours = over(&rig, rig.lane(OURS), "tx");
    let other = over(&rig, rig.lane(OURS_V4), TX_V4);
    document["ratio"] = ratio(report, "IPv6 / IPv4", &ours, &other, PAIR_AIM);
    document
}

/// What the table takes and touches.
#[allow(clippy::cast_precision_loss, reason = "sizes of memory fit")]
fn memory(report: &mut Report) -> Value {
    let balancer = Balancer::new(USUAL);
    let kernel = &balancer.bench.kernel;
    let lines = u64::from(kernel.node.flow_lines);
    let a_flow = (lines * 64) as f64 / f64::from(FLOWS);
    let an_entry = size_of::<Chunk>() as f64 / CHUNK_ENTRIES as f64;
    report.say(format_args!(
        "flow table of {FLOWS} flows: {} MiB",
        lines >> 14
    ));
    let mut document = json!({"flow_table_bytes": lines * 64});
    for (name, what, bytes, most) in [
        ("bytes_a_flow", "bytes a flow", a_flow, 16.0),
        (
            "bytes_an_entry",
            "bytes an entry of a lookup table",
            an_entry,
            2.0,
        ),
    ] {
        let aim = Aim::AtMost(most);
        report.say(format_args!("  {what}: {bytes}   {}", aim.told(bytes)));
        document[name] = aim.json(bytes);
    }
    let in_use = || Shape(kernel.maps.control().unwrap().shape).lines();
    let (mut used, mut steps) = (0, Vec::new());
    let mut rig = Rig::empty(Programs::load(1));
    rig.programs.aim(&balancer.program);
    for flows in (0..FLOWS).step_by(10_000) {
        if in_use() != used {
            used = in_use();
            let mebibytes = used >> 14;
            report.say(format_args!(
                "  from {flows:>8} flows on {mebibytes:>4} MiB of it are in use"
            ));
            steps.push(json!({"flows": flows, "mib": mebibytes}));
        }
        rig.programs.feed(&V4_SYN_NEW.traffic(1, flows));
        rig.programs.run(V4_SYN_NEW.frame_length(), 10_000, 1);
    }
    document["in_use"] = json!(steps);
    let counts = kernel.maps.flow_counts().unwrap();
    let (added, evicted) = (counts.added, counts.evicted);
    report.say(format_args!(
        "  {added} remembered, {evicted} of them in another's place"
    ));
    document["added"] = json!(added);
    document["evicted"] = json!(evicted);
    document
}

fn verifier(report: &mut Report) -> Value {
    let balancer = Balancer::empty(USUAL);
    let mut document = json!({});
    for name in ["lb", "guard"] {
        let program = bpf::open_pin(&balancer.bpffs.pins().program(name), 0).unwrap();
        let walked = bpf::fact(&program, "verified_insns");
        report.say(format_args!(
            "{name}: {walked} instructions verified, of 1,000,000"
        ));
        document[name] = json!(walked);
    }
    document
}

fn main() -> ExitCode {
    stay_on_one_cpu();
    let mut report = Report::new();
    report.say(format_args!(
        "ns a packet by test run, a new packet each: median, least, median over tx; {} rounds",
        report.rounds(ROUNDS)
    ));
    for it in &CASES {
        let document = case(&mut report, it);
        report.put(it.workload.name, document);
    }
    for (v6, v4) in PAIRS {
        let document = pair(&mut report, v6, v4);
        report.put(v6.name, document);
    }
    let document = memory(&mut report);
    report.put("memory", document);
    let document = verifier(&mut report);
    report.put("verified_instructions", document);
    report.finish()
}
