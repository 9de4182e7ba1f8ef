//! A backend that dies is out at once, and comes back slowly.

use std::time::{Duration, Instant};

use lb_userspace::lab::{HttpOptions, Lab, Outcome, until};

use crate::scene::{HTTP, SOON, Scene};

/// Interval times `fall` of [`HTTP`], and the 100 ms that a decided death may take.
const IN_TIME: Duration = Duration::from_millis(2 * 300 + 100);
/// Deaths that are tried: a machine with other things to do may be late for some.
const DEATHS: usize = 5;

/// Milliseconds from the deciding check to the kernel, as an alert tells them.
fn decided(text: &str) -> f64 {
    let (_, after) = text.split_once("out of the table ").unwrap();
    after.split_once(" ms").unwrap().0.parse().unwrap()
}

#[test]
fn a_dead_backend_is_out_in_time_and_no_request_fails_after() {
    let mut scene = Scene::new(Lab::builder().backends("web", 3), HTTP);
    scene.wait_for("web-1", "up");
    let host = scene.host("web-1");
    let options = HttpOptions {
        rate: 200,
        ..HttpOptions::default()
    };
    let requests = scene
        .lab
        .client()
        .http_loop(Scene::target(80), &options)
        .unwrap();
    requests.wait(200, SOON).unwrap();
    assert_eq!(requests.failed(), 0);
    let (mut quickest, mut soonest) = (Duration::MAX, f64::MAX);
    for _ in 0..DEATHS {
        requests.take();
        let died = Instant::now();
        scene.lab.stop_web("web-1");
        let told = scene.alert("health", "shop-web/web-1");
        assert!(told.contains("refused"), "{told}");
        assert_eq!(scene.kernel_state("web-1").unwrap(), "down");
        soonest = soonest.min(decided(&told));
        let failed =
            |request: &&lb_userspace::lab::Request| matches!(request.outcome, Outcome::Failed(_));
        let last = requests.take();
        let last = last.iter().filter(failed).map(|request| request.at).max();
        let last = last.expect("a third of the requests met it");
        quickest = quickest.min(last.saturating_duration_since(died));
        requests.wait(200, SOON).unwrap();
        assert_eq!(requests.failed(), 0, "after it is out");
        scene.lab.start_web(&host).unwrap();
        scene.wait_for("web-1", "up");
        until("it is in again", SOON, || {
            (scene.kernel_state("web-1")? == "up").then_some(())
        })
        .unwrap();
        assert!(scene.find_alert("health", "shop-web/web-1").is_none());
    }
    assert!(
        quickest <= IN_TIME,
        "the last request to fail began {quickest:?} after the death"
    );
    assert!(
        soonest < 100.0,
        "{soonest} ms from the deciding check to the kernel"
    );
    let words = ["history", "--records", "-n", "0", "--json"];
    let records = scene.instance.expect(&words, 0).unwrap();
    assert!(
        records.contains("backend web-1 of pool shop-web is down"),
        "{records}"
    );
    assert!(
        records.contains("backend web-1 of pool shop-web is back"),
        "{records}"
    );
}

#[test]
fn who_comes_back_gets_its_share_slowly() {
    let line = format!("{HTTP}\nslow_start = \"12s\"");
    let mut scene = Scene::new(Lab::builder().backends("web", 2), &line);
    let host = scene.host("web-1");
    scene.wait_for("web-1", "up");
    scene.lab.stop_web("web-1");
    scene.wait_for("web-1", "down");
    scene.lab.start_web(&host).unwrap();
    let mut seen: Vec<u64> = Vec::new();
    let mut early = None;
    until("it has its whole share", SOON, || {
        let line = scene.health("web-1").filter(|line| line["state"] == "up")?;
        let admitted = line["admitted"].as_u64()?;
        if early.is_none() {
            let options = HttpOptions {
                rate: 400,
                ..HttpOptions::default()
            };
            let requests = scene
                .lab
                .client()
                .http_loop(Scene::target(80), &options)
                .ok()?;
            requests.wait(400, SOON).ok()?;
            let after = scene.health("web-1")?["admitted"].as_u64()?;
            early = Some((requests.backends(), requests.failed(), after));
        }
        seen.push(admitted);
        (admitted == 100).then_some(())
    })
    .unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.len() >= 3 && seen[0] < 100, "{seen:?}");
    let (backends, failed, admitted) = early.unwrap();
    assert_eq!(failed, 0);
    // It had no more than `admitted` of its half. By luck alone it is never 10 points above that.
    let own = backends.get("web-1").copied().unwrap_or_default() * 100;
    let all = backends.values().sum::<usize>();
    let most = usize::try_from(admitted).unwrap() / 2 + 10;
    assert!(
        own <= all * most,
        "{backends:?} with {admitted} %: {seen:?}"
    );
    assert!(scene.find_alert("health", "shop-web/web-1").is_none());
}
