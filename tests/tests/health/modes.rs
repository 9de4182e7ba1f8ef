//! Every way that a pool's packets go, both families: a check goes the same way.

use lb_tests::services;
use lb_userspace::lab::{Host, Instance, Lab, until};

use crate::scene::{HTTP, SOON};

/// Pool and backend of every line that is in a state.
fn lines(instance: &Instance, state: &str) -> Vec<String> {
    let Some(status) = instance.status() else {
        return Vec::new();
    };
    let lines = status
        .pointer("/agent/health")
        .and_then(|l| l.as_array())
        .cloned();
    let own = lines
        .unwrap_or_default()
        .into_iter()
        .filter(|line| line["state"] == state);
    own.map(|line| format!("{}/{}", line["pool"], line["backend"]).replace('"', ""))
        .collect()
}

#[test]
fn checks_go_by_every_kind_of_tunnel_and_by_none() {
    let mut lab = Lab::builder().backends("web", 3).build().unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    let hosts: Vec<Host> = lab.backends().cloned().collect();
    let all: Vec<&Host> = hosts.iter().collect();
    // IPv4 and IPv6 VIPs and backends each; and IPv4 VIPs on IPv6 backends.
    let mixed = services::shop(&all).replace(
        &services::pool(pool("shop-web", "ipip", false), &all),
        &services::pool(pool("shop-web", "ipip", true), &all),
    );
    assert!(mixed.contains("fd00:1::"), "{mixed}");
    let cases = [
        ("l2", services::everything("l2", &all)),
        ("ipip", services::everything("ipip", &all)),
        ("gue", services::everything("gue", &all)),
        ("4in6", mixed),
    ];
    for (mode, text) in cases {
        let text = text.replace("table_size", &format!("{HTTP}\ntable_size"));
        instance.commit(&text).unwrap();
        let pools = text.matches("[[pool]]").count();
        let found = until(&format!("{mode}: all are up"), SOON, || {
            (lines(&instance, "up").len() == 3 * pools).then_some(())
        });
        found.unwrap_or_else(|error| {
            panic!(
                "{error}: {:?}",
                instance.status().unwrap()["agent"]["health"]
            )
        });
        // One that answers at its own address only; tunnels need somebody who opens them.
        lab.stop_web("web-1");
        until(&format!("{mode}: web-1 is down"), SOON, || {
            let down = lines(&instance, "down");
            (down.len() == pools && down.iter().all(|line| line.ends_with("/web-1"))).then_some(())
        })
        .unwrap();
        lab.start_web(&hosts[0]).unwrap();
    }
}

fn pool<'a>(name: &'a str, forward: &'a str, v6: bool) -> services::Pool<'a> {
    services::Pool {
        name,
        service: "web",
        forward,
        v6,
    }
}
