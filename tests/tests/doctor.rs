//! `lbguard doctor` and the commands that act on the pins, as an operator runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::bench::{Bench, shop};
use lb_tests::loaded::{bpf_pins, load};
use lb_tests::services;
use lb_userspace::config::{LoadError, NodeConfig, XdpMode};
use lb_userspace::decap;
use lb_userspace::doctor::{self, Check, Status};
use lb_userspace::kernel::attach::attach;
use lb_userspace::lab::{Host, Instance, Lab, until};
use lb_userspace::paths::Paths;

const SOON: Duration = Duration::from_secs(20);

fn examine(lab: &Lab) -> BTreeMap<String, Check> {
    let paths = Paths::under(lab.root());
    let config = NodeConfig::load(&paths.agent_toml());
    let checks = lab
        .balancer()
        .in_ns(|| doctor::run(&paths, config))
        .unwrap();
    checks
        .into_iter()
        .map(|check| (check.id.clone(), check))
        .collect()
}

fn lab() -> Lab {
    Lab::builder().without_web().build().unwrap()
}

#[test]
fn a_bare_host_is_told_what_is_missing() {
    let lab = lab();
    let checks = examine(&lab);
    for id in [
        "kernel",
        "bpf",
        "capabilities",
        "memlock",
        "bpffs",
        "config",
        "interface.lb0",
    ] {
        assert_eq!(checks[id].status, Status::Ok, "{:?}", checks[id]);
    }
    assert_eq!(checks["agent"].status, Status::Warn);
    assert_eq!(checks["pins"].status, Status::Fail);
    let xdp = &checks["interface.lb0.xdp"];
    assert_eq!(
        (xdp.status, xdp.fix.as_deref()),
        (Status::Fail, Some("lbguard attach lb0"))
    );
    assert_eq!(checks["next_hops"].status, Status::Skip);
}

#[test]
fn what_is_loaded_and_attached_is_well() {
    let lab = lab();
    let pins = bpf_pins(&lab);
    load(&lab, &pins);
    lab.balancer()
        .in_ns(|| attach(&pins, "lb0", XdpMode::Auto))
        .unwrap()
        .unwrap();
    let checks = examine(&lab);
    for id in [
        "pins",
        "frozen",
        "timer",
        "interface.lb0.xdp",
        "interface.lb0.mtu",
        "interface.lb0.offloads",
        "interface.lb0.rp_filter",
    ] {
        // The lab's segment is wide enough for an outer IPv6 header.
        assert_eq!(checks[id].status, Status::Ok, "{:?}", checks[id]);
    }
    assert_eq!(
        checks["generation"].status,
        Status::Fail,
        "nothing is configured yet"
    );
}

#[test]
fn every_fault_of_an_interface_is_found() {
    let lab = lab();
    let pins = bpf_pins(&lab);
    load(&lab, &pins);
    let run = |words: &[&str]| lab.balancer().run(words).unwrap();
    lab.balancer()
        .in_ns(|| decap::run("lb0", &decap::Options::default(), &lab.bpffs()))
        .unwrap()
        .unwrap();
    run(&["sysctl", "-qw", "net.ipv4.conf.lb0.rp_filter=1"]);
    run(&["ip", "link", "set", "lb0", "mtu", "1500"]);
    run(&["ethtool", "-K", "lb0", "tx", "on"]);
    run(&["ip", "link", "set", "lb0", "down"]);
    let checks = examine(&lab);
    for (id, status, word) in [
        ("interface.lb0", Status::Fail, "switched off"),
        ("interface.lb0.xdp", Status::Fail, "\"decap\""),
        ("interface.lb0.mtu", Status::Warn, "1460"),
        ("interface.lb0.offloads", Status::Warn, "checksum"),
        ("interface.lb0.rp_filter", Status::Warn, "strict"),
    ] {
        let check = &checks[id];
        assert_eq!(check.status, status, "{check:?}");
        assert!(
            check.found.contains(word) && check.fix.is_some(),
            "{check:?}"
        );
    }
}

#[test]
fn without_any_configuration_the_rest_is_still_checked() {
    let lab = lab();
    let paths = Paths::under(lab.root());
    std::fs::remove_file(paths.agent_toml()).unwrap();
    let config = NodeConfig::load(&paths.agent_toml());
    assert!(matches!(config, Err(LoadError::Missing { .. })));
    let checks = examine(&lab);
    assert_eq!(checks["config"].status, Status::Fail);
    assert_eq!(checks["interfaces"].status, Status::Skip);
    assert_eq!(checks["kernel"].status, Status::Ok);
}

#[test]
fn backends_and_vips_are_looked_at_as_the_kernel_has_them() {
    let lab = Lab::builder()
        .backends("web", 1)
        .without_web()
        .build()
        .unwrap();
    let bench = Bench::pinned(&bpf_pins(&lab));
    let there = shop(1).replace("10.0.1.1\"", "10.0.1.11\"");
    bench.commit(&there);
    let checks = examine(&lab);
    for id in ["generation", "vips", "next_hops", "next_hops.kernel"] {
        assert_eq!(checks[id].status, Status::Ok, "{:?}", checks[id]);
    }
    assert!(
        checks["vips"].found.contains("1 VIPs"),
        "{:?}",
        checks["vips"]
    );
    let half =
        there + "[[pool.backend]]\nname = \"ghost\"\naddress = \"10.0.1.99\"\nweight = 100\n";
    bench.commit(&half);
    bench.set_hop(1, 1500, false);
    lab.balancer()
        .run(&["ip", "addr", "add", "203.0.113.10/32", "dev", "lo"])
        .unwrap();
    let checks = examine(&lab);
    for (id, status, word) in [
        ("vips", Status::Warn, "shop-v4"),
        ("next_hops", Status::Warn, "1 of 2: ghost: 10.0.1.99"),
        ("next_hops.kernel", Status::Fail, "web-1"),
    ] {
        let check = &checks[id];
        assert_eq!(check.status, status, "{check:?}");
        assert!(
            check.found.contains(word) && check.fix.is_some(),
            "{check:?}"
        );
    }
    let entry = lab
        .balancer()
        .text(&["ip", "neigh", "show", "10.0.1.11"])
        .unwrap();
    assert!(
        !entry.contains("managed"),
        "the doctor leaves nothing behind: {entry}"
    );
}

/// The segment carries no more than 1500, and backends let clients send 1500: with the outer header that
/// is too long. Asked at the VIPs where the agent has a way for checks, else at the backends' addresses.
#[test]
fn an_mss_that_does_not_fit_the_tunnel_is_found() {
    let lab = Lab::builder()
        .backends("web", 2)
        .segment_mtu(1500)
        .build()
        .unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    let hosts: Vec<&Host> = lab.backends().collect();
    let own = |text: String| text.replace("port = 0", "port = 80");
    let plain = own(services::shop(&hosts));
    instance.commit(&plain).unwrap();
    let found = |lab: &Lab| examine(lab)["segments"].clone();
    let check = found(&lab);
    assert_eq!(check.status, Status::Fail, "{check:?}");
    assert!(
        check
            .found
            .contains("web-1 offers an MSS of 1460: 1520 bytes"),
        "{check:?}"
    );
    let (code, told) = instance.run(&["doctor"]).unwrap();
    assert!(code == 3 && told.contains("advmss"), "{told}");
    for host in &hosts {
        // The route to who asks, which is a host of the segment here.
        let lower = [
            "ip",
            "route",
            "change",
            "10.0.1.0/24",
            "dev",
            "eth0",
            "advmss",
            "1440",
        ];
        host.run(&lower).unwrap();
    }
    assert_eq!(found(&lab).status, Status::Ok, "{:?}", found(&lab));

    // The same by the tunnel and to the VIP.
    let health =
        "health = { type = \"tcp\", port = 80, interval = \"300ms\", timeout = \"250ms\" }\n";
    instance
        .commit(&plain.replace("table_size", &format!("{health}table_size")))
        .unwrap();
    until("checks run", Duration::from_secs(20), || {
        let status = instance.status()?;
        (status.pointer("/agent/health/0/state")? == "up").then_some(())
    })
    .unwrap();
    assert_eq!(found(&lab).status, Status::Ok, "{:?}", found(&lab));
    let back = ["ip", "route", "change", "10.0.1.0/24", "dev", "eth0"];
    hosts[0].run(&back).unwrap();
    let check = found(&lab);
    assert_eq!(check.status, Status::Fail, "{check:?}");
    assert!(
        check.found.contains("web-1") && !check.found.contains("web-2"),
        "{check:?}"
    );
}

/// A switch on the way takes no more than 1400 bytes and nobody tells the sender: connections are made, and
/// a check that only makes one is content.
#[test]
fn a_path_that_takes_small_packets_alone_is_found() {
    let lab = Lab::builder()
        .backends("web", 1)
        .far_backends("web", 1)
        .build()
        .unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    let hosts: Vec<&Host> = lab.backends().collect();
    let health =
        "health = { type = \"tcp\", port = 80, interval = \"300ms\", timeout = \"250ms\" }\n";
    for forward in ["ipip", "gue"] {
        let services = services::everything(forward, &hosts);
        let services = services.replace("table_size", &format!("{health}table_size"));
        instance.commit(&services).unwrap();
        let found = || examine(&lab)["paths"].clone();
        let well = until("the agent has made a way for checks", SOON, || {
            Some(found()).filter(|check| check.status != Status::Skip)
        })
        .unwrap();
        assert_eq!(well.status, Status::Ok, "{well:?}");
        assert!(well.found.starts_with("4 of 4"), "{well:?}");
        let (router, narrow) = (
            lab.host("router-2").unwrap(),
            lab.host("web-far-1").unwrap(),
        );
        let set = |mtu: &str| {
            let words = ["ip", "link", "set", "dev", narrow.router_port(), "mtu", mtu];
            router.run(&words).unwrap();
        };
        set("1400");
        let check = found();
        assert_eq!(check.status, Status::Fail, "{check:?}");
        assert!(
            check
                .found
                .starts_with("web-far-1 answers 100 bytes and not "),
            "{check:?}"
        );
        let status = instance.status().unwrap();
        for backend in status.pointer("/agent/health").unwrap().as_array().unwrap() {
            assert_eq!(backend["state"], "up", "its check sees nothing: {backend}");
        }
        // What it says to do, either of it, is enough.
        let less = services.replace("table_size", "mtu = 1400\ntable_size");
        instance.commit(&less).unwrap();
        assert_eq!(found().status, Status::Ok, "{:?}", found());
        instance.commit(&services).unwrap();
        assert_eq!(found().status, Status::Fail, "{:?}", found());
        set("1600");
        assert_eq!(found().status, Status::Ok, "{:?}", found());
    }
}
