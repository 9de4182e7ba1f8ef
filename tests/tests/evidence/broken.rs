//! A lab in which every backend but the first two is broken in a way of its own.

use std::fmt::Write as _;

use lb_tests::services;
use lb_userspace::decap::{self, Options};
use lb_userspace::lab::{Host, Lab, VIP_V4, VIP_V6};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gate::Load;
use crate::scene::{Scene, Setup, both};

/// Where a change may send traffic.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A server that serves.
    Good,
    /// The other one.
    Good2,
    /// An address of the segment that nobody has.
    Nobody,
    /// A host that has nothing to do with it.
    Stranger,
    /// An address that the router has no route to.
    Nowhere,
    /// Behind the stranger, who routes nothing.
    BehindStranger,
    /// The host is there, the balancer has another MAC address for it.
    WrongMac,
    NoService,
    /// The system takes connections, the server does nothing with them.
    Hangs,
    NoVip,
    NoVipV6,
    NoDecap,
    /// Takes tunnels from other balancers alone.
    OtherSources,
    /// Full-size packets with an outer header are dropped on the way without a word.
    SmallMtu,
    /// Behind a router that says so.
    FarSmallMtu,
    /// Another service, which answers.
    OtherService,
}

impl Place {
    /// Name of the backend and its addresses.
    const fn backend(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Good => ("web-1", "10.0.1.11", "fd00:1::11"),
            Self::Good2 => ("web-2", "10.0.1.12", "fd00:1::12"),
            Self::Nobody => ("nobody", "10.0.1.200", "fd00:1::200"),
            Self::Stranger => ("other-1", "10.0.1.240", "fd00:1::240"),
            Self::Nowhere => ("nowhere", "10.9.9.9", "fd00:9::9"),
            Self::BehindStranger => ("behind", "10.0.3.5", "fd00:3::5"),
            Self::NoVip => ("web-3", "10.0.1.13", "fd00:1::13"),
            Self::NoService => ("web-4", "10.0.1.14", "fd00:1::14"),
            Self::NoDecap => ("web-5", "10.0.1.15", "fd00:1::15"),
            Self::OtherSources => ("web-6", "10.0.1.16", "fd00:1::16"),
            Self::SmallMtu => ("web-7", "10.0.1.17", "fd00:1::17"),
            Self::NoVipV6 => ("web-8", "10.0.1.18", "fd00:1::18"),
            Self::WrongMac => ("web-9", "10.0.1.19", "fd00:1::19"),
            Self::OtherService => ("mail-1", "10.0.1.21", "fd00:1::21"),
            Self::Hangs => ("web-10", "10.0.1.20", "fd00:1::20"),
            Self::FarSmallMtu => ("web-far-1", "10.0.2.11", "fd00:2::11"),
        }
    }
}

/// The services with these pools, IPv4 and IPv6; without a VIP where there is none.
pub fn places(pools: [Option<&[Place]>; 2]) -> String {
    let mut text = "version = 1\n".to_owned();
    let families = [("v4", VIP_V4.into()), ("v6", VIP_V6.into())];
    for (pool, (family, vip)) in pools.into_iter().zip(families) {
        let Some(pool) = pool else { continue };
        let name = if family == "v4" {
            "shop-web"
        } else {
            "shop-web6"
        };
        text += &services::vip(&format!("shop-{family}"), "web", vip, 0, "tcp", name);
        let empty = services::Pool {
            name,
            service: "web",
            forward: "ipip",
            v6: family == "v6",
        };
        text += &services::pool(empty, &[]);
        for place in pool {
            let (name, v4, v6) = place.backend();
            let address = if family == "v4" { v4 } else { v6 };
            let _ = writeln!(
                text,
                "[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = 100"
            );
        }
    }
    text
}

/// The lab; committed are the good ones.
pub fn broken_lab() -> Scene {
    let mut scene = Scene::with(Setup {
        load: Load::Light,
        builder: Lab::builder()
            .backends("web", 10)
            .backends("mail", 1)
            .far_backends("web", 1)
            .others(1),
        first: |scene| {
            let good = scene.hosts(&["web-1", "web-2"]);
            both(&good, &good)
        },
        ..Setup::default()
    });
    break_hosts(&mut scene);
    break_paths(&scene);
    scene
}

fn ip(host: &Host, words: &str) {
    let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
    host.run(&words).unwrap();
}

fn host(scene: &Scene, place: Place) -> Host {
    let (name, v4, v6) = place.backend();
    let host = scene.lab.host(name).unwrap();
    let own = (host.v4().to_string(), host.v6().to_string());
    assert_eq!((own.0.as_str(), own.1.as_str()), (v4, v6));
    host.clone()
}

fn break_hosts(scene: &mut Scene) {
    ip(
        &host(scene, Place::NoVip),
        "addr del 203.0.113.10/32 dev lo",
    );
    ip(
        &host(scene, Place::NoVip),
        "addr del 2001:db8:cafe::10/128 dev lo",
    );
    ip(
        &host(scene, Place::NoVipV6),
        "addr del 2001:db8:cafe::10/128 dev lo",
    );
    scene.lab.stop_web(host(scene, Place::NoService).name());
    let (none, others) = (
        host(scene, Place::NoDecap),
        host(scene, Place::OtherSources),
    );
    scene.lab.stop_decap(&none);
    scene.lab.stop_decap(&others);
    let options = Options {
        sources: vec!["192.0.2.0/24".parse().unwrap()],
        ..Options::default()
    };
    let attach = || decap::run(others.interface(), &options, &scene.lab.bpffs());
    others.in_ns(attach).unwrap().unwrap();
    let hangs = host(scene, Place::Hangs);
    let pid = std::fs::read_to_string(hangs.directory().join("nginx.pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let other = host(scene, Place::OtherService);
    std::fs::remove_file(other.directory().join("64k")).unwrap();
}

fn break_paths(scene: &Scene) {
    let small = host(scene, Place::SmallMtu);
    let port = small.router_port();
    ip(scene.lab.router(), &format!("link set dev {port} mtu 1500"));
    let router = scene.lab.host("router-2").unwrap();
    ip(router, "link set dev br0 mtu 1500");
    let balancer = scene.lab.balancer();
    let (_, v4, v6) = Place::WrongMac.backend();
    for address in [v4, v6] {
        ip(
            balancer,
            &format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev lb0 nud permanent"),
        );
    }
    let (_, stranger, stranger6) = Place::Stranger.backend();
    ip(balancer, &format!("route add 10.0.3.0/24 via {stranger}"));
    ip(balancer, &format!("route add fd00:3::/64 via {stranger6}"));
}
