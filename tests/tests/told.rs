//! What the operator is told: agent.toml that does not hold, refusals that say whose they are,
//! reasons of bounded length, messages that fit a terminal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::fs;
use std::process::Command;

use lb_tests::services;
use lb_userspace::change::journal::{self, Kind};
use lb_userspace::lab::{Host, Instance, Lab};
use nix::sys::signal::Signal;

fn started(lab: &Lab) -> Instance {
    let mut instance = Instance::new(lab).unwrap();
    instance.start_agent().unwrap();
    let hosts: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&hosts)).unwrap();
    instance
}

fn file(instance: &Instance, services: &str) -> String {
    let path = instance.write("next.toml", services).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn what_agent_toml_says_and_is_not_loaded_is_named() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    let path = lab.root().join("etc/lbguard/agent.toml");
    let before = fs::read_to_string(&path).unwrap();
    let after = before
        .replace(
            "fleet_seed = \"laboratory\"",
            "fleet_seed = \"observatory\"",
        )
        .replace("vips = 64", "vips = 128")
        .replace("encap_source_v6", "# encap_source_v6");
    assert_ne!(after, before);
    fs::write(&path, &after).unwrap();
    instance.stop_agent(Signal::SIGTERM).unwrap();
    instance.start_agent().unwrap();
    let told = instance.expect(&["status"], 0).unwrap();
    for words in [
        "fleet_seed differs",
        "tables.vips is 64, agent.toml says 128",
        "encap_source_v6 is ",
        "agent.toml says none",
        "lbguard unload",
        "interrupts",
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    assert!(!told.contains("observatory"), "{told}");
    // Tables go on being filled by the seed that is loaded: the same file moves nothing.
    let hosts: Vec<&Host> = lab.backends().collect();
    let same = file(&instance, &services::shop(&hosts));
    let words = ["apply", &same, "-m", "the same", "--detach"];
    let told = instance.expect(&words, 0).unwrap();
    assert!(told.contains("class R0"), "{told}");
    instance.expect(&["revert"], 0).unwrap();

    fs::write(&path, &before).unwrap();
    instance.stop_agent(Signal::SIGTERM).unwrap();
    instance.start_agent().unwrap();
    let told = instance.expect(&["status"], 0).unwrap();
    assert!(!told.contains("loaded with other values"), "{told}");
}

#[test]
fn a_refusal_of_the_agents_is_not_called_the_guards() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let instance = started(&lab);
    let hosts: Vec<&Host> = lab.backends().collect();
    // A neighbour that nobody is.
    let lost = services::shop(&hosts)
        + "[[pool.backend]]\nname = \"lost\"\naddress = \"10.0.1.199\"\nweight = 100\n";
    let lost = file(&instance, &lost);
    let told = instance.expect(&["apply", &lost, "-m", "lost"], 3).unwrap();
    assert!(told.contains("cannot be reached"), "{told}");
    assert!(told.contains("this host cannot carry it"), "{told}");
    assert!(!told.contains("guard"), "{told}");
    // And what the guard refuses is called so once.
    instance.expect(&["freeze", "on"], 0).unwrap();
    let good = file(&instance, &services::shop(&hosts[..1]));
    let told = instance
        .expect(&["apply", &good, "-m", "frozen"], 3)
        .unwrap();
    let aborted = told.lines().find(|line| line.contains("aborted")).unwrap();
    assert_eq!(aborted.matches("guard").count(), 1, "{aborted}");
    assert!(told.contains("frozen (K9)"), "{told}");
}

#[test]
fn a_reason_is_bounded() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let instance = started(&lab);
    let hosts: Vec<&Host> = lab.backends().collect();
    let next = file(&instance, &services::shop(&hosts));
    let long = "x".repeat(100_000);
    let told = instance.expect(&["apply", &next, "-m", &long], 2).unwrap();
    assert!(told.contains("500 at most"), "{told}");
    assert!(told.len() < 2_000, "the reason is not printed back");
    let journal = lab.root().join("var/lib/lbguard/journal.jsonl");
    let (records, _) = journal::read(&journal).unwrap();
    assert_eq!(records.iter().filter(|r| r.kind == Kind::Draft).count(), 1);
}

#[test]
fn messages_fit_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_lbguard-under-test");
    let root = directory.path().to_str().unwrap();
    let line = format!("{binary} --root {root} attach nowhere0");
    // script(1) gives it a terminal.
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let plain = Command::new(binary)
        .args(["--root", root, "attach", "nowhere0"])
        .output()
        .unwrap();
    let plain = String::from_utf8(plain.stderr).unwrap();
    assert!(plain.lines().any(|line| line.len() > 80), "{plain}");
    assert!(text.starts_with("lbguard: "), "{text}");
    let words = |line: &str| line.split_whitespace().count();
    for line in text.lines().filter(|line| words(line) > 1) {
        assert!(line.trim_end().chars().count() <= 80, "{line}");
    }
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(joined(&text), joined(&plain));
}

/// Who is told at 3 a.m. that no agent runs starts another.
#[test]
fn an_agent_that_is_silent_is_told_from_none() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let mut instance = started(&lab);
    let shown = |instance: &Instance| instance.expect(&["status"], 0).unwrap();
    assert!(shown(&instance).contains("agent       running, process"));
    instance.agent().unwrap().signal(Signal::SIGSTOP).unwrap();
    let told = shown(&instance);
    let document = instance.status().unwrap();
    instance.agent().unwrap().signal(Signal::SIGCONT).unwrap();
    assert!(told.contains("does not answer within a second"), "{told}");
    assert!(!told.contains("not running"), "{told}");
    assert_eq!(document["agent"], serde_json::Value::Null);
    assert_eq!(document["agent_state"], "silent");
    assert_eq!(instance.status().unwrap()["agent_state"], "running");
    instance.stop_agent(Signal::SIGTERM).unwrap();
    let told = shown(&instance);
    assert!(
        told.contains("agent       not running; forwarding goes on"),
        "{told}"
    );
    assert_eq!(instance.status().unwrap()["agent_state"], "none");
}
