//! A started agent takes over what an older version has pinned: programs are replaced where they run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use lb_common::guard::Op;
use lb_tests::bpf::{Cmd, fact, open_id, open_pin};
use lb_tests::loaded::bpf_pins;
use lb_tests::resent::retransmissions;
use lb_tests::services;
use lb_userspace::kernel::attach;
use lb_userspace::kernel::guard::Guard;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::lab::{ConnectionOptions, Host, HttpOptions, Instance, Lab, VIP_V4, until};
use nix::sys::signal::Signal;
use zerocopy::IntoBytes;

const LINES: u16 = 7000;
const SOON: Duration = Duration::from_secs(20);

/// Says that the pinned programs are those of an object that nobody has.
fn pretend_other_version(lab: &Lab) {
    let pins = bpf_pins(lab);
    let maps = Maps::open(&pins).unwrap();
    let mut guard = Guard::open(&pins.program("guard")).unwrap();
    guard.set_session(1);
    let args = [maps.control().unwrap().patience, 1];
    guard
        .call(Op::Start, 0, &args, maps.node().unwrap().as_bytes())
        .unwrap();
}

/// Ids of the pinned programs, `lb` first.
fn pinned(lab: &Lab) -> [u32; 2] {
    ["lb", "guard"].map(|name| {
        let pin = bpf_pins(lab).program(name);
        fact(&open_pin(&pin, 0).unwrap(), "prog_id")
    })
}

fn loaded(id: u32) -> bool {
    open_id(Cmd::ProgramById, id, 0).is_ok()
}

fn attached(lab: &Lab) -> u32 {
    let pins = bpf_pins(lab);
    let list = lab
        .balancer()
        .in_ns(|| attach::list(&pins).unwrap())
        .unwrap();
    list[0].program
}

#[test]
fn programs_of_another_version_are_replaced_without_a_lost_packet() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    let all: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&all)).unwrap();
    let _servers: Vec<_> = all
        .iter()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect();
    let vip = SocketAddr::new(VIP_V4.into(), 80);
    let options = ConnectionOptions {
        count: 50,
        ..ConnectionOptions::default()
    };
    let lines = SocketAddr::new(VIP_V4.into(), LINES);
    let held = lab.client().connections(lines, &options).unwrap();
    held.wait_established(SOON).unwrap();
    let options = HttpOptions {
        rate: 200,
        ..HttpOptions::default()
    };
    let requests = lab.client().http_loop(vip, &options).unwrap();
    requests.wait(50, SOON).unwrap();
    let resent = || -> u64 { lab.hosts().iter().map(retransmissions).sum() };
    let before = resent();
    for upgraded in [true, false] {
        let old = pinned(&lab);
        assert_eq!(attached(&lab), old[0]);
        instance.stop_agent(Signal::SIGTERM).unwrap();
        if upgraded {
            pretend_other_version(&lab);
        }
        requests.wait(50, SOON).unwrap();
        instance.start_agent().unwrap();
        requests.wait(100, SOON).unwrap();
        let new = pinned(&lab);
        assert_eq!(attached(&lab), new[0]);
        assert_eq!(new != old, upgraded, "{old:?} {new:?}");
        // Nothing holds the old ones, so the timer's callback is the new guard's.
        until("the old programs to go", SOON, || {
            (loaded(old[0]) != upgraded && loaded(old[1]) != upgraded).then_some(())
        })
        .unwrap();
    }
    assert_eq!(requests.failed(), 0, "{:?}", requests.requests().last());
    held.wait_answers(held.answers() + 50, SOON).unwrap();
    assert!(held.breaks().is_empty(), "{:?}", held.breaks());
    assert_eq!(
        resent() - before,
        0,
        "a lost packet would have been sent again"
    );
    instance.try_out(&services::shop(&all[..1]), "1s").unwrap();
    instance.stop_agent(Signal::SIGKILL).unwrap();
    until("the deadline", SOON, || {
        (!instance.on_trial()).then_some(())
    })
    .unwrap();
    assert_eq!(instance.active(), Some(1));
    let journal = std::fs::read_to_string(lab.root().join("var/lib/lbguard/journal.jsonl"));
    assert_eq!(journal.unwrap().matches("\"upgraded\"").count(), 1);
}

#[test]
fn ready_means_that_the_committed_generation_forwards() {
    let lab = Lab::builder().backends("web", 2).build().unwrap();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    let all: Vec<&Host> = lab.backends().collect();
    instance.commit(&services::shop(&all)).unwrap();
    instance.stop_agent(Signal::SIGTERM).unwrap();
    instance.expect(&["unload", "--yes"], 0).unwrap();
    let path = lab.root().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut command = instance.command(&["agent"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut agent = lab.balancer().spawn_command(&mut command).unwrap();
    let mut said = [0; 256];
    let length = manager.recv(&mut said).expect("READY=1");
    assert_eq!(&said[..length], b"READY=1\n");
    let record = Maps::open(&bpf_pins(&lab)).unwrap().record().unwrap();
    assert_eq!(record.unwrap().active_generation, 1);
    assert!(instance.status().unwrap()["agent"].is_object());
    agent.signal(Signal::SIGTERM).unwrap();
    let length = manager.recv(&mut said).expect("STOPPING=1");
    assert_eq!(&said[..length], b"STOPPING=1\n");
    agent.wait(SOON).unwrap();
}
