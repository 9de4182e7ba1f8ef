//! What an operator under stress does, found in review.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::time::Duration;

use lb_tests::services;
use lb_userspace::kernel::pins::Pins;
use lb_userspace::lab::{Host, Instance, Lab};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);

/// A lab of two, with its agent and one committed generation (of both backends).
fn started() -> (Lab, Instance) {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    instance.commit(&services::shop(&hosts(&lab))).unwrap();
    (lab, instance)
}

fn hosts(lab: &Lab) -> Vec<&Host> {
    lab.backends().collect()
}

/// What a reboot does: the agent dies, and nothing is pinned any more.
fn reboot(instance: &mut Instance) {
    instance.stop_agent(Signal::SIGKILL).unwrap();
    instance.expect(&["unload", "--yes"], 0).unwrap();
    instance.start_agent().unwrap();
}

#[test]
fn a_second_revert_does_not_take_the_good_generation_too() {
    let (lab, instance) = started();
    instance.commit(&services::shop(&hosts(&lab)[..1])).unwrap();
    instance
        .try_out(&services::shop(&hosts(&lab)), "60s")
        .unwrap();
    instance.expect(&["revert"], 0).unwrap();
    let told = instance.expect(&["revert"], 3).unwrap();
    assert!(told.contains("`lbguard revert 1`"), "{told}");
    assert_eq!(instance.active(), Some(2));
    instance.expect(&["revert", "1"], 0).unwrap();
    assert_eq!(instance.active(), Some(1));
}

#[test]
fn revert_does_not_lead_to_the_empty_generation() {
    let (_lab, mut instance) = started();
    for _ in 0..2 {
        let told = instance.expect(&["revert"], 3).unwrap();
        assert!(told.contains("no last known good"), "{told}");
        assert_eq!(instance.active(), Some(1));
        reboot(&mut instance);
    }
}

#[test]
fn an_agent_killed_while_it_restores_is_followed_by_one_that_does() {
    let (_lab, mut instance) = started();
    instance.expect(&["freeze", "on"], 0).unwrap();
    instance.stop_agent(Signal::SIGKILL).unwrap();
    for after_ms in [100, 150, 200, 225, 250, 275, 300, 350, 400] {
        instance.expect(&["unload", "--yes"], 0).unwrap();
        let mut agent = instance.spawn(&["agent"]).unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        agent.signal(Signal::SIGKILL).unwrap();
        agent.wait(SOON).unwrap();
        if instance.active() == Some(1) {
            let frozen = instance.status().unwrap()["kernel"]["frozen"].clone();
            assert_eq!(frozen, true, "killed after {after_ms} ms");
        }
        instance.start_agent().unwrap();
        assert_eq!(instance.active(), Some(1), "killed after {after_ms} ms");
        assert_eq!(instance.status().unwrap()["kernel"]["frozen"], true);
        instance.stop_agent(Signal::SIGKILL).unwrap();
    }
}

#[test]
fn a_start_that_was_cut_short_is_begun_anew() {
    let (_lab, mut instance) = started();
    instance.stop_agent(Signal::SIGKILL).unwrap();
    // The guard is pinned last: whoever finds none finds what a start has left.
    let pins = Pins::new(&instance.root().join("sys/fs/bpf/lbguard"));
    std::fs::remove_file(pins.program("guard")).unwrap();
    // On an interface already: somebody else has taken the guard away.
    let (code, told) = instance.run(&["agent"]).unwrap();
    assert_ne!(code, 0);
    assert!(told.contains("`lbguard unload`"), "{told}");
    for words in [["revert"], ["doctor"], ["status"]] {
        let (_, told) = instance.run(&words).unwrap();
        assert!(told.contains("forwards"), "{told}");
        assert!(told.contains("lbguard unload"), "{told}");
    }
    for interface in pins.linked() {
        std::fs::remove_file(pins.link(&interface)).unwrap();
    }
    instance.start_agent().unwrap();
    assert_eq!(instance.active(), Some(1));
}

/// What it left would keep the other version from starting again.
#[test]
fn beside_another_version_an_agent_does_not_start_and_leaves_nothing() {
    let (_lab, mut instance) = started();
    instance.stop_agent(Signal::SIGKILL).unwrap();
    instance.expect(&["unload", "--yes"], 0).unwrap();
    let root = instance.root().join("sys/fs/bpf/lbguard");
    let other = root.join("abi-1");
    std::fs::create_dir(&other).unwrap();
    let (code, told) = instance.run(&["agent"]).unwrap();
    assert_ne!(code, 0);
    assert!(told.contains("ABI 1") && told.contains("unload"), "{told}");
    assert!(!Pins::new(&root).directory().exists());
    std::fs::remove_dir(&other).unwrap();
    instance.start_agent().unwrap();
    assert_eq!(instance.active(), Some(1));
}

#[test]
fn what_was_taken_back_without_an_agent_stays_so_after_a_reboot() {
    let (lab, mut instance) = started();
    instance.commit(&services::shop(&hosts(&lab)[..1])).unwrap();
    instance.stop_agent(Signal::SIGKILL).unwrap();
    instance.expect(&["revert"], 0).unwrap();
    instance.expect(&["unload", "--yes"], 0).unwrap();
    instance.start_agent().unwrap();
    assert_eq!(instance.active(), Some(1));
}

#[test]
fn an_apply_that_is_interrupted_before_its_trial_has_none() {
    let (lab, instance) = started();
    // Staging waits for a neighbour that is not there.
    let next = services::shop(&hosts(&lab)).replace(&hosts(&lab)[1].v4().to_string(), "10.0.1.199");
    let file = instance.write("next.toml", &next).unwrap();
    let file = file.to_string_lossy().into_owned();
    let words = ["apply", &file, "-m", "interrupted", "--force-unsafe"];
    let mut apply = instance.spawn(&words).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    apply.signal(Signal::SIGINT).unwrap();
    apply.wait(SOON).unwrap();
    // Longer than the neighbour is waited for.
    std::thread::sleep(Duration::from_secs(4));
    assert!(!instance.on_trial());
    let history = instance.expect(&["history"], 0).unwrap();
    assert!(history.contains("interrupted"), "{history}");
}

#[test]
fn an_agent_without_its_pins_takes_no_change() {
    let (lab, mut instance) = started();
    let file = instance
        .write("next.toml", &services::shop(&hosts(&lab)[..1]))
        .unwrap();
    let file = file.to_string_lossy().into_owned();
    let apply = ["apply", &file, "-m", "x"];
    // The guard alone, while the balancer forwards: an agent that is started again would not start.
    let pins = Pins::new(&instance.root().join("sys/fs/bpf/lbguard"));
    std::fs::remove_file(pins.program("guard")).unwrap();
    let told = instance.expect(&apply, 3).unwrap();
    assert!(told.contains("still forwards"), "{told}");
    assert!(told.contains("`lbguard unload`, then restart"), "{told}");
    instance.expect(&["unload", "--yes"], 0).unwrap();
    let told = instance.expect(&apply, 3).unwrap();
    assert!(
        told.contains("is gone") && told.contains("restart it"),
        "{told}"
    );
    reboot(&mut instance);
    assert_eq!(instance.active(), Some(1));
}

/// What each backend of ACTIVE weighs, by the kernel.
fn weights(instance: &Instance) -> Vec<u64> {
    let status = instance.status().unwrap();
    let pools = status.pointer("/kernel/active/pools").unwrap();
    let backends = pools.as_array().unwrap().iter();
    let backends = backends.flat_map(|pool| pool["backends"].as_array().unwrap());
    backends.map(|b| b["weight"].as_u64().unwrap()).collect()
}

#[test]
fn a_weight_that_was_put_back_is_told_no_more() {
    let (lab, instance) = started();
    let before = services::shop(&hosts(&lab));
    let place = before.rfind("weight = 100").unwrap();
    let heavier = format!("{}weight = 300\n", &before[..place]);
    instance.try_out(&heavier, "60s").unwrap();
    assert_eq!(weights(&instance), [100, 100], "ACTIVE has it not yet");
    instance.expect(&["revert"], 0).unwrap();
    assert_eq!(weights(&instance), [100, 100], "put back");
    // A change of something else, which keeps the pool as it is.
    let other = before.replacen("name = \"", "name = \"other-", 1);
    instance.commit(&other).unwrap();
    assert_eq!(weights(&instance), [100, 100], "kept");
}
