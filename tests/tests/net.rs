//! Next hops as the kernel tells them, in network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use lb_userspace::config::{Gateway, Mac};
use lb_userspace::lab::{BALANCER_V4, BALANCER_V6, Host, Lab, ROUTER_V4, ROUTER_V6};
use lb_userspace::net::{Changed, Resolution, Settings, Target, Unresolved, Via, Watcher};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
/// What "notices" means.
const AT_ONCE: Duration = Duration::from_secs(1);
const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

fn lab() -> Lab {
    let lab = Lab::builder().backends("web", 2).far_backends("web", 2);
    lab.without_web().without_decap().build().unwrap()
}

fn settings() -> Settings {
    Settings {
        interfaces: vec!["lb0".to_owned()],
        gateways: Vec::new(),
    }
}

fn to(address: impl Into<IpAddr>) -> Target {
    Target {
        address: address.into(),
        direct: false,
    }
}

/// Runs in a host's namespace.
fn inside<T: Send>(host: &Host, work: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    };
    host.in_ns(run).unwrap()
}

fn mac(host: &Host, interface: &str) -> [u8; 6] {
    // Not from sysfs, which shows the namespace that it was mounted in.
    let text = host.text(&["ip", "-o", "link", "show", interface]).unwrap();
    let mac = text.split("link/ether ").nth(1).unwrap();
    mac.split(' ').next().unwrap().parse::<Mac>().unwrap().0
}

async fn resolve(watcher: &Watcher, targets: &[Target]) -> BTreeMap<Target, Resolution> {
    watcher
        .resolve(targets.iter().copied().collect(), SOON)
        .await
        .unwrap()
}

async fn next(changes: &mut Receiver<Changed>) -> Changed {
    timeout(AT_ONCE, changes.recv())
        .await
        .expect("nothing was noticed")
        .unwrap()
}

#[test]
fn on_the_link_and_behind_gateways_in_both_families() {
    let lab = lab();
    let (web, far) = (lab.host("web-1").unwrap(), lab.host("web-far-1").unwrap());
    let router_2 = lab.host("router-2").unwrap();
    // A route of its own, with an MTU of its own.
    let far_v4 = format!("{}/32", far.v4());
    let via = router_2.v4().to_string();
    lab.balancer()
        .run(&["ip", "route", "add", &far_v4, "via", &via, "mtu", "1450"])
        .unwrap();
    let targets = [
        to(web.v4()),
        to(web.v6()),
        to(far.v4()),
        to(far.v6()),
        to([192, 0, 2, 1]),
    ];
    let found = inside(lab.balancer(), async {
        let (watcher, _changes) = Watcher::start(settings()).await.unwrap();
        resolve(&watcher, &targets).await
    });
    let found = targets.map(|target| found[&target].clone().unwrap());
    let ours = mac(lab.balancer(), "lb0");
    let (web_mac, router_mac) = (mac(web, "eth0"), mac(lab.router(), "br0"));
    let expected = [
        (web_mac, 1600, Via::OnLink(web.v4().into())),
        (web_mac, 1600, Via::OnLink(web.v6().into())),
        (
            mac(router_2, "eth0"),
            1450,
            Via::Gateway(router_2.v4().into()),
        ),
        (router_mac, 1500, Via::Gateway(ROUTER_V6.into())),
        (router_mac, 1500, Via::Gateway(ROUTER_V4.into())),
    ];
    for (hop, (mac, mtu, via)) in found.iter().zip(expected) {
        assert_eq!(
            (hop.mac, hop.mtu, hop.via, hop.source),
            (mac, mtu, via, ours)
        );
    }
    let kept = lab
        .balancer()
        .text(&["ip", "neigh", "show", &web.v4().to_string()])
        .unwrap();
    assert!(kept.contains("managed"), "{kept}");
}

#[test]
fn what_cannot_be_reached_is_said_plainly() {
    let lab = lab();
    let far = lab.host("web-far-1").unwrap();
    lab.balancer()
        .run(&["ip", "route", "add", "blackhole", "192.0.2.7/32"])
        .unwrap();
    lab.balancer()
        .run(&["ip", "route", "add", "unreachable", "2001:db8:dead::/64"])
        .unwrap();
    let nobody = to([10, 0, 1, 99]);
    let direct = Target {
        direct: true,
        ..to(far.v4())
    };
    let hole6: std::net::Ipv6Addr = "2001:db8:dead::1".parse().unwrap();
    let targets = [
        nobody,
        direct,
        to(BALANCER_V4),
        to([192, 0, 2, 7]),
        to(hole6),
    ];
    let (found, elsewhere) = inside(lab.balancer(), async {
        let (watcher, _changes) = Watcher::start(settings()).await.unwrap();
        let short = Duration::from_millis(300);
        let found = watcher.resolve(targets.into(), short).await.unwrap();
        let other = Settings {
            interfaces: vec!["eth7".to_owned()],
            ..settings()
        };
        let (watcher, _changes) = Watcher::start(other).await.unwrap();
        (found, resolve(&watcher, &[nobody]).await)
    });
    let why = |target| found[&target].clone().unwrap_err();
    assert!(
        matches!(why(nobody), Unresolved::NoAnswer { .. }),
        "{}",
        why(nobody)
    );
    assert_eq!(
        why(direct),
        Unresolved::NotOnLink {
            address: far.v4().into(),
            gateway: ROUTER_V4.into()
        }
    );
    assert_eq!(why(to(BALANCER_V4)), Unresolved::Local(BALANCER_V4.into()));
    for hole in [to([192, 0, 2, 7]), to(hole6)] {
        assert!(
            matches!(why(hole), Unresolved::NoRoute { .. }),
            "{}",
            why(hole)
        );
    }
    let not_ours = elsewhere[&nobody].clone().unwrap_err();
    assert!(not_ours.to_string().contains("over lb0"), "{not_ours}");
}

#[test]
fn a_static_gateway_needs_neither_route_nor_answer() {
    let lab = lab();
    lab.balancer()
        .run(&["ip", "route", "del", "default"])
        .unwrap();
    let gateway = Gateway {
        interface: "lb0".to_owned(),
        mac: Mac(NEW_MAC),
    };
    let settings = Settings {
        gateways: vec![gateway],
        ..settings()
    };
    let target = to([192, 0, 2, 1]);
    let found = inside(lab.balancer(), async {
        let (watcher, _changes) = Watcher::start(settings).await.unwrap();
        resolve(&watcher, &[target]).await
    });
    let hop = found[&target].clone().unwrap();
    assert_eq!((hop.mac, hop.via, hop.mtu), (NEW_MAC, Via::Static, 1600));
}

#[test]
fn an_entry_set_by_hand_is_used_and_left() {
    let lab = lab();
    let ghost = "10.0.1.98";
    let set = [
        "ip",
        "neigh",
        "add",
        ghost,
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        "lb0",
    ];
    lab.balancer().run(&set).unwrap();
    let target = to(ghost.parse::<IpAddr>().unwrap());
    let found = inside(lab.balancer(), async {
        let (watcher, _changes) = Watcher::start(settings()).await.unwrap();
        resolve(&watcher, &[target]).await
    });
    assert_eq!(found[&target].clone().unwrap().mac, NEW_MAC);
    let after = lab
        .balancer()
        .text(&["ip", "neigh", "show", ghost])
        .unwrap();
    assert!(after.contains("PERMANENT"), "{after}");
}

/// Starts a watcher that tracks `target`, lets `change` happen, and gives the first news.
fn noticed(lab: &Lab, target: Target, change: impl Fn() + Send + Sync) -> Resolution {
    inside(lab.balancer(), async {
        let (watcher, mut changes) = Watcher::start(settings()).await.unwrap();
        assert!(resolve(&watcher, &[target]).await[&target].is_ok());
        watcher.track([target].into()).await.unwrap();
        let quiet = timeout(Duration::from_millis(300), changes.recv()).await;
        assert!(quiet.is_err(), "news without a change: {quiet:?}");
        change();
        let news = next(&mut changes).await;
        assert_eq!(news.target, target);
        news.resolution
    })
}

#[test]
fn a_new_mac_is_noticed_within_a_second() {
    for v6 in [false, true] {
        let lab = lab();
        let web = lab.host("web-1").unwrap();
        let target = if v6 { to(web.v6()) } else { to(web.v4()) };
        let news = noticed(&lab, target, || {
            let text = "02:00:00:00:00:77";
            web.run(&["ip", "link", "set", "eth0", "address", text])
                .unwrap();
            // A host that has moved speaks up; this one has to ask for our address first.
            let ours = if v6 {
                BALANCER_V6.to_string()
            } else {
                BALANCER_V4.to_string()
            };
            let _ = web.run(&["ping", "-c", "1", "-W", "1", &ours]);
        });
        assert_eq!(news.unwrap().mac, NEW_MAC, "v6: {v6}");
    }
}

#[test]
fn a_changed_gateway_is_noticed() {
    let lab = lab();
    let far = lab.host("web-far-1").unwrap();
    let via = lab.host("router-2").unwrap().v4();
    let news = noticed(&lab, to(far.v4()), || {
        let words = ["ip", "route", "add", "10.0.2.0/24", "via", &via.to_string()];
        lab.balancer().run(&words).unwrap();
    });
    assert_eq!(news.unwrap().via, Via::Gateway(via.into()));
}

#[test]
fn a_link_that_goes_and_comes_is_noticed() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let target = to(web.v4());
    let (down, up) = inside(lab.balancer(), async {
        let (watcher, mut changes) = Watcher::start(settings()).await.unwrap();
        resolve(&watcher, &[target]).await;
        let port = lab.balancer().router_port();
        lab.router()
            .run(&["ip", "link", "set", port, "down"])
            .unwrap();
        let down = next(&mut changes).await;
        lab.router()
            .run(&["ip", "link", "set", port, "up"])
            .unwrap();
        let up = timeout(SOON, changes.recv()).await.unwrap().unwrap();
        (down, up)
    });
    assert!(
        matches!(
            down.resolution,
            Err(Unresolved::LinkDown { off: false, .. })
        ),
        "{down:?}"
    );
    assert!(up.resolution.is_ok(), "{up:?}");
}

#[test]
fn a_deleted_neighbour_is_asked_again() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let address = web.v4().to_string();
    inside(lab.balancer(), async {
        let (watcher, mut changes) = Watcher::start(settings()).await.unwrap();
        resolve(&watcher, &[to(web.v4())]).await;
        lab.balancer()
            .run(&["ip", "neigh", "del", &address, "dev", "lb0"])
            .unwrap();
        let quiet = timeout(AT_ONCE, changes.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        let entry = lab
            .balancer()
            .text(&["ip", "neigh", "show", &address])
            .unwrap();
        assert!(
            entry.contains("managed") && entry.contains("lladdr"),
            "{entry}"
        );
        // Nobody wants it any more: the kernel may forget it.
        watcher.track(BTreeSet::new()).await.unwrap();
        watcher.resolve(BTreeSet::new(), SOON).await.unwrap();
        let entry = lab
            .balancer()
            .text(&["ip", "neigh", "show", &address])
            .unwrap();
        assert!(!entry.contains("managed"), "{entry}");
    });
}

#[test]
fn many_events_are_few_news_and_none_is_lost() {
    let lab = lab();
    let web = lab.host("web-1").unwrap();
    let address = web.v4().to_string();
    let last = "02:00:00:00:75:30";
    let news = inside(lab.balancer(), async {
        let (watcher, mut changes) = Watcher::start(settings()).await.unwrap();
        resolve(&watcher, &[to(web.v4())]).await;
        // 30,000 changes at once, while nobody reads: more than the socket holds.
        let mut batch = String::new();
        for number in 1..=30_000u32 {
            let mac = format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 0xff);
            writeln!(batch, "neigh replace {address} lladdr {mac} dev lb0").unwrap();
        }
        let file = lab.balancer().directory().join("batch");
        std::fs::write(&file, batch).unwrap();
        lab.balancer()
            .run(&["ip", "-batch", &file.to_string_lossy()])
            .unwrap();
        let mut news = Vec::new();
        while let Ok(Some(change)) = timeout(AT_ONCE, changes.recv()).await {
            news.push(change.resolution.unwrap().mac);
        }
        news
    });
    assert_eq!(news.last().copied(), Some(last.parse::<Mac>().unwrap().0));
    assert!(news.len() <= 4, "{}", news.len());
}
