//! Low traffic: what cannot be proven is never a pass. It goes back, unless a person keeps it, and
//! then that stays on record.

use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::Process;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::scene::{SOON, Scene};
use crate::seen::seen;

/// Long enough for a person, and for a loaded machine.
const LONG: &str = "canary = [10, 25]\nstep_within = \"60s\"\n";

/// A change that takes a server out: good, and nobody can tell without traffic.
fn next(scene: &Scene) -> String {
    let mut hosts = scene.of("web");
    hosts.truncate(1);
    services::shop(&hosts)
}

/// Begins a change and waits until it is on trial.
fn begin(scene: &Scene) -> Process {
    let file = scene.instance.write("next.toml", &next(scene)).unwrap();
    let file = file.to_string_lossy().into_owned();
    let words = ["apply", &file, "-m", "lab", "--force-unsafe"];
    let applying = scene.instance.spawn(&words).unwrap();
    let until = std::time::Instant::now() + SOON;
    while !scene.instance.on_trial() {
        assert!(std::time::Instant::now() < until, "{}", applying.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    applying
}

fn journal(scene: &Scene, kind: &str, generation: u64) -> Value {
    let journal = scene.lab.root().join("var/lib/lbguard/journal.jsonl");
    let journal = std::fs::read_to_string(journal).unwrap();
    let records = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found =
        records.filter(|record| record["kind"] == kind && record["generation"] == generation);
    found
        .next()
        .unwrap_or_else(|| panic!("no {kind} of {generation}: {journal}"))
}

fn json(scene: &Scene, words: &[&str]) -> Value {
    let output = scene.instance.output(words).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap();
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_change_that_no_flow_sees_goes_back_as_inconclusive() {
    let scene = Scene::new("step_within = \"2s\"\n");
    let applied = scene.apply(&next(&scene), &["--force-unsafe", "--confirm", "auto"]);
    let told = applied.text();
    assert_eq!(
        (applied.code, applied.cause()),
        (5, "inconclusive"),
        "{told}"
    );
    assert!(told.contains("no new flow yet"), "{told}");
    assert_eq!(scene.instance.active(), Some(1));
    assert!(!scene.instance.on_trial());
    let record = journal(&scene, "reverted", 2);
    assert_eq!(record["body"]["proven"], false, "{record}");
}

#[test]
fn a_change_that_few_flows_see_goes_back_as_inconclusive() {
    let scene = Scene::new("step_within = \"4s\"\n");
    let requests = scene.requests(3, "/1k");
    let applied = scene.apply(&next(&scene), &["--force-unsafe", "--confirm", "auto"]);
    let told = applied.text();
    assert_eq!(
        (applied.code, applied.cause()),
        (5, "inconclusive"),
        "{told}"
    );
    assert_eq!(scene.instance.active(), Some(1));
    let seen = seen(&requests, applied.began);
    assert_eq!((seen.failed, seen.wrong), (0, 0), "{seen:?}");
}

/// From the first step on, and for good: in the journal and in every read-out, by this agent and
/// the next.
#[test]
fn a_person_may_keep_what_is_not_proven_and_that_stays_on_record() {
    let mut scene = Scene::new(LONG);
    let mut applying = begin(&scene);
    let refused = scene.instance.expect(&["confirm"], 3).unwrap();
    assert!(refused.contains("--accept-unproven"), "{refused}");
    assert!(scene.instance.on_trial());
    scene
        .instance
        .expect(&["confirm", "--accept-unproven"], 0)
        .unwrap();
    assert_eq!(scene.instance.active(), Some(2));
    let ended = applying.wait(SOON).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", applying.log());
    for kind in ["confirmed", "committed"] {
        let record = journal(&scene, kind, 2);
        assert_eq!(record["body"]["proven"], false, "{record}");
    }
    let first = scene.instance.expect(&["show", "1"], 0).unwrap();
    let flat = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let new = "by probes only: traffic says nothing of shop-v4";
    assert!(flat.contains(new), "nothing to compare it with: {first}");
    for restarted in [false, true] {
        if restarted {
            scene.instance.stop_agent(Signal::SIGKILL).unwrap();
            scene.instance.start_agent().unwrap();
        }
        for words in [&["history"][..], &["show", "2"]] {
            let text = scene.instance.expect(words, 0).unwrap();
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains("not proven by traffic"), "{text}");
        }
        let shown = json(&scene, &["--json", "show", "2"]);
        assert_eq!(shown["change"]["proven"], false, "{shown}");
        let shown = json(&scene, &["--json", "history"]);
        assert_eq!(
            (&shown["generation"], &shown["proven"]),
            (&2.into(), &false.into())
        );
    }
}

#[test]
fn without_evidence_nothing_confirms_by_itself() {
    let mut scene = Scene::new("");
    let policy = "version = 1\n[evidence]\nenabled = false\n";
    std::fs::write(scene.lab.root().join("etc/lbguard/policy.toml"), policy).unwrap();
    scene.instance.stop_agent(Signal::SIGTERM).unwrap();
    scene.instance.start_agent().unwrap();
    let applied = scene.apply(&next(&scene), &["--force-unsafe", "--confirm", "auto"]);
    assert_eq!(applied.code, 3, "{}", applied.text());
    assert!(applied.errors.contains("policy.toml"), "{}", applied.text());
    assert_eq!(scene.instance.active(), Some(1));
}

/// `plan` by the agent's word, or without; `apply` once, before the trial.
#[test]
fn how_long_a_proof_will_take_is_said_beforehand() {
    let mut scene = Scene::new("step_within = \"2s\"\n");
    let file = scene.instance.write("planned.toml", &next(&scene)).unwrap();
    let file = file.to_string_lossy().into_owned();
    let requests = scene.requests(50, "/1k");
    requests.wait(requests.ended() + 500, SOON).unwrap();
    let planned = json(&scene, &["--json", "plan", &file]);
    let proof = &planned["proofs"][0];
    let rate = proof["flows_per_second"].as_f64().unwrap();
    assert!((35.0..65.0).contains(&rate), "{planned}");
    assert_eq!(proof["vip"], "shop-v4", "{planned}");
    assert_eq!(proof["proof"], "not-at-this-rate", "in 2 s: {planned}");
    let text = scene.instance.expect(&["plan", &file], 0).unwrap();
    assert!(
        text.contains("proof of shop-v4: not at this rate: "),
        "{text}"
    );
    let applied = scene.apply(&next(&scene), &["--force-unsafe"]);
    let told: Vec<_> = applied
        .events
        .iter()
        .filter(|event| event["event"] == "forecast")
        .collect();
    assert_eq!(told.len(), 1, "{}", applied.text());
    assert_eq!(told[0]["vips"][0]["vip"], "shop-v4", "{}", told[0]);
    assert_eq!(applied.code, 5, "as was said: {}", applied.text());
    scene.instance.stop_agent(Signal::SIGTERM).unwrap();
    let planned = json(&scene, &["--json", "plan", &file]);
    assert_eq!(planned["proofs"][0]["proof"], "rate-unknown", "{planned}");
}
