//! What is kept: a pool that fails as a whole, and what was known before a restart or a change.

use lb_userspace::lab::{HttpOptions, Lab, until};
use nix::sys::signal::Signal;

use crate::scene::{HTTP, SOON, Scene};

#[test]
fn when_too_many_fail_all_are_kept_and_it_is_told_loudly() {
    let mut scene = Scene::new(Lab::builder().backends("web", 3), HTTP);
    for name in ["web-1", "web-2", "web-3"] {
        scene.wait_for(name, "up");
    }
    for name in ["web-1", "web-2", "web-3"] {
        scene.lab.stop_web(name);
    }
    let told = scene.alert("panic", "shop-web");
    assert!(told.contains("fail open"), "{told}");
    for name in ["web-1", "web-2", "web-3"] {
        scene.wait_for(name, "down");
        assert_eq!(
            scene.kernel_state(name).unwrap(),
            "up",
            "{name} gets flows all the same"
        );
    }
    let text = scene.instance.expect(&["status"], 0).unwrap();
    assert!(text.contains("PANIC"), "{text}");
    assert!(text.contains("gets flows (fail open)"), "{text}");
    let words = ["history", "--records", "-n", "0", "--json"];
    let records = scene.instance.expect(&words, 0).unwrap();
    assert!(records.contains("PANIC"), "{records}");

    // Two are back: the third may be out, and is.
    scene.lab.start_web(&scene.host("web-1")).unwrap();
    scene.lab.start_web(&scene.host("web-2")).unwrap();
    scene.wait_for("web-1", "up");
    scene.wait_for("web-2", "up");
    until("the third is out", SOON, || {
        (scene.kernel_state("web-3")? == "down").then_some(())
    })
    .unwrap();
    until("calm", SOON, || {
        scene
            .find_alert("panic", "shop-web")
            .is_none()
            .then_some(())
    })
    .unwrap();
    let options = HttpOptions::default();
    let requests = scene
        .lab
        .client()
        .http_loop(Scene::target(80), &options)
        .unwrap();
    requests.wait(100, SOON).unwrap();
    assert_eq!(requests.failed(), 0);
}

#[test]
fn what_is_known_outlives_changes_and_the_agent() {
    let mut scene = Scene::new(Lab::builder().backends("web", 3), HTTP);
    scene.wait_for("web-1", "up");
    scene.lab.stop_web("web-1");
    scene.wait_for("web-1", "down");
    let options = HttpOptions {
        rate: 100,
        ..HttpOptions::default()
    };
    let requests = scene
        .lab
        .client()
        .http_loop(Scene::target(80), &options)
        .unwrap();
    requests.wait(50, SOON).unwrap();
    requests.take();
    // A change of something else, one of the check itself, and agents that come and go: at no time a
    // request goes where nobody answers.
    let changed = format!("{HTTP}\nmin_backends = 2");
    scene.commit(&changed);
    scene.commit(&HTTP.replace("fall = 2", "fall = 3"));
    scene.instance.stop_agent(Signal::SIGKILL).unwrap();
    assert_eq!(scene.kernel_state("web-1").unwrap(), "down");
    scene.instance.start_agent().unwrap();
    let line = scene.wait_for("web-1", "down");
    assert_eq!(line["held"], true, "{line}");
    scene.alert("health", "shop-web/web-1");
    requests.wait(100, SOON).unwrap();
    assert_eq!(requests.failed(), 0);
    assert_eq!(scene.kernel_state("web-1").unwrap(), "down");
    // The next agent's checks bring it back.
    scene.lab.start_web(&scene.host("web-1")).unwrap();
    scene.wait_for("web-1", "up");
    // And a pool that is not checked any more holds nobody back.
    scene.lab.stop_web("web-1");
    scene.wait_for("web-1", "down");
    scene.commit("");
    until("nobody is held", SOON, || {
        (scene.kernel_state("web-1")? == "up").then_some(())
    })
    .unwrap();
    until("nothing is said of it", SOON, || {
        scene
            .find_alert("health", "shop-web/web-1")
            .is_none()
            .then_some(())
    })
    .unwrap();
}

/// disabled > drain > health: health neither brings a drained backend back nor is forgotten by it.
#[test]
fn a_drain_goes_before_health() {
    let mut scene = Scene::new(Lab::builder().backends("web", 3), HTTP);
    scene.wait_for("web-1", "up");
    scene
        .instance
        .expect(&["drain", "web-1", "-m", "CHG-1"], 0)
        .unwrap();
    scene.lab.stop_web("web-1");
    scene.wait_for("web-1", "down");
    until("its flows go elsewhere", SOON, || {
        (scene.kernel_state("web-1")? == "down").then_some(())
    })
    .unwrap();
    scene.lab.start_web(&scene.host("web-1")).unwrap();
    scene.wait_for("web-1", "up");
    until("it drains on", SOON, || {
        (scene.kernel_state("web-1")? == "drain").then_some(())
    })
    .unwrap();
    scene.instance.expect(&["undrain", "web-1"], 0).unwrap();
    assert_eq!(scene.kernel_state("web-1").unwrap(), "up");
}
