//! The outage that all this exists for, again and again: a change sends traffic to the wrong place.
//! Checks before traffic are passed over.

use std::time::Duration;

use lb_tests::services;

use crate::scene::{Applied, SOON, Scene, Seen, runs, seen};

/// What one run showed.
struct Run {
    applied: Applied,
    /// From the trial's beginning to its end, as the journal has it.
    exposed: Duration,
    seen: Seen,
}

impl Run {
    /// By the agent's judgement or by the kernel's, whichever came first; the latter latches.
    fn expect_put_back(&self, scene: &Scene) {
        let (code, cause) = (self.applied.code, self.applied.cause());
        let told = self.applied.text();
        assert!(
            code == 4 && ["verdict", "breaker"].contains(&cause),
            "{told}"
        );
        if cause == "breaker" {
            scene.instance.expect(&["ack"], 0).unwrap();
        }
    }
}

/// One wrong change under 100 new flows a second.
fn replay(scene: &Scene, path: &str) -> Run {
    let requests = scene.requests(100, path);
    let wrong =
        services::shop(&scene.of("mail")).replace("service = \"mail\"", "service = \"web\"");
    let applied = scene.apply(&wrong, &["--force-unsafe", "--canary", "10"]);
    let ended = requests.ended();
    // What was under way when it ended.
    requests.wait(ended + 400, SOON).unwrap();
    let seen = seen(&requests, applied.began);
    let generation = applied.end()["generation"].as_u64().unwrap();
    Run {
        exposed: exposed(scene, generation),
        applied,
        seen,
    }
}

fn exposed(scene: &Scene, generation: u64) -> Duration {
    let journal = scene.lab.root().join("var/lib/lbguard/journal.jsonl");
    let journal = std::fs::read_to_string(journal).unwrap();
    let times = |kind: &str| {
        journal
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|record| record["generation"] == generation && record["kind"] == kind)
            .map(|record| record["boot_ns"].as_u64().unwrap())
            .next()
            .unwrap_or_else(|| panic!("no {kind} of {generation}: {journal}"))
    };
    Duration::from_nanos(times("reverted") - times("trial"))
}

#[test]
fn a_black_hole_is_put_back_and_no_connection_fails() {
    let scene = Scene::new("");
    for host in scene.of("mail") {
        host.run(&["ip", "addr", "del", "203.0.113.10/32", "dev", "lo"])
            .unwrap();
    }
    for _ in 0..runs() {
        let run = replay(&scene, "/1k");
        run.expect_put_back(&scene);
        println!(
            "black hole: {:?} {:?} {}",
            run.exposed,
            run.seen,
            run.applied.finding()
        );
        assert!(run.exposed < Duration::from_secs(4), "{:?}", run.exposed);
        assert_eq!((run.seen.failed, run.seen.wrong), (0, 0), "{:?}", run.seen);
        assert!(run.seen.slowest < Duration::from_secs(3), "{:?}", run.seen);
    }
}

#[test]
fn a_pool_that_refuses_is_put_back() {
    let mut scene = Scene::new("");
    for name in ["mail-1", "mail-2"] {
        scene.lab.stop_web(name);
    }
    for _ in 0..runs() {
        let run = replay(&scene, "/1k");
        run.expect_put_back(&scene);
        println!(
            "refused: {:?} {:?} {}",
            run.exposed,
            run.seen,
            run.applied.finding()
        );
        assert!(run.exposed < Duration::from_secs(4), "{:?}", run.exposed);
        assert!(run.seen.failed <= 30, "{:?}", run.seen);
    }
}

#[test]
fn another_services_pool_that_answers_is_put_back() {
    let scene = Scene::new("");
    for host in scene.of("mail") {
        std::fs::remove_file(host.directory().join("64k")).unwrap();
    }
    for _ in 0..runs() {
        let run = replay(&scene, "/64k");
        run.expect_put_back(&scene);
        println!(
            "answers: {:?} {:?} {}",
            run.exposed,
            run.seen,
            run.applied.finding()
        );
        assert!(run.exposed < Duration::from_secs(6), "{:?}", run.exposed);
        assert!(run.seen.wrong <= 60, "{:?}", run.seen);
    }
}
