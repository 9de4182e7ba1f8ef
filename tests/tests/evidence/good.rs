//! Changes that do no harm, by the usual steps: all of them commit by their evidence, and nobody notices.

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{ConnectionOptions, Connections, Host, Lab, Server, VIP_V4};

use crate::run::saw;
use crate::scene::{SOON, Scene, Setup, WEB};
use crate::soak::Length;
use crate::table::{at, tell};

/// Port of the connections that are open all the time.
const LINES: u16 = 7000;
const OPEN: usize = 100;

/// Two servers that serve, and one that comes in by the first change and has another weight after
/// every further one.
fn next(scene: &Scene, run: usize) -> String {
    let services = services::shop(&scene.of("web"));
    let weight = |weight: u32| format!("address = \"10.0.1.13\"\nweight = {weight}");
    services.replace(
        &weight(100),
        &weight(if run.is_multiple_of(2) { 100 } else { 200 }),
    )
}

fn servers(scene: &Scene) -> Vec<Server> {
    let hosts = scene.of("web");
    hosts
        .iter()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect()
}

fn open(client: &Host) -> Connections {
    let options = ConnectionOptions {
        count: OPEN,
        ..ConnectionOptions::default()
    };
    let vip = SocketAddr::new(VIP_V4.into(), LINES);
    let open = client.connections(vip, &options).unwrap();
    open.wait_established(SOON).unwrap();
    open
}

pub fn good_changes(length: Length) {
    let scene = Scene::with(Setup {
        builder: Lab::builder().backends("web", 3),
        first: |scene| services::shop(&scene.hosts(&["web-1", "web-2"])),
        ..Setup::default()
    });
    let _servers = servers(&scene);
    let old = open(scene.lab.client());
    let requests = scene.requests(100, WEB);
    let mut took = Vec::new();
    let (mut hurt, mut misses) = (0, Vec::new());
    let mut newer = None;
    let runs = length.runs(1, 20);
    for run in 0..runs {
        drop(requests.take());
        let applied = scene.apply(&next(&scene, run), &["--confirm", "auto"]);
        if applied.code == 0 {
            took.push(applied.began.elapsed());
        } else {
            misses.push(applied.text());
        }
        let seen = saw(&[&requests], applied.began);
        println!(
            "good: {} after {:?}, {seen:?}",
            applied.code,
            applied.began.elapsed()
        );
        hurt += seen.hurt();
        // Also such as have their server from the change.
        newer.get_or_insert_with(|| open(scene.lab.client()));
    }
    let breaks: Vec<_> = [Some(old), newer]
        .iter()
        .flatten()
        .flat_map(Connections::breaks)
        .collect();
    took.sort();
    let seconds = |span: Duration| format!("{:.1} s", span.as_secs_f64());
    tell(
        "good",
        &[
            "good changes",
            "committed",
            "took: median",
            "longest",
            "requests hurt",
            "open connections broken",
        ],
        &[
            runs.to_string(),
            took.len().to_string(),
            seconds(at(&took, 50)),
            seconds(at(&took, 100)),
            hurt.to_string(),
            breaks.len().to_string(),
        ],
    );
    assert!(misses.is_empty(), "{}", misses.join("\n"));
    assert_eq!((hurt, breaks.len()), (0, 0), "{breaks:?}");
}

#[test]
fn a_good_change_commits_by_its_evidence_and_breaks_nothing() {
    good_changes(Length::Short);
}
