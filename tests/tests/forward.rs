//! Real clients through the real program to real servers, in network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::resent::retransmissions;
use lb_tests::services;
use lb_userspace::lab::{Host, HttpOptions, Instance, Lab, Outcome, VIP_V4, VIP_V6, until};

const SOON: Duration = Duration::from_secs(20);

fn started(lab: &Lab) -> Instance {
    let mut instance = Instance::new(lab).unwrap();
    instance.start_agent().unwrap();
    instance
}

fn hosts(lab: &Lab) -> Vec<&Host> {
    lab.backends().collect()
}

/// HTTP over TCP and lines over UDP, both families, spread over every backend.
fn forwards_everything(forward: &str) {
    let lab = Lab::builder().backends("web", 3).build().unwrap();
    let instance = started(&lab);
    instance
        .commit(&services::everything(forward, &hosts(&lab)))
        .unwrap();
    for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
        let target = SocketAddr::new(vip, 80);
        let options = HttpOptions {
            rate: 300,
            ..HttpOptions::default()
        };
        let requests = lab.client().http_loop(target, &options).unwrap();
        requests.wait(300, SOON).unwrap();
        assert_eq!(requests.failed(), 0, "{forward} {vip}");
        assert_eq!(
            requests.backends().len(),
            3,
            "{forward} {vip}: {:?}",
            requests.backends()
        );
        let big = lab.client().http(target, "/1m").unwrap();
        assert!(
            matches!(
                big.outcome,
                Outcome::Ok {
                    bytes: 1_048_576,
                    ..
                }
            ),
            "{big:?}"
        );

        let port = 9000;
        let servers: Vec<_> = lab
            .backends()
            .map(|host| host.serve_datagrams(SocketAddr::new(vip, port)).unwrap())
            .collect();
        let answered = udp_answers(&lab, SocketAddr::new(vip, port));
        assert!(answered.len() >= 2, "{forward} {vip}: {answered:?}");
        drop(servers);
    }
}

/// Who answers datagrams from 40 ports.
fn udp_answers(lab: &Lab, target: SocketAddr) -> std::collections::BTreeSet<String> {
    lab.client()
        .in_ns(move || {
            let bind: IpAddr = if target.is_ipv4() {
                std::net::Ipv4Addr::UNSPECIFIED.into()
            } else {
                std::net::Ipv6Addr::UNSPECIFIED.into()
            };
            (0..40)
                .map(|_| {
                    let socket = std::net::UdpSocket::bind((bind, 0)).unwrap();
                    socket.set_read_timeout(Some(SOON)).unwrap();
                    socket.connect(target).unwrap();
                    socket.send(b"who\n").unwrap();
                    let mut buffer = [0; 256];
                    let length = socket.recv(&mut buffer).unwrap();
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    text.split_whitespace()
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                })
                .collect()
        })
        .unwrap()
}

#[test]
fn ipip_forwards_both_families_and_protocols() {
    forwards_everything("ipip");
}

#[test]
fn gue_forwards_both_families_and_protocols() {
    forwards_everything("gue");
}

#[test]
fn l2_forwards_both_families_and_protocols() {
    forwards_everything("l2");
}

#[test]
fn an_ipv4_vip_reaches_ipv6_backends() {
    let lab = Lab::builder()
        .backends("web", 2)
        .far_backends("web", 1)
        .build()
        .unwrap();
    let instance = started(&lab);
    let pool = services::Pool {
        name: "six",
        service: "web",
        forward: "ipip",
        v6: true,
    };
    let text = format!(
        "version = 1\n{}{}",
        services::vip("four", "web", VIP_V4.into(), 80, "tcp", "six"),
        services::pool(pool, &hosts(&lab))
    );
    instance.commit(&text).unwrap();
    let options = HttpOptions {
        rate: 200,
        ..HttpOptions::default()
    };
    let requests = lab
        .client()
        .http_loop(SocketAddr::new(VIP_V4.into(), 80), &options)
        .unwrap();
    requests.wait(200, SOON).unwrap();
    assert_eq!(requests.failed(), 0);
    assert_eq!(
        requests.backends().len(),
        3,
        "also the one behind another router"
    );
}

#[test]
fn ping_is_answered_for_vips_alone() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let instance = started(&lab);
    instance
        .commit(&services::everything("ipip", &hosts(&lab)))
        .unwrap();
    for vip in [VIP_V4.to_string(), VIP_V6.to_string()] {
        lab.client()
            .text(&["ping", "-c", "3", "-i", "0.2", "-W", "2", &vip])
            .unwrap();
    }
    let other = "203.0.113.77";
    assert!(
        lab.client()
            .text(&["ping", "-c", "1", "-W", "1", other])
            .is_err()
    );
}

#[test]
fn the_agent_may_stop_and_die_without_a_lost_packet() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    instance.commit(&services::shop(&hosts(&lab))).unwrap();
    let options = HttpOptions {
        rate: 200,
        ..HttpOptions::default()
    };
    let requests = lab
        .client()
        .http_loop(SocketAddr::new(VIP_V4.into(), 80), &options)
        .unwrap();
    requests.wait(50, SOON).unwrap();
    let resent = || -> u64 { lab.hosts().iter().map(retransmissions).sum() };
    let before = resent();
    for signal in [
        nix::sys::signal::Signal::SIGTERM,
        nix::sys::signal::Signal::SIGKILL,
    ] {
        instance.stop_agent(signal).unwrap();
        requests.wait(100, SOON).unwrap();
        assert!(instance.status().unwrap()["agent"].is_null());
        instance.start_agent().unwrap();
        requests.wait(100, SOON).unwrap();
    }
    assert_eq!(requests.failed(), 0, "{:?}", requests.requests().last());
    assert_eq!(
        resent() - before,
        0,
        "a lost packet would have been sent again"
    );
    assert_eq!(instance.active(), Some(1));
    let second = Instance::new(&lab).unwrap();
    let (code, text) = second.run(&["agent"]).unwrap();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another agent runs"), "{text}");
}

#[test]
fn an_unconfirmed_trial_is_put_back_by_the_kernel_with_the_agent_dead() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    let all = hosts(&lab);
    instance.commit(&services::shop(&all)).unwrap();
    instance.try_out(&services::shop(&all[..1]), "2s").unwrap();
    assert!(instance.on_trial());
    instance
        .stop_agent(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until("the deadline", SOON, || {
        (!instance.on_trial()).then_some(())
    })
    .unwrap();
    assert_eq!(instance.active(), Some(1));
    let end = instance.status().unwrap()["kernel"]["last_end"].clone();
    assert_eq!(end["cause"], "deadline", "{end}");
    instance.start_agent().unwrap();
    let history = instance.expect(&["history"], 0).unwrap();
    assert!(history.contains("nobody confirmed in time"), "{history}");
}

#[test]
fn revert_works_without_an_agent_and_apply_says_so() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    let all = hosts(&lab);
    instance.commit(&services::shop(&all)).unwrap();
    instance.commit(&services::shop(&all[..1])).unwrap();
    assert_eq!(instance.active(), Some(2));
    instance
        .stop_agent(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let text = instance.expect(&["revert"], 0).unwrap();
    assert!(text.contains("generation 1 forwards"), "{text}");
    assert_eq!(instance.active(), Some(1));
    let file = instance.write("next.toml", &services::shop(&all)).unwrap();
    let file = file.to_string_lossy().into_owned();
    let text = instance
        .expect(&["apply", &file, "-m", "no agent"], 6)
        .unwrap();
    assert!(text.contains("no agent answers"), "{text}");
    instance.start_agent().unwrap();
    let history = instance.expect(&["history"], 0).unwrap();
    assert!(history.contains("later put back"), "{history}");
}

#[test]
fn apply_goes_on_waiting_when_the_agent_dies() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = started(&lab);
    let all = hosts(&lab);
    instance.commit(&services::shop(&all)).unwrap();
    let file = instance
        .write("next.toml", &services::shop(&all[..1]))
        .unwrap();
    let file = file.to_string_lossy().into_owned();
    let mut apply = instance
        .spawn(&["apply", &file, "-m", "watched", "--confirm-within", "3s"])
        .unwrap();
    until("the trial", SOON, || instance.on_trial().then_some(())).unwrap();
    instance
        .stop_agent(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let end = apply.wait(SOON).unwrap();
    assert_eq!(end.code(), Some(4), "{}", apply.log());
    assert!(apply.log().contains("the agent is gone"), "{}", apply.log());
}
