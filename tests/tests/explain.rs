//! `lbguard explain`: where it says that a flow goes is where real connections go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{Host, Instance, Lab, VIP_V4};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Type};

const SOON: Duration = Duration::from_secs(30);
const LINES: u16 = 7000;
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn explained(instance: &Instance, packet: &str) -> Value {
    let output = instance.expect(&["--json", "explain", packet], 0).unwrap();
    serde_json::from_str(output.lines().next().unwrap()).unwrap()
}

fn started(lab: &Lab, hosts: &[&Host]) -> Instance {
    let mut instance = Instance::new(lab).unwrap();
    instance.start_agent().unwrap();
    apply(&instance, &services::shop(hosts));
    instance
}

fn apply(instance: &Instance, services: &str) {
    let file = instance.write("next.toml", services).unwrap();
    let file = file.to_string_lossy().into_owned();
    let words = [
        "apply",
        &file,
        "-m",
        "lab",
        "--confirm",
        "manual",
        "--detach",
    ];
    instance.expect(&words, 0).unwrap();
    instance.expect(&["confirm"], 0).unwrap();
}

/// A connection from this port, and the name of the server that answers.
fn open(client: &Host, port: u16) -> (BufReader<TcpStream>, String) {
    let stream = client.in_ns(move || {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(CLIENT.into(), port).into())?;
        socket.connect_timeout(&SocketAddr::new(VIP_V4.into(), LINES).into(), SOON)?;
        Ok::<_, std::io::Error>(TcpStream::from(socket))
    });
    let mut stream = BufReader::new(stream.unwrap().unwrap());
    let name = answer(&mut stream);
    (stream, name)
}

/// The name of the server of an open connection.
fn answer(stream: &mut BufReader<TcpStream>) -> String {
    stream.get_mut().write_all(b"0\n").unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// Before and after a change that moves flows, the agent dead.
#[test]
fn a_flow_goes_where_it_is_said_to_go() {
    let lab = Lab::builder().backends("web", 3).build().unwrap();
    let hosts: Vec<&Host> = lab.backends().collect();
    let mut instance = started(&lab, &hosts[..2]);
    let _servers: Vec<_> = hosts
        .iter()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect();
    let of = |instance: &Instance, port| {
        explained(instance, &format!("tcp {CLIENT}:{port} {VIP_V4}:{LINES}"))
    };
    let first = 20_000..20_012;
    let mut lines: Vec<_> = first
        .map(|port| {
            let told = of(&instance, port);
            assert_eq!(told["remembered"], false, "{told}");
            let (stream, name) = open(lab.client(), port);
            assert_eq!(told["new_flow"][0]["backend"]["name"], *name, "{told}");
            assert_eq!(told["next_packet"]["backend"]["name"], *name, "{told}");
            (port, stream, name)
        })
        .collect();

    apply(&instance, &services::shop(&[hosts[0], hosts[2]]));
    instance.stop_agent(Signal::SIGKILL).unwrap();
    for (port, stream, name) in &mut lines {
        let told = of(&instance, *port);
        let there = *name == "web-1";
        assert_eq!(told["remembered"], there, "web-2 is gone: {told}");
        assert_eq!(told["new_flow"][1]["role"], "last good", "{told}");
        assert_eq!(told["new_flow"][1]["backend"]["name"], **name, "{told}");
        if there {
            assert_eq!(told["next_packet"]["backend"]["name"], "web-1", "{told}");
            assert_eq!(answer(stream), "web-1");
        }
    }
    for port in 21_000..21_012 {
        let told = of(&instance, port);
        let (_stream, name) = open(lab.client(), port);
        assert_eq!(told["new_flow"][0]["backend"]["name"], *name, "{told}");
    }
}

#[test]
fn what_is_no_vip_or_no_flow_is_said() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let hosts: Vec<&Host> = lab.backends().collect();
    let instance = started(&lab, &hosts);
    let words = ["explain", "tcp", "198.51.100.7:1", "203.0.113.99:80"];
    let text = instance.expect(&words, 0).unwrap();
    assert!(text.contains("pass, not-vip"), "{text}");
    let flow = format!("tcp 198.51.100.7:1 -> {VIP_V4}:80");
    let text = instance.expect(&["explain", &flow], 0).unwrap();
    assert!(text.contains("VIP shop-v4 -> web-1"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
    let refused = instance.expect(&["explain", "tcp", "nonsense"], 2).unwrap();
    assert!(refused.contains("lbguard explain tcp"), "{refused}");
}
