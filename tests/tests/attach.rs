//! The balancer on and off interfaces, by pinned links.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::process::Command;

use lb_tests::loaded::{bpf_pins, load};
use lb_userspace::config::XdpMode;
use lb_userspace::decap;
use lb_userspace::kernel::attach::{AttachError, Attached, Done, attach, detach, list, unload};
use lb_userspace::kernel::pins::Pins;
use lb_userspace::lab::Lab;
use lb_userspace::net::{self, links};

fn lab() -> (Lab, Pins) {
    let lab = Lab::builder().without_web().build().unwrap();
    let pins = bpf_pins(&lab);
    load(&lab, &pins);
    (lab, pins)
}

/// Runs in the balancer's namespace.
fn there<T: Send>(lab: &Lab, work: impl FnOnce() -> T + Send) -> T {
    lab.balancer().in_ns(work).unwrap()
}

fn on_lb0(lab: &Lab) -> Option<net::XdpProgram> {
    there(lab, || links::read("lb0").unwrap().unwrap().xdp)
}

#[test]
fn it_is_attached_once_listed_and_taken_off() {
    for (wanted, mode) in [
        (XdpMode::Auto, "native"),
        (XdpMode::Native, "native"),
        (XdpMode::Generic, "generic"),
    ] {
        let (lab, pins) = lab();
        let first = there(&lab, || attach(&pins, "lb0", wanted).unwrap());
        assert_eq!((first.done, first.at.mode), (Done::New, Some(mode)));
        assert!(first.not_native.is_none());
        assert_eq!(on_lb0(&lab).unwrap().id, first.at.program);
        let again = there(&lab, || attach(&pins, "lb0", wanted).unwrap());
        assert_eq!((again.done, &again.at), (Done::Already, &first.at));
        assert_eq!(first.at.tag.len(), 16);
        assert_eq!(there(&lab, || list(&pins).unwrap()), [first.at]);
        there(&lab, || detach(&pins, "lb0").unwrap());
        assert_eq!(on_lb0(&lab), None, "gone when detach returns");
        assert!(there(&lab, || list(&pins).unwrap()).is_empty());
        let not_there = there(&lab, || detach(&pins, "lb0").unwrap_err());
        assert!(
            matches!(not_there, AttachError::NotAttached { .. }),
            "{not_there}"
        );
    }
}

/// Not a test: what the test below runs in a process of its own.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn attacher() {
    let root = std::env::var("LBGUARD_TEST_PINS").unwrap();
    attach(&Pins::new(root.as_ref()), "lb0", XdpMode::Auto).unwrap();
}

#[test]
fn it_outlives_the_process_that_attached_it() {
    let (lab, pins) = lab();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "attacher", "--ignored"]);
    child.env("LBGUARD_TEST_PINS", pins.directory().parent().unwrap());
    lab.balancer().run_command(&mut child).unwrap();
    let found = there(&lab, || list(&pins).unwrap());
    let [
        Attached {
            program,
            mode: Some("native"),
            ..
        },
    ] = found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!(on_lb0(&lab).unwrap().id, program);
}

#[test]
fn a_foreign_program_is_named_and_left() {
    let (lab, pins) = lab();
    there(&lab, || {
        decap::run("lb0", &decap::Options::default(), &lab.bpffs()).unwrap()
    });
    let foreign = on_lb0(&lab).unwrap();
    for mode in [XdpMode::Auto, XdpMode::Generic] {
        let refused = there(&lab, || attach(&pins, "lb0", mode).unwrap_err());
        let AttachError::Foreign { id, name, .. } = &refused else {
            panic!("{refused}")
        };
        assert_eq!((*id, name.as_str()), (foreign.id, "decap"));
        assert!(refused.to_string().contains("\"decap\""), "{refused}");
    }
    assert_eq!(on_lb0(&lab), Some(foreign));
    assert!(!pins.link("lb0").exists());
}

#[test]
fn an_interface_with_the_name_of_one_that_is_gone_is_attached_anew() {
    let (lab, pins) = lab();
    let make = [
        "ip", "link", "add", "v0.7", "type", "veth", "peer", "name", "v1",
    ];
    for _ in 0..2 {
        lab.balancer().run(&make).unwrap();
        let done = there(&lab, || attach(&pins, "v0.7", XdpMode::Auto).unwrap().done);
        assert_eq!(done, Done::New);
        lab.balancer().run(&["ip", "link", "del", "v0.7"]).unwrap();
        let dead = there(&lab, || list(&pins).unwrap());
        assert_eq!((dead[0].index, dead[0].mode), (0, None));
    }
    there(&lab, || detach(&pins, "v0.7").unwrap());
    assert!(pins.linked().is_empty());
}

#[test]
fn a_driver_that_does_not_take_it_is_said_and_generic_used() {
    let (lab, pins) = lab();
    lab.balancer()
        .run(&["ip", "link", "add", "br9", "type", "bridge"])
        .unwrap();
    let auto = there(&lab, || attach(&pins, "br9", XdpMode::Auto).unwrap());
    assert_eq!(auto.at.mode, Some("generic"));
    assert!(auto.not_native.is_some());
    there(&lab, || detach(&pins, "br9").unwrap());
    let native = there(&lab, || attach(&pins, "br9", XdpMode::Native).unwrap_err());
    assert!(
        matches!(
            native,
            AttachError::Refused {
                modes: "native",
                ..
            }
        ),
        "{native}"
    );
    let nowhere = there(&lab, || attach(&pins, "eth9", XdpMode::Auto).unwrap_err());
    assert!(matches!(nowhere, AttachError::NoInterface(_)), "{nowhere}");
}

#[test]
fn an_interface_elsewhere_is_not_taken_for_ours() {
    let (lab, pins) = lab();
    there(&lab, || attach(&pins, "lb0", XdpMode::Auto).unwrap());
    lab.balancer()
        .run(&["ip", "link", "set", "lb0", "down"])
        .unwrap();
    lab.balancer()
        .run(&["ip", "link", "set", "lb0", "name", "lb1"])
        .unwrap();
    let make = [
        "ip", "link", "add", "lb0", "type", "veth", "peer", "name", "v1",
    ];
    lab.balancer().run(&make).unwrap();
    let refused = there(&lab, || attach(&pins, "lb0", XdpMode::Auto).unwrap_err());
    assert!(
        matches!(refused, AttachError::Elsewhere { .. }),
        "{refused}"
    );
    assert!(there(&lab, || links::read("lb1")
        .unwrap()
        .unwrap()
        .xdp
        .is_some()));
}

#[test]
fn unload_leaves_nothing() {
    let (lab, pins) = lab();
    there(&lab, || attach(&pins, "lb0", XdpMode::Auto).unwrap());
    assert_eq!(there(&lab, || unload(&pins).unwrap()), ["lb0"]);
    assert_eq!(on_lb0(&lab), None);
    assert!(!pins.directory().exists());
    let refused = there(&lab, || attach(&pins, "lb0", XdpMode::Auto).unwrap_err());
    assert!(refused.to_string().contains("not loaded"), "{refused}");
}
