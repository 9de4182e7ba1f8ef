//! What a check of a backend's own address does not find: the way of the clients' packets is broken.

use lb_userspace::lab::{Lab, VIP_V4};

use crate::scene::{HTTP, Scene};

#[test]
fn a_backend_without_the_vip_without_decap_or_with_a_short_mtu_fails_its_check() {
    let builder = Lab::builder().backends("web", 6).far_backends("web", 1);
    let mut scene = Scene::new(builder, HTTP);
    for name in ["web-1", "web-2", "web-far-1"] {
        scene.wait_for(name, "up");
    }
    let vip = format!("{VIP_V4}/32");
    let missing = scene.host("web-1");
    missing
        .run(&["ip", "addr", "del", &vip, "dev", "lo"])
        .unwrap();
    let plain = scene.host("web-2");
    scene.lab.stop_decap(&plain);
    // A switch on the way that takes no more than 1400 bytes, and nobody tells the sender.
    let router = scene.host("router-2");
    let narrow = scene.host("web-far-1");
    router
        .run(&[
            "ip",
            "link",
            "set",
            "dev",
            narrow.router_port(),
            "mtu",
            "1400",
        ])
        .unwrap();
    for name in ["web-1", "web-2", "web-far-1"] {
        let line = scene.wait_for(name, "down");
        assert!(scene.answers_at_its_address(name), "{name}: {line}");
    }
    let why = |name: &str| {
        scene.health(name).unwrap()["trouble"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(
        why("web-far-1").contains("takes no packet of that size"),
        "{}",
        why("web-far-1")
    );
    for name in ["web-3", "web-4", "web-5", "web-6"] {
        assert_eq!(scene.health(name).unwrap()["state"], "up", "{name}");
    }
    assert_eq!(scene.kernel_state("web-1").unwrap(), "down");
    assert_eq!(scene.kernel_state("web-far-1").unwrap(), "down");

    // Mended, they come back.
    missing
        .run(&["ip", "addr", "add", &vip, "dev", "lo"])
        .unwrap();
    router
        .run(&[
            "ip",
            "link",
            "set",
            "dev",
            narrow.router_port(),
            "mtu",
            "1600",
        ])
        .unwrap();
    scene.wait_for("web-1", "up");
    scene.wait_for("web-far-1", "up");
}

/// The host's own routes say that the VIPs are unreachable, as a BGP daemon's may: checks go all the same.
#[test]
fn the_hosts_own_routes_to_the_vips_do_not_matter() {
    let lab = Lab::builder().backends("web", 2);
    let mut scene = Scene::new(lab, HTTP);
    scene.wait_for("web-1", "up");
    let balancer = scene.lab.balancer().clone();
    balancer
        .run(&["ip", "route", "add", "unreachable", "203.0.113.0/24"])
        .unwrap();
    scene.lab.stop_web("web-1");
    scene.wait_for("web-1", "down");
    scene.lab.start_web(&scene.host("web-1")).unwrap();
    scene.wait_for("web-1", "up");
    // Off the host again, nothing of it is left.
    scene
        .instance
        .stop_agent(nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    scene.instance.expect(&["unload", "--yes"], 0).unwrap();
    let rules = balancer.text(&["ip", "rule"]).unwrap();
    assert!(!rules.contains("fwmark"), "{rules}");
    let neighbours = balancer
        .text(&["ip", "neigh", "show", "nud", "permanent"])
        .unwrap();
    assert!(!neighbours.contains("02:6c:62:67:64:01"), "{neighbours}");
}

#[test]
fn checks_that_cannot_be_sent_prove_nothing_and_are_told() {
    let scene = Scene::new(Lab::builder().backends("web", 2), HTTP);
    scene.wait_for("web-1", "up");
    let balancer = scene.lab.balancer();
    balancer
        .run(&["ip", "route", "flush", "table", "27744"])
        .unwrap();
    balancer.run(&["ip", "route", "del", "default"]).unwrap();
    let told = scene.alert("health-unsent", "shop-web");
    assert!(told.contains("cannot be checked"), "{told}");
    assert_eq!(scene.health("web-1").unwrap()["state"], "up");
    assert_eq!(scene.kernel_state("web-1").unwrap(), "up");
}
