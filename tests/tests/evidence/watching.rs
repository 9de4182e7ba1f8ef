//! Between changes: people are told what is odd, and nothing is done about it.

use std::time::{Duration, Instant};

use lb_tests::services;
use lb_userspace::lab::{Host, HttpLoop, Lab, until};
use serde_json::Value;

use crate::scene::{SOON, Scene, Setup};
use lb_tests::flood::flood;

/// Time after which what is normal is known: counters' bins have come round once.
const NORMAL: usize = 800;
const LONG: Duration = Duration::from_mins(1);
const VIP: [&str; 5] = ["addr", "del", "203.0.113.10/32", "dev", "lo"];

/// Four servers, every flow watched, and 100 requests a second.
fn scene() -> (Scene, HttpLoop) {
    let scene = Scene::with(Setup {
        builder: Lab::builder().backends("web", 4),
        evidence: "watch = 1\n",
        first: |scene| services::shop(&scene.of("web")),
        ..Setup::default()
    });
    let requests = scene.requests(100, "/1k");
    requests.wait(requests.ended() + NORMAL, SOON).unwrap();
    assert_eq!(alerts(&scene), Vec::<Value>::new(), "all is well");
    (scene, requests)
}

fn alerts(scene: &Scene) -> Vec<Value> {
    let status = scene.instance.status().unwrap();
    status["agent"]["alerts"].as_array().unwrap().clone()
}

/// The alert, and how long it took.
fn told(scene: &Scene, alert: &str, about: &str) -> Value {
    let began = Instant::now();
    let found = until("the alert", LONG, || {
        let mut all = alerts(scene).into_iter();
        all.find(|known| known["alert"] == alert && known["about"] == about)
    });
    let found = found.unwrap_or_else(|error| panic!("{error}: {:?}", alerts(scene)));
    println!(
        "{alert} {about} after {:?}: {}",
        began.elapsed(),
        found["text"]
    );
    found
}

fn silence(host: &Host) {
    let mut words = vec!["ip"];
    words.extend(VIP);
    host.run(&words).unwrap();
}

/// Nothing was put back, taken out or tried.
fn untouched(scene: &Scene) {
    let status = scene.instance.status().unwrap();
    let kernel = &status["kernel"];
    assert_eq!(kernel["active"]["generation"], 1, "{status}");
    assert_eq!(kernel["trial"], Value::Null, "{status}");
    let backends = kernel["active"]["pools"][0]["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 4, "{status}");
    assert!(backends.iter().all(|b| b["state"] == "up"), "{status}");
}

#[test]
fn a_backend_that_stops_answering_is_named_and_nothing_is_done() {
    let (scene, requests) = scene();
    silence(scene.of("web")[1]);
    let alert = told(&scene, "backend", "shop-web/web-2");
    let text = alert["text"].as_str().unwrap();
    assert!(text.starts_with("backend web-2 of shop-web: "), "{text}");
    untouched(&scene);
    let others: Vec<_> = alerts(&scene)
        .into_iter()
        .filter(|known| known["alert"] == "backend" && known["about"] != "shop-web/web-2")
        .collect();
    assert_eq!(others, Vec::<Value>::new());
    let shown = scene.instance.expect(&["status"], 0).unwrap();
    assert!(shown.contains("\nalert       backend web-2"), "{shown}");
    let records = scene.instance.expect(&["history", "--records"], 0).unwrap();
    assert!(records.contains("alert by"), "{records}");
    drop(requests);
}

#[test]
fn handshakes_that_fail_everywhere_page_and_no_backend_is_blamed() {
    let (scene, _requests) = scene();
    for host in scene.of("web") {
        silence(host);
    }
    told(&scene, "handshakes", "shop-v4");
    untouched(&scene);
    std::thread::sleep(Duration::from_secs(3));
    let blamed = alerts(&scene)
        .into_iter()
        .filter(|known| known["alert"] == "backend");
    assert_eq!(blamed.count(), 0, "all are alike");
}

/// A flood's handshakes fail whatever backend they go to: people are told, with the rate beside what
/// is usual, and no backend is blamed for it.
#[test]
fn a_flood_of_syns_is_told_as_what_it_is_and_no_backend_is_blamed() {
    let (scene, requests) = scene();
    let seconds = Duration::from_secs(5);
    let client = scene.lab.client();
    let sent = flood(client, 500, seconds);
    let told = alerts(&scene);
    println!("{sent} SYNs: {told:?}");
    assert!(sent > 1_500, "{sent}");
    let text = told
        .iter()
        .find(|alert| alert["alert"] == "handshakes")
        .and_then(|alert| alert["text"].as_str());
    let text = text.unwrap_or_else(|| panic!("{told:?}"));
    assert!(text.contains(" are usual"), "{text}");
    assert!(
        told.iter().all(|alert| alert["alert"] != "backend"),
        "{told:?}"
    );
    untouched(&scene);
    drop(requests);
}

/// What S13 sees when another host answers for the VIP: nothing comes any more.
#[test]
fn a_vip_that_falls_silent_is_told() {
    let (scene, requests) = scene();
    drop(requests);
    let alert = told(&scene, "volume", "shop-v4");
    let text = alert["text"].as_str().unwrap();
    assert!(text.contains("does another host answer"), "{text}");
    untouched(&scene);
}
