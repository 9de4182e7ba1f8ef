//! Changes that do no harm.

use lb_tests::services;

use crate::scene::{Scene, runs, seen};

#[test]
fn a_good_change_commits_by_its_evidence() {
    let scene = Scene::new("canary=[50]\nbaking=90\n");
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
        for event in &applied.events { if event["event"] == "progress" { println!("{event}"); } }
        let vip = 0; let maps = lb_userspace::kernel::maps::Maps::open(&lb_tests::loaded::bpf_pins(&scene.lab)).unwrap();
        let node = maps.node().unwrap();
        println!("{:?}", maps.evidence(&node, vip).unwrap());
        println!("{}", scene.instance.agent().unwrap().log());
        println!("good: {:?} {}", applied.began.elapsed(), applied.text());
        assert_eq!(applied.code, 0, "{}", applied.text());
        let seen = seen(&requests, applied.began);
        assert_eq!((seen.failed, seen.wrong), (0, 0), "{seen:?}");
    }
}
