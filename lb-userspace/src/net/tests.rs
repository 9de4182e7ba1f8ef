use std::collections::BTreeSet;
use std::net::IpAddr;

use super::links::{Link, Links, Vlan};
use super::neighbour::{Answer, Neighbour, Neighbours};
use super::next_hop::{Resolved, Settings, Target, Unresolved, Via, decide};
use super::route::{NoPath, Path};
use super::state::State;
use crate::config::{Gateway, Mac};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    Target {
        address: ip(text),
        direct: false,
    }
}

fn link(index: u32, name: &str) -> Link {
    let name = name.to_owned();
    Link {
        index,
        name,
        mac: Some(OURS),
        mtu: 1500,
        up: true,
        carrier: true,
        xdp: None,
        vlan: None,
    }
}

fn links() -> Links {
    [(2, link(2, "lb0")), (3, link(3, "mgmt0"))].into()
}

fn settings() -> Settings {
    Settings {
        interfaces: vec!["lb0".to_owned()],
        gateways: Vec::new(),
    }
}

fn with_gateway() -> Settings {
    let gateway = Gateway {
        interface: "lb0".to_owned(),
        mac: Mac(OTHER),
    };
    Settings {
        gateways: vec![gateway],
        ..settings()
    }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "as the functions under test take it"
)]
fn path(gateway: Option<&str>) -> Result<Path, NoPath> {
    Ok(Path {
        interface: 2,
        gateway: gateway.map(ip),
        mtu: None,
    })
}

fn known(address: &str, answer: Answer) -> Neighbours {
    [(
        (2, ip(address)),
        Neighbour {
            answer,
            fixed: false,
            managed: true,
        },
    )]
    .into()
}

fn resolved(via: Via) -> Resolved {
    Resolved {
        mac: THEIRS,
        source: OURS,
        interface: 2,
        vlan: 0,
        mtu: 1500,
        via,
    }
}

/// A route over a VLAN of an interface that we have: frames leave by that, tagged.
#[test]
fn over_a_vlan_of_ours() {
    let vlan = |parent| Link {
        vlan: Some(Vlan { parent, id: 100 }),
        ..link(7, "lb0.100")
    };
    let route = Ok(Path {
        interface: 7,
        ..path(None).unwrap()
    });
    let answer = known("10.0.1.11", Answer::Mac(THEIRS));
    let there = answer[&(2, ip("10.0.1.11"))];
    let neighbours = [2, 7].map(|index| ((index, ip("10.0.1.11")), there)).into();
    let decided = |links: &Links, settings: &Settings| {
        decide(target("10.0.1.11"), &route, links, &neighbours, settings)
    };
    let links = [(2, link(2, "lb0")), (7, vlan(2))].into();
    let found = decided(&links, &settings()).unwrap();
    assert_eq!((found.interface, found.vlan), (2, 100));
    let elsewhere = [(2, link(2, "lb0")), (3, link(3, "eth9")), (7, vlan(3))].into();
    let refused = decided(&elsewhere, &settings()).unwrap_err();
    assert!(matches!(refused, Unresolved::NotOurs { .. }), "{refused}");
    // The balancer may have the VLAN's own interface, too.
    let own = Settings {
        interfaces: vec!["lb0.100".to_owned()],
        ..settings()
    };
    let found = decided(&links, &own).unwrap();
    assert_eq!((found.interface, found.vlan), (7, 0));
}

#[test]
fn on_link_and_by_gateway() {
    let on_link = decide(
        target("10.0.1.11"),
        &path(None),
        &links(),
        &known("10.0.1.11", Answer::Mac(THEIRS)),
        &settings(),
    );
    assert_eq!(on_link, Ok(resolved(Via::OnLink(ip("10.0.1.11")))));
    let behind = decide(
        target("10.0.2.11"),
        &path(Some("10.0.1.1")),
        &links(),
        &known("10.0.1.1", Answer::Mac(THEIRS)),
        &settings(),
    );
    assert_eq!(behind, Ok(resolved(Via::Gateway(ip("10.0.1.1")))));
}

#[test]
fn the_smaller_mtu_counts() {
    for (of_route, expected) in [(None, 1500), (Some(1400), 1400), (Some(9000), 1500)] {
        let path = Ok(Path {
            interface: 2,
            gateway: None,
            mtu: of_route,
        });
        let neighbours = known("10.0.1.11", Answer::Mac(THEIRS));
        let found = decide(
            target("10.0.1.11"),
            &path,
            &links(),
            &neighbours,
            &settings(),
        );
        assert_eq!(found.unwrap().mtu, expected);
    }
    let huge: Links = [(
        2,
        Link {
            mtu: 65_536,
            ..link(2, "lb0")
        },
    )]
    .into();
    let neighbours = known("10.0.1.11", Answer::Mac(THEIRS));
    let found = decide(
        target("10.0.1.11"),
        &path(None),
        &huge,
        &neighbours,
        &settings(),
    );
    assert_eq!(found.unwrap().mtu, u16::MAX);
}

#[test]
fn a_static_gateway_comes_first_but_never_for_l2() {
    let none = Neighbours::new();
    for route in [
        path(None),
        path(Some("10.0.1.1")),
        Err(NoPath::NoRoute("no route".into())),
    ] {
        let found = decide(
            target("10.0.2.11"),
            &route,
            &links(),
            &none,
            &with_gateway(),
        )
        .unwrap();
        assert_eq!((found.mac, found.via), (OTHER, Via::Static), "{route:?}");
    }
    let direct = Target {
        direct: true,
        ..target("10.0.1.11")
    };
    let neighbours = known("10.0.1.11", Answer::Mac(THEIRS));
    let found = decide(direct, &path(None), &links(), &neighbours, &with_gateway()).unwrap();
    assert_eq!(found.mac, THEIRS);
    let nowhere = Err(NoPath::NoRoute("no route".into()));
    let found = decide(direct, &nowhere, &links(), &none, &with_gateway());
    assert!(
        matches!(found, Err(Unresolved::NoRoute { .. })),
        "{found:?}"
    );
}

#[test]
fn every_reason_is_a_sentence_that_names_the_address() {
    let none = Neighbours::new();
    let backend = target("10.0.2.11");
    let mut reasons = Vec::new();
    let mut check = |found: super::Resolution, word: &str| {
        let reason = found.unwrap_err().to_string();
        assert!(reason.contains("10.0.2.11"), "{reason}");
        assert!(reason.contains(word), "{reason}");
        reasons.push(reason);
    };
    let on = |interface| {
        Ok(Path {
            interface,
            gateway: None,
            mtu: None,
        })
    };
    let nowhere = Err(NoPath::NoRoute("no route".into()));
    check(
        decide(backend, &on(3), &links(), &none, &settings()),
        "mgmt0",
    );
    check(
        decide(backend, &on(9), &links(), &none, &settings()),
        "gone",
    );
    check(
        decide(backend, &Err(NoPath::Local), &links(), &none, &settings()),
        "own backend",
    );
    check(
        decide(backend, &nowhere, &links(), &none, &settings()),
        "no route",
    );
    check(decide(backend, &on(2), &links(), &none, &settings()), "ARP");
    let silent = known("10.0.1.1", Answer::Silent);
    let gateway = path(Some("10.0.1.1"));
    check(
        decide(backend, &gateway, &links(), &silent, &settings()),
        "10.0.1.1",
    );
    let direct = Target {
        direct: true,
        ..backend
    };
    check(
        decide(direct, &gateway, &links(), &silent, &settings()),
        "l2",
    );
    for (changed, word) in [
        (
            Link {
                up: false,
                ..link(2, "lb0")
            },
            "switched off",
        ),
        (
            Link {
                carrier: false,
                ..link(2, "lb0")
            },
            "carrier",
        ),
        (
            Link {
                mac: None,
                ..link(2, "lb0")
            },
            "Ethernet",
        ),
    ] {
        check(
            decide(backend, &on(2), &[(2, changed)].into(), &none, &settings()),
            word,
        );
    }
    let off: Links = [(
        2,
        Link {
            up: false,
            ..link(2, "lb0")
        },
    )]
    .into();
    check(
        decide(backend, &nowhere, &off, &none, &settings()),
        "lb0 is switched off",
    );
    assert_eq!(reasons.iter().collect::<BTreeSet<_>>().len(), reasons.len());
}

fn state_with(address: &str) -> State {
    let mut state = State::new(settings(), links());
    state.add(&[target(address)].into());
    state.routed(target(address), path(None));
    assert_eq!(state.update_wanted().0, [(2, ip(address))]);
    state
}

fn answers(state: &mut State, address: &str, answer: Answer) {
    state.set_neighbour(
        (2, ip(address)),
        Neighbour {
            answer,
            fixed: false,
            managed: true,
        },
    );
    state.evaluate();
}

#[test]
fn news_is_told_once_and_asking_is_no_news() {
    let mut state = state_with("10.0.1.11");
    state.evaluate();
    assert!(!state.has_news(), "nobody was asked yet");
    answers(&mut state, "10.0.1.11", Answer::Asking);
    assert!(!state.has_news());
    answers(&mut state, "10.0.1.11", Answer::Mac(THEIRS));
    assert_eq!(state.take_news().unwrap().resolution.unwrap().mac, THEIRS);
    answers(&mut state, "10.0.1.11", Answer::Mac(THEIRS));
    assert!(!state.has_news());
    answers(&mut state, "10.0.1.11", Answer::Asking);
    assert!(
        !state.has_news(),
        "it had an answer and is being asked again"
    );
    answers(&mut state, "10.0.1.11", Answer::Silent);
    assert!(state.take_news().unwrap().resolution.is_err());
    answers(&mut state, "10.0.1.11", Answer::Asking);
    assert!(!state.has_news());
}

#[test]
fn what_flaps_back_before_it_was_told_is_no_news() {
    let mut state = state_with("10.0.1.11");
    answers(&mut state, "10.0.1.11", Answer::Mac(THEIRS));
    state.take_news().unwrap();
    answers(&mut state, "10.0.1.11", Answer::Mac(OTHER));
    assert!(state.has_news());
    answers(&mut state, "10.0.1.11", Answer::Mac(THEIRS));
    assert!(!state.has_news());
}

#[test]
fn a_failed_look_up_does_not_undo_an_earlier_one() {
    let mut state = state_with("10.0.1.11");
    answers(&mut state, "10.0.1.11", Answer::Mac(THEIRS));
    state.not_routed(target("10.0.1.11"), "busy".to_owned());
    state.evaluate();
    assert!(state.tell(target("10.0.1.11")).is_ok());
    state.add(&[target("10.0.1.12")].into());
    state.not_routed(target("10.0.1.12"), "busy".to_owned());
    state.evaluate();
    let told = state.tell(target("10.0.1.12")).unwrap_err().to_string();
    assert!(told.contains("busy"), "{told}");
}

#[test]
fn who_is_not_wanted_any_more_is_let_go() {
    let mut state = state_with("10.0.1.11");
    state.routed(target("10.0.1.11"), path(Some("10.0.1.1")));
    let (new, gone) = state.update_wanted();
    assert_eq!(
        (new, gone),
        (vec![(2, ip("10.0.1.1"))], vec![(2, ip("10.0.1.11"))])
    );
    state.retain(&BTreeSet::new());
    assert_eq!(state.update_wanted(), (vec![], vec![(2, ip("10.0.1.1"))]));
}
