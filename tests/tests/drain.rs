//! Drained, weight 0 and disabled: which flows a backend keeps and gets, by real connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{
    ConnectionOptions, Connections, Host, Instance, Lab, Server, VIP_V4, until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const LINES: u16 = 7000;
/// Connections opened at a time. None of three backends is missed by so many but once in 10^10.
const MANY: usize = 60;

/// A lab with `count` backends that serve lines, and an agent with all of them committed.
struct Scene {
    lab: Lab,
    instance: Instance,
    _servers: Vec<Server>,
}

impl Scene {
    fn new(count: usize) -> Self {
        let builder = Lab::builder().backends("web", count).without_web();
        let lab = builder.build().unwrap();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let servers = lab.backends().map(|host| host.serve_lines(LINES).unwrap());
        let servers = servers.collect();
        let scene = Self {
            lab,
            instance,
            _servers: servers,
        };
        scene.instance.commit(&scene.shop()).unwrap();
        scene
    }

    fn hosts(&self) -> Vec<&Host> {
        self.lab.backends().collect()
    }

    /// services.toml with all backends.
    fn shop(&self) -> String {
        services::shop(&self.hosts())
    }

    /// The same, with a line more for one of them.
    fn shop_with(&self, name: &str, line: &str) -> String {
        let named = format!("name = \"{name}\"\n");
        let text = self.shop();
        let (before, after) = text.split_once(&named).unwrap();
        let after = after.replacen("weight = 100\n", "", usize::from(line.contains("weight")));
        format!("{before}{named}{line}\n{after}")
    }

    /// Opens connections and waits until all are answered.
    fn connect(&self) -> Connections {
        let options = ConnectionOptions {
            count: MANY,
            timeout: Duration::from_secs(10),
            ..ConnectionOptions::default()
        };
        let target = SocketAddr::new(VIP_V4.into(), LINES);
        let held = self.lab.client().connections(target, &options).unwrap();
        held.wait_established(SOON).unwrap();
        held
    }

    /// Who answers new connections.
    fn served(&self) -> BTreeMap<String, usize> {
        self.connect().backends()
    }

    fn expect(&self, words: &[&str], code: i32) -> String {
        self.instance.expect(words, code).unwrap()
    }

    /// State of a backend in ACTIVE, by the kernel.
    fn state(&self, name: &str) -> Option<String> {
        let status = self.instance.status()?;
        let backends = status.pointer("/kernel/active/pools/0/backends")?;
        let own = backends.as_array()?.iter().find(|b| b["name"] == name)?;
        Some(own["state"].as_str()?.to_owned())
    }

    fn drains(&self) -> Value {
        self.instance.status().unwrap()["agent"]["drains"].clone()
    }
}

/// All connections answer once more, and none has broken.
fn alive(held: &Connections) {
    held.wait_answers(2 * MANY as u64, SOON).unwrap();
    assert!(held.breaks().is_empty(), "{:?}", held.breaks().first());
}

#[test]
fn a_drained_backend_keeps_its_connections_and_gets_no_new_ones() {
    let scene = Scene::new(3);
    let held = scene.connect();
    assert!(
        held.backends().contains_key("web-1"),
        "{:?}",
        held.backends()
    );
    let told = scene.expect(&["drain", "web-1", "-m", "CHG-7: new kernel"], 0);
    assert!(told.contains("takes no new flows"), "{told}");
    let fresh = scene.served();
    assert!(!fresh.contains_key("web-1"), "{fresh:?}");
    assert_eq!(fresh.len(), 2, "{fresh:?}");
    alive(&held);

    assert_eq!(scene.state("web-1").unwrap(), "drain");
    let drains = scene.drains();
    assert_eq!(drains[0]["backend"], "web-1", "{drains}");
    assert_eq!(drains[0]["why"], "CHG-7: new kernel", "{drains}");
    assert!(drains[0]["flows"].as_u64().unwrap() > 0, "{drains}");
    let text = scene.expect(&["status"], 0);
    assert!(text.contains("drained     shop-web/web-1 by"), "{text}");
    let again = scene.expect(&["drain", "web-1", "-m", "again"], 0);
    assert!(again.contains("drained already"), "{again}");

    scene.expect(&["undrain", "web-1"], 0);
    assert!(scene.served().contains_key("web-1"));
    alive(&held);
    let told = scene.expect(&["undrain", "web-1"], 3);
    assert!(told.contains("not drained by command"), "{told}");
    let history = scene.expect(&["history"], 0);
    let (undrained, drained) = (
        history
            .find("backend shop-web/web-1 was undrained")
            .unwrap(),
        history.find("backend shop-web/web-1 was drained").unwrap(),
    );
    assert!(undrained < drained, "newest first: {history}");
    assert!(history.contains("CHG-7: new kernel"), "{history}");
}

#[test]
fn a_name_of_two_pools_needs_its_pool() {
    let scene = Scene::new(2);
    let hosts = scene.hosts();
    let pool = services::Pool {
        name: "other",
        service: "web",
        forward: "ipip",
        v6: false,
    };
    let vip = services::vip(
        "other-v4",
        "web",
        "203.0.113.11".parse().unwrap(),
        80,
        "tcp",
        "other",
    );
    let both = format!("{}{vip}{}", scene.shop(), services::pool(pool, &hosts));
    scene.instance.commit(&both).unwrap();
    let told = scene.expect(&["drain", "web-1", "-m", "why"], 2);
    assert!(told.contains("--pool: other, shop-web"), "{told}");
    let told = scene.expect(&["drain", "web-1", "--pool", "none", "-m", "why"], 3);
    assert!(told.contains("is of pool other, shop-web"), "{told}");
    let told = scene.expect(&["drain", "web-9", "-m", "why"], 3);
    assert!(told.contains("no slot has a backend web-9"), "{told}");
    assert_eq!(
        scene.drains().as_array().unwrap().len(),
        0,
        "nothing was done"
    );
    scene.expect(&["drain", "web-1", "--pool", "other", "-m", "why"], 0);
    let drains = scene.drains();
    assert_eq!(drains[0]["pool"], "other", "{drains}");
    assert!(scene.served().contains_key("web-1"), "the other pool's");
    // Only one of them can be taken back, so that the name is enough.
    scene.expect(&["undrain", "web-1"], 0);
    let told = scene.expect(&["undrain", "web-1"], 3);
    assert!(told.contains("no backend web-1 is drained"), "{told}");
}

#[test]
fn a_drain_outlives_changes_the_agent_and_a_reboot() {
    let mut scene = Scene::new(3);
    scene.expect(&["drain", "web-1", "-m", "CHG-8"], 0);
    let drained = |scene: &Scene, when: &str| {
        assert_eq!(scene.state("web-1").as_deref(), Some("drain"), "{when}");
        let served = scene.served();
        assert!(!served.contains_key("web-1"), "{when}: {served:?}");
    };
    // A change that leaves it, one without it, and one that brings it back under another number.
    scene
        .instance
        .commit(&scene.shop_with("web-2", "weight = 50"))
        .unwrap();
    drained(&scene, "after a change");
    let without = services::shop(&scene.hosts()[1..]);
    scene.instance.commit(&without).unwrap();
    assert!(scene.drains()[0]["flows"].is_null() || scene.drains()[0]["backend"] == "web-1");
    scene.instance.commit(&scene.shop()).unwrap();
    drained(&scene, "left out and back");

    scene.instance.stop_agent(Signal::SIGKILL).unwrap();
    drained(&scene, "without an agent");
    scene.instance.start_agent().unwrap();
    drained(&scene, "with the next agent");

    // What a reboot does to a BPF file system.
    scene.instance.stop_agent(Signal::SIGTERM).unwrap();
    scene.expect(&["unload", "--yes"], 0);
    scene.instance.start_agent().unwrap();
    drained(&scene, "after a reboot");
    assert_eq!(scene.drains()[0]["why"], "CHG-8");
    scene.expect(&["undrain", "web-1"], 0);
    assert!(scene.served().contains_key("web-1"));
    // Its journal says so, too.
    scene.instance.stop_agent(Signal::SIGKILL).unwrap();
    scene.instance.start_agent().unwrap();
    assert_eq!(scene.drains().as_array().unwrap().len(), 0);
}

#[test]
fn drain_waits_until_the_flows_are_gone() {
    let scene = Scene::new(2);
    let held = scene.connect();
    let words = ["drain", "web-1", "-m", "CHG-9", "--wait", "--idle", "1s"];
    let mut waiting = scene.instance.spawn(&words).unwrap();
    waiting.wait_for_log("flows", SOON).unwrap();
    alive(&held);
    assert!(waiting.try_wait().unwrap().is_none(), "{}", waiting.log());
    let within = [&words[..], &["--within", "1s"]].concat();
    let told = scene.expect(&within, 5);
    assert!(told.contains("still go to web-1"), "{told}");
    drop(held);
    let ended = waiting.wait(Duration::from_mins(2)).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", waiting.log());
    assert!(
        waiting.log().contains("no flow goes to web-1"),
        "{}",
        waiting.log()
    );
    // Nothing is left, so that there is nothing to wait for; and somebody takes it back.
    let json = [&["--json"], &words[..]].concat();
    let told = scene.expect(&json, 0);
    let last: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "drained", "{told}");
}

#[test]
fn who_waits_is_told_when_it_is_taken_back() {
    let scene = Scene::new(2);
    let held = scene.connect();
    let words = ["drain", "web-1", "-m", "CHG-9", "--wait"];
    let mut waiting = scene.instance.spawn(&words).unwrap();
    waiting.wait_for_log("flows", SOON).unwrap();
    scene.expect(&["undrain", "web-1"], 0);
    let ended = waiting.wait(SOON).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", waiting.log());
    assert!(waiting.log().contains("taken back"), "{}", waiting.log());
    alive(&held);
}

/// Named semantics of what the file says: drain and weight 0 keep their flows, disabled loses them.
#[test]
fn weight_0_drain_and_disabled_do_what_they_say() {
    for (line, keeps) in [
        ("weight = 0", true),
        ("state = \"drain\"", true),
        ("state = \"disabled\"", false),
    ] {
        let scene = Scene::new(3);
        let held = scene.connect();
        let own = held.backends()["web-1"];
        scene
            .instance
            .commit(&scene.shop_with("web-1", line))
            .unwrap();
        let fresh = scene.served();
        assert!(!fresh.contains_key("web-1"), "{line}: {fresh:?}");
        if keeps {
            alive(&held);
            assert_eq!(held.backends()["web-1"], own, "{line}");
            // The command goes beside the file, and does not go against it.
            scene.expect(&["drain", "web-1", "-m", "both"], 0);
            scene.expect(&["undrain", "web-1"], 0);
            assert!(!scene.served().contains_key("web-1"), "{line}");
            alive(&held);
        } else {
            // Their packets reach a backend that does not know them, and are reset there.
            until("its connections are gone", SOON, || {
                (held.breaks().len() == own).then_some(())
            })
            .unwrap();
            let others = held.breaks();
            let others = others
                .iter()
                .filter(|b| b.backend.as_deref() != Some("web-1"));
            assert_eq!(others.count(), 0);
        }
    }
}

#[test]
fn what_would_empty_a_pool_is_refused_with_the_numbers() {
    let scene = Scene::new(3);
    scene.expect(&["drain", "web-1", "-m", "one"], 0);
    let told = scene.expect(&["drain", "web-2", "-m", "two"], 3);
    assert!(
        told.contains("1 of the pool's 3 backends take no new flows already"),
        "{told}"
    );
    assert!(told.contains("50.00 %"), "{told}");
    assert_eq!(scene.state("web-2").unwrap(), "up");
    assert_eq!(scene.drains().as_array().unwrap().len(), 1);
    // Nor by a change that leaves nobody else.
    let alone = services::shop(&scene.hosts()[..1]);
    let file = scene.instance.write("alone.toml", &alone).unwrap();
    let file = file.to_string_lossy().into_owned();
    let told = scene.expect(&["apply", &file, "-m", "alone", "--detach"], 3);
    assert!(told.contains("would have drained backends only"), "{told}");
    // A minimum in the file counts, too.
    scene.expect(&["undrain", "web-1"], 0);
    let minimum = scene
        .shop()
        .replace("table_size", "min_backends = 3\ntable_size");
    scene.instance.commit(&minimum).unwrap();
    let told = scene.expect(&["drain", "web-1", "-m", "minimum"], 3);
    assert!(told.contains("at least 3 must stay"), "{told}");
    assert!(scene.served().contains_key("web-1"));
}
