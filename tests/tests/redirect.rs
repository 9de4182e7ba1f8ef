//! A balancer with an interface in each of two networks: packets leave by the other one
//! (`XDP_REDIRECT`), in both directions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{Host, HttpOptions, Instance, Lab, Outcome, VIP_V4, VIP_V6, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Two backends and a client in each network; what the client in the far one sends to a VIP comes by
/// the second interface.
fn two_networks() -> (Lab, Instance) {
    let lab = Lab::builder()
        .backends("web", 2)
        .far_backends("web", 2)
        .far_backends("guest", 1)
        .second_interface()
        .build()
        .unwrap();
    let ip = |host: &str, words: &str| {
        let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
        lab.host(host).unwrap().run(&words).unwrap();
    };
    ip("guest-far-1", "addr del 203.0.113.10/32 dev lo");
    ip("guest-far-1", "addr del 2001:db8:cafe::10/128 dev lo");
    ip("router-2", "route add 203.0.113.0/24 via 10.0.2.2");
    ip("router-2", "route add 2001:db8:cafe::/64 via fd00:2::2");
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    (lab, instance)
}

fn servers(lab: &Lab) -> Vec<&Host> {
    lab.backends()
        .filter(|host| host.service() == "web")
        .collect()
}

/// Many small answers and a big one, over TCP; who answered.
fn asked(client: &Host, vip: IpAddr) -> Vec<String> {
    let target = SocketAddr::new(vip, 80);
    let options = HttpOptions {
        rate: 200,
        timeout: SOON,
        ..HttpOptions::default()
    };
    let requests = client.http_loop(target, &options).unwrap();
    requests.wait(200, SOON).unwrap();
    let who = format!("{} to {vip}", client.name());
    assert_eq!(requests.failed(), 0, "{who}: {:?}", requests.requests());
    for _ in 0..8 {
        let big = client.http(target, "/1m").unwrap();
        assert!(
            matches!(
                &big.outcome,
                Outcome::Ok {
                    bytes: 1_048_576,
                    ..
                }
            ),
            "{who}: {big:?}"
        );
    }
    requests.backends().into_keys().collect()
}

#[test]
fn packets_leave_by_the_interface_that_leads_to_their_backend() {
    let (lab, instance) = two_networks();
    let hosts = servers(&lab);
    for forward in ["ipip", "gue"] {
        instance
            .commit(&services::everything(forward, &hosts))
            .unwrap();
        for client in [lab.client(), lab.host("guest-far-1").unwrap()] {
            for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
                let answered = asked(client, vip);
                assert_eq!(answered, ["web-1", "web-2", "web-far-1", "web-far-2"]);
            }
        }
    }
}

/// A veth's other end that has neither a program nor GRO takes nothing from XDP, and whoever redirects
/// there is not told: those packets are dropped after they were forwarded.
#[test]
fn an_interface_that_takes_nothing_from_xdp_is_told() {
    let (mut lab, instance) = two_networks();
    let hosts = servers(&lab);
    instance
        .commit(&services::everything("ipip", &hosts))
        .unwrap();
    let doctor = || {
        let told = instance.output(&["doctor", "--json"]).unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let mut checks = told
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let check = checks.find(|check| check["id"] == "redirects");
        check.unwrap_or_else(|| panic!("{told}"))
    };
    let alert = || {
        let status = instance.status().unwrap();
        let alerts = status["agent"]["alerts"].as_array().unwrap();
        let about = alerts.iter().find(|alert| alert["alert"] == "redirect");
        about.cloned()
    };
    if doctor()["status"] == "skip" {
        println!("{}", doctor());
        return;
    }
    assert_eq!((doctor()["status"].as_str(), alert()), (Some("ok"), None));

    lab.stop_programs("router-2");
    let told = until("it is told", SOON, alert).unwrap();
    assert_eq!(told["about"], "lb1");
    let text = told["text"].as_str().unwrap();
    assert!(
        text.contains("web-far-1") && text.contains("gro on"),
        "{text}"
    );
    assert!(!text.contains("web-1"), "{text}");
    let check = doctor();
    assert_eq!(check["status"], "fail", "{check}");
    assert!(
        check["found"].as_str().unwrap().contains("lb1 takes none"),
        "{check}"
    );
    let target = SocketAddr::new(VIP_V4.into(), 80);
    let options = HttpOptions {
        rate: 100,
        timeout: Duration::from_secs(1),
        ..HttpOptions::default()
    };
    let requests = lab.client().http_loop(target, &options).unwrap();
    requests.wait(100, SOON).unwrap();
    drop(requests.take());
    requests.wait(100, SOON).unwrap();
    assert_eq!(
        requests.backends().into_keys().collect::<Vec<_>>(),
        ["web-1", "web-2"]
    );
    assert!(requests.failed() > 0, "it was no false alarm");
    drop(requests);

    // The way out that it names.
    let router = lab.host("router-2").unwrap();
    router
        .run(&["ethtool", "-K", "far-lb", "gro", "on"])
        .unwrap();
    until("it is over", SOON, || alert().is_none().then_some(())).unwrap();
    assert_eq!(doctor()["status"], "ok");
    let answered = asked(lab.client(), VIP_V4.into());
    assert_eq!(answered, ["web-1", "web-2", "web-far-1", "web-far-2"]);
}
