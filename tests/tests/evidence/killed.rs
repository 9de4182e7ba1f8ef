//! The agent is killed as the trial begins, and nobody would notice for 30 s: the kernel does.

use std::time::Duration;

use lb_common::control::{Cause, ControlRecord, control_flag};
use lb_userspace::lab::{HttpLoop, until};
use nix::sys::signal::Signal;

use crate::figures::{Bounds, Figures};
use crate::run::{Run, saw};
use crate::scene::{SOON, Scene};
use crate::seed::{Case, Seed};
use crate::soak::Length;

/// How long a canary step may last, by the policy: where the step's deadline says it began.
const STEP_NS: u64 = 600_000_000_000;

fn on_trial(record: &ControlRecord) -> bool {
    record.flags & control_flag::TRIAL != 0
}

pub fn replay(length: Length) {
    let case = Case::of("(a) agent killed", Seed::BlackHole);
    let mut scene = case.scene("lease = \"30s\"");
    let wrong = case.wrong(&scene);
    let requests = scene.ask(case.vip, case.rate, case.seed.path(), 0);
    let mut figures = Figures::new(case.name);
    let bounds = Bounds {
        exposed: Duration::from_secs(3),
        unless: 0,
        ..case.bounds
    };
    for _ in 0..length.runs(1, 20) {
        figures.add(&kill(&mut scene, &wrong, &requests), bounds);
    }
    figures.finish();
}

fn kill(scene: &mut Scene, wrong: &str, requests: &HttpLoop) -> Run {
    drop(requests.take());
    let maps = scene.maps();
    let apply = scene.begin(wrong, &crate::run::UNCHECKED);
    let record = || maps.record().unwrap().unwrap();
    let began = until("the trial", SOON, || Some(record()).filter(on_trial)).unwrap();
    scene.instance.stop_agent(Signal::SIGKILL).unwrap();
    let ended = until("the trial's end", SOON, || {
        Some(record()).filter(|record| !on_trial(record))
    });
    let ended = ended.unwrap();
    assert_eq!(Cause::from_code(ended.cause), Cause::Breaker);
    assert_ne!(ended.flags & control_flag::LATCHED, 0);
    let vip = u16::try_from(ended.tripped_vip - 1).unwrap();
    assert_eq!(maps.vip_name(vip).unwrap(), "shop-v4");
    let applied = apply.wait();
    assert!(
        applied.errors.contains("the agent is gone"),
        "{}",
        applied.text()
    );
    latched_and_recorded(scene, wrong, ended.ended_generation);
    Run {
        met: 0,
        exposed: Duration::from_nanos(ended.ended_ns + STEP_NS - began.deadline_ns),
        seen: saw(&[requests], applied.began),
        applied,
        signal: "breaker: S1".to_owned(),
        subject: "shop-v4".to_owned(),
    }
}

/// The next agent writes down how it ended; until somebody has looked, nothing else is tried.
fn latched_and_recorded(scene: &mut Scene, wrong: &str, generation: u64) {
    scene.instance.start_agent().unwrap();
    let record = until("the record", SOON, || {
        scene.recorded(generation, "reverted")
    });
    let body = &record.unwrap()["body"];
    assert_eq!(body["cause"], "breaker", "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("shop-v4"), "{body}");
    let refused = scene.apply(wrong, &crate::run::UNCHECKED);
    assert_eq!(refused.code, 3, "{}", refused.text());
    assert!(refused.text().contains("lbguard ack"), "{}", refused.text());
    scene.instance.expect(&["ack"], 0).unwrap();
}

#[test]
fn with_the_agent_dead_the_breaker_puts_it_back_and_latches() {
    replay(Length::Short);
}
