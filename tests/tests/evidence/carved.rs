//! A port that is carved out of a port-0 VIP: a new VIP by name, whose flows have an old home to be
//! compared with.

use lb_tests::services;
use lb_userspace::lab::{Host, VIP_V4};

use crate::run::{UNCHECKED, run, saw};
use crate::scene::{Scene, WEB};

/// All ports to the shop's hosts, but port 80 to these.
fn carved(scene: &Scene, hosts: &[&Host]) -> String {
    let pool = services::Pool {
        name: "shop-80",
        service: "web",
        forward: "ipip",
        v6: false,
    };
    format!(
        "{}{}{}",
        services::shop(&scene.of("web")),
        services::vip("shop-http", "web", VIP_V4.into(), 80, "tcp", pool.name),
        services::pool(pool, hosts)
    )
}

#[test]
fn a_port_carved_out_into_the_wrong_pool_is_put_back_and_into_a_good_one_is_proven_by_traffic() {
    let scene = Scene::new("");
    // Another service's hosts, which do not serve this path.
    for host in scene.of("mail") {
        std::fs::remove_file(host.directory().join("64k")).unwrap();
    }
    let requests = scene.requests(100, "/64k");
    let wrong = run(&scene, &[&requests], &carved(&scene, &scene.of("mail")));
    assert!(wrong.applied.is_put_back(), "{}", wrong.applied.text());
    assert!(wrong.seen.hurt() <= 60, "{wrong:?}");

    drop(requests);
    let requests = scene.requests(100, WEB);
    let good = carved(&scene, &scene.of("web"));
    let applied = scene.apply(
        &good,
        &["--confirm", "auto", "--canary", "50", UNCHECKED[0]],
    );
    assert_eq!(applied.code, 0, "{}", applied.text());
    let record = scene.recorded(applied.generation(), "committed").unwrap();
    assert_eq!(record["body"]["proven"], true, "{record}");
    assert_eq!(saw(&[&requests], applied.began).hurt(), 0);
}
