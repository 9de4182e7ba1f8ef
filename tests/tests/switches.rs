//! Plan, freeze, acknowledge, and what a host reboot keeps: by the command line, in the lab.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::bench::Bench;
use lb_tests::services;
use lb_userspace::config::{Config, Policy};
use lb_userspace::kernel::image::{Image, PoolImage};
use lb_userspace::kernel::kept::Known;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::lab::{Host, HttpOptions, Instance, Lab, VIP_V4, until};
use lb_userspace::plan::{Fate, Plan};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn started(lab: &Lab) -> Instance {
    let mut instance = Instance::new(lab).unwrap();
    instance.start_agent().unwrap();
    instance
}

/// The digest that `lbguard plan --json` prints.
fn digest(instance: &Instance, file: &str) -> String {
    let told = instance.expect(&["plan", file, "--json"], 0).unwrap();
    let plan: Value = serde_json::from_str(&told).unwrap();
    plan["digest"].as_str().unwrap().to_owned()
}

#[test]
fn an_apply_is_bound_to_the_plan_that_was_looked_at() {
    let lab = Lab::builder().backends("web", 3).build().unwrap();
    let instance = started(&lab);
    let all: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&all[..2])).unwrap();
    let file = instance.write("next.toml", &services::shop(&all)).unwrap();
    let file = file.to_string_lossy().into_owned();
    let stale = digest(&instance, &file);
    instance.commit(&services::shop(&all[..1])).unwrap();
    let told = instance
        .expect(&["apply", &file, "-m", "late", "--plan", &stale], 3)
        .unwrap();
    assert!(told.contains("stale"), "{told}");
    assert_eq!(instance.active(), Some(2));
    let fresh = digest(&instance, &file);
    assert_ne!(stale, fresh);
    instance
        .expect(
            &[
                "apply", &file, "-m", "in time", "--plan", &fresh, "--detach",
            ],
            0,
        )
        .unwrap();
    instance.expect(&["confirm"], 0).unwrap();
}

#[test]
fn a_frozen_balancer_goes_back_and_not_forward() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    let all: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&all)).unwrap();
    instance.commit(&services::shop(&all[..1])).unwrap();
    instance.expect(&["freeze", "on"], 0).unwrap();
    let file = instance.write("next.toml", &services::shop(&all)).unwrap();
    let file = file.to_string_lossy().into_owned();
    let told = instance
        .expect(&["apply", &file, "-m", "frozen"], 3)
        .unwrap();
    assert!(told.contains("frozen"), "{told}");
    instance.expect(&["revert"], 0).unwrap();
    assert_eq!(instance.active(), Some(1));
    instance.expect(&["freeze", "off"], 0).unwrap();
    let told = instance.expect(&["ack"], 3).unwrap();
    assert!(told.contains("nothing to acknowledge"), "{told}");
    instance.stop_agent(Signal::SIGKILL).unwrap();
    instance.expect(&["freeze", "off"], 6).unwrap();
    instance.expect(&["freeze", "on"], 0).unwrap();
    assert_eq!(instance.status().unwrap()["kernel"]["frozen"], true);
}

#[test]
fn a_reboot_brings_back_the_committed_generation_and_the_freeze() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    let all: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&all[..1])).unwrap();
    instance.commit(&services::shop(&all)).unwrap();
    instance.try_out(&services::shop(&all[..1]), "60s").unwrap();
    instance.expect(&["freeze", "on"], 0).unwrap();
    instance.stop_agent(Signal::SIGKILL).unwrap();
    // What a reboot does to a BPF file system.
    instance.expect(&["unload", "--yes"], 0).unwrap();
    assert!(instance.status().is_none());
    instance.start_agent().unwrap();
    assert_eq!(
        instance.active(),
        Some(2),
        "the last committed one, and not the trial"
    );
    assert!(!instance.on_trial());
    let status = instance.status().unwrap();
    assert_eq!(status["kernel"]["frozen"], true, "{status}");
    let options = HttpOptions {
        rate: 100,
        ..HttpOptions::default()
    };
    let requests = lab
        .client()
        .http_loop(SocketAddr::new(VIP_V4.into(), 80), &options)
        .unwrap();
    requests.wait(100, SOON).unwrap();
    assert_eq!(requests.failed(), 0);
    // There is nothing good to go back to, and nowhere is worse than here.
    let told = instance.expect(&["revert"], 3).unwrap();
    assert!(told.contains("no last known good"), "{told}");
    let history = instance.expect(&["history"], 0).unwrap();
    assert!(history.contains("put back"), "{history}");
}

#[test]
fn status_does_not_hang_with_the_agent() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let instance = started(&lab);
    let agent = instance.agent().unwrap();
    agent.signal(Signal::SIGSTOP).unwrap();
    let status = until("a status", SOON, || instance.status()).unwrap();
    agent.signal(Signal::SIGCONT).unwrap();
    assert!(status["agent"].is_null());
}

/// A configuration of up to 3 VIPs on up to 2 pools.
fn configuration() -> impl Strategy<Value = String> {
    let pool = (
        1usize..6,
        prop::sample::select(vec![251u32, 509]),
        prop::bool::ANY,
    );
    // Port 0 too: a VIP of one port may come in beside it, or leave its flows to it.
    let key = (1u8..4, prop::sample::select(vec![0u16, 80]));
    let vips = prop::collection::btree_map(key, 0usize..2, 1..5);
    (prop::collection::vec((pool, 1u32..4), 2), vips).prop_map(|(pools, vips)| {
        let mut text = String::from("version = 1\n");
        for ((address, port), pool) in vips {
            let vip = format!("203.0.113.{address}").parse().unwrap();
            let (name, pool) = (format!("v{address}-{port}"), format!("p{pool}"));
            text += &services::vip(&name, "s", vip, port, "tcp", &pool);
        }
        for (number, ((backends, size, l2), weight)) in pools.into_iter().enumerate() {
            let forward = if l2 { "l2" } else { "ipip" };
            let _ = write!(
                text,
                "[[pool]]\nname = \"p{number}\"\nservice = \"s\"\nforward = \"{forward}\"\n\
                 table_size = {size}\n"
            );
            for backend in 1..=backends {
                let weight = if backend == 1 { weight * 100 } else { 100 };
                let _ = write!(
                    text,
                    "[[pool.backend]]\nname = \"b{backend}\"\naddress = \"10.0.{number}.{backend}\"\n\
                     weight = {weight}\n"
                );
            }
        }
        text
    })
}

/// Numbers, places and entries of the tables of an image: what is computed must be what is kept.
fn tables(image: &Image, maps: &Maps) -> Vec<(u32, u32, bool, Vec<u16>)> {
    let table = |pool: &PoolImage| {
        let table = pool.whole(maps).unwrap().table.clone();
        (table.id, table.start, table.shared, table.entries)
    };
    image.pools.iter().map(table).collect()
}

/// Backends of an image, the same: id, name, whether it drains, identity.
fn backends(image: &Image, maps: &Maps) -> Vec<(u32, String, bool, u64)> {
    let whole = image.pools.iter().map(|pool| pool.whole(maps).unwrap());
    let mut all: Vec<_> = whole
        .flat_map(|pool| pool.members.clone())
        .map(|member| {
            let identity = member.member.identity;
            (member.id, member.name, member.drain, identity)
        })
        .collect();
    all.sort();
    all
}

/// The plan says what the guard finds: to the entry, on pairs drawn at random.
#[test]
fn a_plan_says_what_the_guard_finds() {
    let bench = Bench::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 32,
        ..ProptestConfig::default()
    });
    let old = std::cell::RefCell::new(Known {
        digest: Config::default().digest(),
        config: Config::default(),
    });
    runner
        .run(&configuration(), |text| {
            let new = bench.config(&text);
            let plan = Plan::of(
                &old.borrow().config,
                &new,
                bench.active(),
                bench.seed(),
                &Policy::default(),
            )
            .unwrap();
            let (image, maps) = (
                bench.image_after(&old.borrow(), &new, plan.config),
                &bench.kernel.maps,
            );
            let anew = bench.image_of(&new);
            prop_assert_eq!(tables(&image, maps), tables(&anew, maps));
            prop_assert_eq!(backends(&image, maps), backends(&anew, maps));
            let sealed = bench.stage(&image).unwrap();
            prop_assert_eq!(plan.moved_ppm(), sealed.moved_ppm);
            prop_assert_eq!(plan.class, u32::from(sealed.class));
            prop_assert_eq!(plan.count(Fate::In), sealed.vips_added as usize);
            prop_assert_eq!(plan.count(Fate::Out), sealed.vips_removed as usize);
            bench.trial(1).unwrap();
            bench.confirm().unwrap();
            *old.borrow_mut() = Known {
                digest: plan.config,
                config: new,
            };
            Ok(())
        })
        .unwrap();
}
