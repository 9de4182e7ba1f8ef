//! S14: a new backend is asked before it gets traffic, by the way that its flows would take.

use lb_tests::services;
use lb_userspace::lab::{Host, Lab, VIP_V4};

use crate::scene::{HTTP, Scene};

const IDENTITY: &str = "identity = { header = \"x-service\", value = \"web\" }";

/// services.toml with these backends and checks.
fn shop(hosts: &[&Host]) -> String {
    let lines = format!("{HTTP}\n{IDENTITY}\ntable_size");
    services::shop(hosts).replace("table_size", &lines)
}

#[test]
fn a_new_backend_that_does_not_answer_as_its_clients_need_gets_no_traffic() {
    let builder = Lab::builder()
        .backends("web", 5)
        .backends("blog", 1)
        .far_backends("web", 1);
    let mut scene = Scene::new(builder, "");
    let host = |scene: &Scene, name: &str| scene.host(name);
    let good = [host(&scene, "web-1"), host(&scene, "web-2")];
    // Away with the others, in both generations that the kernel remembers: they are new from here on.
    let two = services::shop(&[&good[0], &good[1]]);
    scene.instance.commit(&two).unwrap();
    let gone = host(&scene, "web-3");
    let plain = host(&scene, "web-4");
    let strange = host(&scene, "blog-1");
    let narrow = host(&scene, "web-far-1");
    let vip = format!("{VIP_V4}/32");
    gone.run(&["ip", "addr", "del", &vip, "dev", "lo"]).unwrap();
    scene.lab.stop_decap(&plain);
    let port = narrow.router_port().to_owned();
    let router = host(&scene, "router-2");
    router
        .run(&["ip", "link", "set", "dev", &port, "mtu", "1400"])
        .unwrap();
    for (newcomer, said) in [
        (&gone, ""),
        (&plain, ""),
        (&narrow, "takes no packet of that size"),
        (&strange, "another service answered"),
    ] {
        assert!(newcomer.name() == "blog-1" || scene.answers_at_its_address(newcomer.name()));
        let text = shop(&[&good[0], &good[1], newcomer]);
        let file = scene.instance.write("next.toml", &text).unwrap();
        let file = file.to_string_lossy().into_owned();
        let words = ["apply", &file, "-m", "one more", "--detach"];
        let told = scene.instance.expect(&words, 3).unwrap();
        let told: String = told.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = newcomer.name();
        assert!(
            told.contains(&format!("new backend {name} of pool shop-web")),
            "{told}"
        );
        assert!(told.contains(said), "{told}");
        assert!(!scene.instance.on_trial());
    }
    assert_eq!(scene.instance.active(), Some(2));
    // One that answers is taken, and so is a dead one by force.
    let fifth = host(&scene, "web-5");
    let all = shop(&[&good[0], &good[1], &fifth]);
    scene.instance.commit(&all).unwrap();
    let forced = shop(&[&good[0], &good[1], &fifth, &gone]);
    let file = scene.instance.write("forced.toml", &forced).unwrap();
    let file = file.to_string_lossy().into_owned();
    let words = ["apply", &file, "-m", "forced", "--detach", "--force-unsafe"];
    scene.instance.expect(&words, 0).unwrap();
    scene.instance.expect(&["confirm"], 0).unwrap();
    scene.wait_for("web-3", "down");
}
