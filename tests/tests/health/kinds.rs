//! Each kind of check against a real server: it says "up" while that runs, and "down" when it is gone,
//! hangs or is another.

use std::net::SocketAddr;

use lb_userspace::lab::{Host, Lab, Process, VIP_V4};
use nix::sys::signal::Signal;

use crate::scene::{Scene, https, nginx};

const TIMES: &str = "interval = \"300ms\", timeout = \"250ms\", rise = 2, fall = 2";

fn scene(kind: &str, more: &str) -> Scene {
    let line = format!("health = {{ type = \"{kind}\", {more}, {TIMES} }}");
    Scene::known(Lab::builder().backends("web", 3), &line)
}

#[test]
fn tcp() {
    let mut scene = scene("tcp", "port = 80");
    scene.wait_for("web-1", "up");
    scene.lab.stop_web("web-1");
    let line = scene.wait_for("web-1", "down");
    assert!(
        line["trouble"].as_str().unwrap().contains("refused"),
        "{line}"
    );
}

/// A server that hangs, one that answers with an error, and one that is another service's.
#[test]
fn http() {
    let scene = scene("http", "port = 8080, path = \"/health\"");
    let serve = |host: &Host, code: &str| {
        nginx(
            host,
            "web",
            &format!("listen 8080;\nlocation / {{ return {code}; }}\n"),
        )
    };
    let host = scene.host("web-1");
    let mut server = serve(&host, "204");
    scene.wait_for("web-1", "up");
    let trouble = |state| {
        let line = scene.wait_for("web-1", state);
        line["trouble"].as_str().unwrap_or_default().to_owned()
    };
    server.signal(Signal::SIGSTOP).unwrap();
    let why = trouble("down");
    assert!(
        why.contains("no answer within 250ms") || why.contains("got no answer"),
        "{why}"
    );
    server.signal(Signal::SIGCONT).unwrap();
    scene.wait_for("web-1", "up");
    stop(&mut server);
    scene.wait_for("web-1", "down");
    server = serve(&host, "302 /elsewhere");
    scene.wait_for("web-1", "up");
    stop(&mut server);
    let _server = serve(&host, "503");
    let why = trouble("down");
    assert!(why.contains("503") || why.contains("refused"), "{why}");
}

fn stop(server: &mut Process) {
    server.signal(Signal::SIGKILL).unwrap();
    server.wait(crate::scene::SOON).unwrap();
}

#[test]
fn another_service_that_answers_fails_the_check() {
    let line = format!(
        "health = {{ type = \"http\", port = 80, {TIMES} }}\n\
         identity = {{ header = \"x-service\", value = \"web\" }}"
    );
    let builder = Lab::builder().backends("web", 3).backends("blog", 1);
    let scene = Scene::known(builder, &line);
    scene.wait_for("web-1", "up");
    let line = scene.wait_for("blog-1", "down");
    let why = line["trouble"].as_str().unwrap();
    assert!(
        why.contains("another service answered: x-service is \"blog\""),
        "{why}"
    );
}

#[test]
fn https_with_any_certificate_or_a_known_one() {
    let scene = scene("https", "port = 443");
    let hosts: Vec<Host> = scene.lab.backends().cloned().collect();
    let mut servers: Vec<Process> = hosts.iter().map(https).collect();
    scene.wait_for("web-1", "up");
    scene.wait_for("web-2", "up");
    // Of one authority only: its own certificate, which web-2 has not signed.
    let ca = hosts[0].directory().join("cert.pem");
    let known = format!(
        "health = {{ type = \"https\", port = 443, host = \"shop.example\", ca = \"{}\", {TIMES} }}",
        ca.display()
    );
    scene.commit(&known);
    let line = scene.wait_for("web-2", "down");
    assert!(line["trouble"].as_str().unwrap().contains("TLS"), "{line}");
    assert_eq!(scene.health("web-1").unwrap()["state"], "up");
    // A server that speaks something else.
    let plain = format!("health = {{ type = \"https\", port = 80, {TIMES} }}");
    scene.commit(&plain);
    let line = scene.wait_for("web-1", "down");
    assert!(line["trouble"].as_str().unwrap().contains("TLS"), "{line}");
    servers.clear();
}

#[test]
fn udp() {
    let scene = scene("udp", "port = 9000, send = \"ping\"");
    let own = SocketAddr::new(VIP_V4.into(), 9000);
    let server = scene.host("web-1").serve_datagrams(own).unwrap();
    scene.wait_for("web-1", "up");
    drop(server);
    let line = scene.wait_for("web-1", "down");
    assert!(line["trouble"].as_str().is_some(), "{line}");
    let _again = scene.host("web-1").serve_datagrams(own).unwrap();
    scene.wait_for("web-1", "up");
}

#[test]
fn dns() {
    let scene = scene("dns", "port = 53, name = \"shop.example.\"");
    let serve = |host: &Host| {
        let words = [
            "dnsmasq",
            "--no-daemon",
            "--no-hosts",
            "--no-resolv",
            "--conf-file=/dev/null",
            "--pid-file",
            "--user=root",
            "--address=/shop.example/203.0.113.10",
        ];
        host.spawn(&words).unwrap()
    };
    let mut server = serve(&scene.host("web-1"));
    scene.wait_for("web-1", "up");
    // Alive, but it hangs; then it is gone.
    server.signal(Signal::SIGSTOP).unwrap();
    let line = scene.wait_for("web-1", "down");
    assert!(
        line["trouble"].as_str().unwrap().contains("no answer"),
        "{line}"
    );
    server.signal(Signal::SIGCONT).unwrap();
    scene.wait_for("web-1", "up");
    stop(&mut server);
    scene.wait_for("web-1", "down");
}
