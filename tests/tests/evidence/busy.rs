//! More new flows than a trial follows: a fair sample decides.

use serde_json::Value;

use lb_tests::services;
use lb_userspace::lab::{Lab, VIP_V4};

use crate::applied::Applied;
use crate::run::saw;
use crate::scene::{Scene, Setup, WEB};

/// A third of the 300 a second there are.
const FOLLOW: &str = "follow = 100";
const RATE: u32 = 300;

/// Flows of both arms that were passed over, by step: the most that an event told.
fn passed_over(applied: &Applied) -> Vec<[u64; 2]> {
    let mut steps = Vec::new();
    for event in applied.events.iter().filter(|e| e["event"] == "evidence") {
        let step = usize::try_from(event["step"].as_u64().unwrap()).unwrap();
        if steps.len() < step {
            steps.resize(step, [0, 0]);
        }
        let vips = event["vips"].as_array().unwrap();
        let sum = |key: &str| {
            vips.iter()
                .filter_map(|vip: &Value| vip[key].as_u64())
                .sum()
        };
        steps[step - 1] = [sum("control_passed_over"), sum("new_passed_over")];
    }
    steps
}

#[test]
fn a_good_change_commits_by_a_sample_and_its_share_is_the_true_one() {
    let scene = Scene::with(Setup {
        builder: Lab::builder().backends("web", 3),
        evidence: FOLLOW,
        first: |scene| services::shop(&scene.hosts(&["web-1", "web-2"])),
        ..Setup::default()
    });
    let requests = scene.ask(VIP_V4.into(), RATE, WEB, 0);
    let next = services::shop(&scene.of("web"));
    let applied = scene.apply(&next, &["--confirm", "auto"]);
    assert_eq!(applied.code, 0, "{}", applied.text());
    let seen = saw(&[&requests], applied.began);
    assert_eq!(seen.hurt(), 0, "{seen:?}");
    let steps = passed_over(&applied);
    println!("busy: passed over by step, control and new: {steps:?}");
    let [first, .., last] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    // In the first step they are all control's, in the last nine of ten are not.
    assert!(first[0] > 0 && first[1] == 0, "{steps:?}");
    assert!(last[1] > last[0], "{steps:?}");
}
