//! Changes that do no harm.

use lb_tests::services;

use crate::scene::{Scene, runs, seen};

/// Each takes servers out or in, so that flows move, and none may fail.
#[test]
fn good_changes_commit_by_their_evidence() {
    let scene = Scene::new("");
    let requests = scene.requests(100, "/1k");
    for run in 0..runs() {
        let mut hosts = scene.of("web");
        if run % 2 == 0 {
            hosts.truncate(1);
        }
        let applied = scene.apply(
            &services::shop(&hosts),
            &["--force-unsafe", "--confirm", "auto"],
        );
        assert_eq!(applied.code, 0, "{}", applied.text());
        println!("good: {:?}", applied.began.elapsed());
        let seen = seen(&requests, applied.began);
        assert_eq!((seen.failed, seen.wrong), (0, 0), "{seen:?}");
    }
}
