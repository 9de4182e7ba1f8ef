//! A flood of SYNs at the flow table's limit: it is told and over again, and takes nobody's place.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_tests::flood::{flood_while, swallow};
use lb_tests::loaded::bpf_pins;
use lb_tests::services;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::lab::{
    ConnectionOptions, Host, HttpOptions, Instance, Lab, VIP_V4, client_addresses, until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_mins(1);
/// The port of the line servers.
const LINES: u16 = 7000;
/// Connections from before.
const HELD: usize = 200;
/// SYNs a second.
const RATE: u32 = 10_000;
/// A table that such a flood fills in a second or two, and then the first flows of each second and
/// CPU alone: the limit is passed even if the machine has little time for the flood.
const TABLES: &str = "flows = 8_192\nflood_rate = 1";

/// A balancer, and connections that the flow table alone keeps at their servers: the lookup table has
/// changed since.
fn held(lab: &Lab) -> (Instance, lb_userspace::lab::Connections) {
    let file = lab.root().join("etc/lbguard/agent.toml");
    let agent = std::fs::read_to_string(&file).unwrap();
    assert!(agent.contains("flows = 65_536"));
    std::fs::write(&file, agent.replace("flows = 65_536", TABLES)).unwrap();
    let mut instance = Instance::new(lab).unwrap();
    instance.start_agent().unwrap();
    let hosts: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&hosts)).unwrap();
    let options = ConnectionOptions {
        count: HELD,
        interval: Duration::from_millis(300),
        timeout: Duration::from_secs(20),
        sources: client_addresses(VIP_V4.into()),
    };
    let target = SocketAddr::new(VIP_V4.into(), LINES);
    let held = lab.client().connections(target, &options).unwrap();
    held.wait_established(SOON).unwrap();
    let moved = services::shop(&hosts).replace("table_size = 4099", "table_size = 5003");
    instance.commit(&moved).unwrap();
    (instance, held)
}

fn flood_alert(instance: &Instance) -> Option<Value> {
    let status = instance.status()?;
    let alerts = status["agent"]["alerts"].as_array()?;
    let flood = alerts.iter().find(|alert| alert["alert"] == "flow-flood");
    flood.cloned()
}

/// Begins and ends of the alert, as written down.
fn written_down(lab: &Lab) -> Vec<bool> {
    let journal = lab.root().join("var/lib/lbguard/journal.jsonl");
    let journal = std::fs::read_to_string(journal).unwrap();
    let records = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .filter(|record| record["kind"] == "alert" && record["body"]["alert"] == "flow-flood")
        .map(|record| record["body"]["begins"].as_bool().unwrap())
        .collect()
}

#[test]
fn a_flood_is_told_harms_no_connection_and_is_over_when_it_ends() {
    let lab = Lab::builder().backends("web", 4).build().unwrap();
    swallow(lab.router());
    let servers: Vec<_> = lab
        .backends()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect();
    let (instance, held) = held(&lab);
    let before = held.backends();
    assert_eq!(flood_alert(&instance), None);

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding =
            scope.spawn(|| flood_while(lab.client(), RATE, |_| !over.load(Ordering::Relaxed)));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let told = until("the flood is told", SOON, || flood_alert(&instance)).unwrap();
            let text = told["text"].as_str().unwrap();
            assert!(text.contains("were not remembered"), "{text}");
            assert!(
                text.contains("8192 flows") && text.contains("flood_rate"),
                "{text}"
            );
            // Each of them has been answered since, and newcomers get through.
            held.wait_answers(3 * HELD as u64, SOON).unwrap();
            newcomers_get_through(&lab);
        }));
        over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        done.unwrap();
    });

    let counts = Maps::open(&bpf_pins(&lab)).unwrap().flow_counts().unwrap();
    assert!(counts.refused > 0 && counts.floods > 0, "{counts:?}");
    until("it is over", SOON, || {
        flood_alert(&instance).is_none().then_some(())
    })
    .unwrap();
    let written = written_down(&lab);
    assert_eq!(
        (written.first(), written.last()),
        (Some(&true), Some(&false))
    );
    held.wait_answers(3 * HELD as u64, SOON).unwrap();
    assert_eq!((held.established(), held.backends()), (HELD, before));
    assert!(held.breaks().is_empty(), "{:?}", held.breaks());
    drop(servers);
}

/// They are not remembered, so that they go by the lookup table.
fn newcomers_get_through(lab: &Lab) {
    let options = HttpOptions {
        rate: 50,
        timeout: SOON,
        ..HttpOptions::default()
    };
    let target = SocketAddr::new(VIP_V4.into(), 80);
    let requests = lab.client().http_loop(target, &options).unwrap();
    requests.wait(100, SOON).unwrap();
    assert_eq!(requests.failed(), 0, "{:?}", requests.requests());
}
