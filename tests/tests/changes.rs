//! Changes under real, open connections; and files that must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{ConnectionOptions, Host, Instance, Lab, VIP_V4};

const SOON: Duration = Duration::from_secs(30);
const LINES: u16 = 7000;

/// Connections that live through all of it.
const CONNECTIONS: usize = 1_000;
/// Changes committed, and as many put back.
const CHANGES: usize = 20;

fn started(lab: &Lab) -> Instance {
    let mut instance = Instance::new(lab).unwrap();
    instance.start_agent().unwrap();
    instance
}

#[test]
fn no_connection_breaks_whose_backend_is_in_both_configurations() {
    let lab = Lab::builder().backends("web", 4).build().unwrap();
    let instance = started(&lab);
    let all: Vec<&Host> = lab.backends().collect();
    let (three, four) = (services::shop(&all[..3]), services::shop(&all));
    instance.commit(&three).unwrap();
    let servers: Vec<_> = all
        .iter()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect();
    let options = ConnectionOptions {
        count: CONNECTIONS,
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(5),
        ..ConnectionOptions::default()
    };
    let target = SocketAddr::new(VIP_V4.into(), LINES);
    let held = lab.client().connections(target, &options).unwrap();
    held.wait_established(SOON).unwrap();
    let spread = held.backends();
    assert_eq!(spread.len(), 3, "{spread:?}");

    for round in 0..CHANGES {
        let next = if round % 2 == 0 { &four } else { &three };
        instance.commit(next).unwrap();
        assert_eq!(
            held.breaks().len(),
            0,
            "commit {round}: {:?}",
            held.breaks().first()
        );
    }
    // A pool of one: two thirds of the flows would move, had they not been born before.
    let one = services::shop(&all[..1]);
    for round in 0..CHANGES {
        instance.try_out(&one, "60s").unwrap();
        assert!(instance.on_trial());
        instance.expect(&["revert"], 0).unwrap();
        assert_eq!(
            held.breaks().len(),
            0,
            "put back {round}: {:?}",
            held.breaks().first()
        );
    }
    held.wait_answers(2 * CONNECTIONS as u64, SOON).unwrap();
    assert_eq!(held.breaks().len(), 0);
    assert_eq!(held.established(), CONNECTIONS);
    assert_eq!(
        held.backends(),
        spread,
        "every connection is where it began"
    );
    drop(servers);
}

#[test]
fn bad_files_are_refused_and_change_nothing() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let instance = started(&lab);
    let all: Vec<&Host> = lab.backends().collect();
    let good = services::shop(&all);
    instance.commit(&good).unwrap();
    let noise: String = ('!'..='~').cycle().take(10 << 20).collect();
    // (what it is, the file, what the message must name)
    let cases = [
        ("empty", String::new(), "empty"),
        (
            "half a file",
            good[..good.len() / 2].to_owned(),
            "bad.toml:",
        ),
        (
            "unknown key",
            good.replace("forward =", "fordward ="),
            "fordward",
        ),
        (
            "duplicate VIP",
            format!(
                "{good}{}",
                &good[good.find("[[vip]]").unwrap()..good.find("[[pool]]").unwrap()]
            ),
            "shop-v4",
        ),
        (
            "unknown pool",
            good.replace("pool = \"shop-web\"", "pool = \"nowhere\""),
            "nowhere",
        ),
        (
            "weights of 0",
            good.replace("weight = 100", "weight = 0"),
            "shop-web",
        ),
        (
            "IPv6 VIP, IPv4 backends",
            good.replace("203.0.113.10", "2001:db8:cafe::10"),
            "shop-web",
        ),
        ("noise", noise, "bad.toml"),
    ];
    for (what, text, names) in cases {
        let file = instance.write("bad.toml", &text).unwrap();
        let file = file.to_string_lossy().into_owned();
        for words in [vec!["check", &file], vec!["apply", &file, "-m", what]] {
            let (code, told) = instance.run(&words).unwrap();
            assert_eq!(code, 3, "{what}: {words:?} exits {code}: {told}");
            assert!(told.contains(names), "{what}: {told}");
        }
    }
    assert_eq!(instance.active(), Some(1));
    assert!(!instance.on_trial());
}

#[test]
fn a_wrong_change_needs_force_and_only_gets_a_trial() {
    let lab = Lab::builder()
        .backends("shop", 2)
        .backends("pay", 1)
        .build()
        .unwrap();
    let instance = started(&lab);
    let shops: Vec<&Host> = lab
        .backends()
        .filter(|host| host.service() == "shop")
        .collect();
    let pays: Vec<&Host> = lab
        .backends()
        .filter(|host| host.service() == "pay")
        .collect();
    let configuration = |vip_pool: &str| {
        let pool = |name, service, hosts: &[&Host]| {
            services::pool(
                services::Pool {
                    name,
                    service,
                    forward: "ipip",
                    v6: false,
                },
                hosts,
            )
        };
        format!(
            "version = 1\n{}{}{}",
            services::vip("shop-v4", "shop", VIP_V4.into(), 80, "tcp", vip_pool),
            pool("shop-pool", "shop", &shops),
            pool("pay-pool", "pay", &pays)
        )
    };
    instance.commit(&configuration("shop-pool")).unwrap();
    let file = instance
        .write("wrong.toml", &configuration("pay-pool"))
        .unwrap();
    let file = file.to_string_lossy().into_owned();
    let told = instance.expect(&["apply", &file, "-m", "oops"], 3).unwrap();
    assert!(told.contains("LB013"), "{told}");
    assert!(!instance.on_trial());
    let words = [
        "apply",
        &file,
        "-m",
        "oops",
        "--force-unsafe",
        "--confirm-within",
        "1s",
    ];
    let told = instance.expect(&words, 4).unwrap();
    assert!(told.contains("class R3"), "{told}");
    assert_eq!(instance.active(), Some(1));
    let told = instance.expect(&["confirm"], 3).unwrap();
    assert!(told.contains("nothing is on trial"), "{told}");
    let told = instance
        .expect(&["apply", &file, "-m", "x", "--confirm", "auto"], 3)
        .unwrap();
    assert!(told.contains("evidence"), "{told}");
}
