//! The deadman: a trial ends at its lease or deadline with the agent dead, with packets and
//! without, and also after somebody has stopped its timer.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use lb_common::control::{Cause, NO_SLOT, SHARE_ALL, control_flag};
use lb_common::guard::{Op, Refusal};
use lb_tests::bench::{Bench, LIMITS, refusal, shop};
use lb_tests::bpf::{Cmd, Map};
use lb_tests::bpffs::{Bpffs, pins_below};
use lb_tests::bpftool::{self, number};
use lb_tests::child::{Part, part, tell, wait};
use lb_tests::packets::{Flags, Talk, tcp};
use lb_userspace::kernel::maps::TIMER;
use lb_userspace::kernel::object::Kernel;
use lb_userspace::kernel::pins::Pins;
use lb_userspace::kernel::probe::Ask;
use lb_userspace::sys::boot_ns;
use serde_json::Value;

const MS: u64 = 1_000_000;
/// Lateness that is allowed.
const LATE_NS: u64 = 200 * MS;
/// Long enough for anything here, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);
/// Milliseconds: far away.
const FAR: u64 = 60_000;

/// Looks again and again until `look` finds something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Plays the agent: generation 1 committed, generation 2 on trial, then nothing more.
fn agent(directory: &Path, lease: u64, deadline: u64) {
    let bench = Bench::pinned(&pins_below(directory));
    bench.commit(&shop(4));
    bench.stage(&bench.image(&shop(3))).expect("stage");
    let share = u64::from(SHARE_ALL);
    bench.trial_of(share, 2, lease, deadline).expect("trial");
    let record = bench.record();
    tell(&format!("{} {}", record.lease_ns, record.deadline_ns));
    wait();
}

#[test]
fn part_agent_with_a_deadline() {
    if let Some(directory) = part() {
        agent(&directory, FAR, 2_000);
    }
}

#[test]
fn part_agent_with_a_lease() {
    if let Some(directory) = part() {
        agent(&directory, 1_800, FAR);
    }
}

/// Plays the network: new flows without end; tells how many each slot decided, and when SHADOW
/// decided last.
#[test]
fn part_traffic() {
    let Some(directory) = part() else { return };
    let kernel = Kernel::open(&pins_below(&directory)).expect("open");
    tell("ready");
    let (mut active, mut shadow, mut last) = (0u64, 0u64, 0u64);
    let begun = Instant::now();
    // Until packets have gone by SHADOW, and then a hundred in a row by ACTIVE.
    let mut in_a_row = 0;
    while shadow == 0 || in_a_row < 100 {
        let port = 1_024 + u16::try_from((active + shadow) % 60_000).expect("a port");
        let talk = Talk::new("198.51.100.7:1024", "203.0.113.10:80").sender_port(port);
        let before = boot_ns();
        let decision = kernel
            .prober
            .run(&tcp(talk, Flags::Syn, &[]), Ask::default())
            .expect("run");
        assert!(decision.action.sends(), "{decision:?}");
        if decision.slot
            == kernel
                .maps
                .record()
                .expect("record")
                .expect("started")
                .active
        {
            active += 1;
            in_a_row += 1;
        } else {
            (shadow, last, in_a_row) = (shadow + 1, before, 0);
        }
        assert!(begun.elapsed() < PATIENCE, "the trial does not end");
    }
    tell(&format!("{active} {shadow} {last}"));
    wait();
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ')
        .map(|word| word.parse().expect(line))
        .collect()
}

fn on_trial(record: &Value) -> bool {
    number(record, "flags") & u64::from(control_flag::TRIAL) != 0
}

/// The trial has ended for `cause`, at `due` and hardly later; nothing else has changed.
fn ended(record: &Value, cause: Cause, due: u64) {
    assert_eq!(number(record, "cause"), u64::from(cause as u32), "{record}");
    assert_eq!(number(record, "share"), 0, "{record}");
    assert_eq!(number(record, "active_generation"), 1, "{record}");
    assert_eq!(number(record, "ended_generation"), 2, "{record}");
    assert_eq!(number(record, "ended_by"), u64::from(u32::MAX), "{record}");
    let at = number(record, "ended_ns");
    assert!(at >= due, "{} ns early", due - at);
    println!("{}: {} us late", cause.as_str(), (at - due) / 1_000);
    assert!(at - due <= LATE_NS, "{} ms late", (at - due) / MS);
}

/// The end of the trial, as bpftool reads it.
fn await_end(pins: &Pins) -> Value {
    until("the end of the trial", || {
        let record = bpftool::record(pins);
        (!on_trial(&record)).then_some(record)
    })
}

/// With the agent killed: no process of ours, no packet.
fn alone(name: &str, cause: Cause) {
    let bpffs = Bpffs::new();
    let mut agent = Part::start(name, bpffs.path());
    let due = numbers(&agent.hear());
    agent.kill();
    let pins = bpffs.pins();
    let before = bpftool::record(&pins);
    let due = if cause == Cause::Lease {
        due[0]
    } else {
        due[1]
    };
    assert!(
        boot_ns() < due,
        "the machine was too slow to kill the agent in time"
    );
    assert!(on_trial(&before), "{before}");
    let record = await_end(&pins);
    ended(&record, cause, due);

    // Whoever comes now comes too late.
    let kernel = Kernel::adopt(&pins, LIMITS).expect("open");
    let outcome = kernel.guard.call(Op::Confirm, 1, &[0], &[]);
    let refused = *outcome.expect_err("too late").refusal().expect("refused");
    assert_eq!(refused.refusal, Refusal::NoTrial);
    assert_eq!(refused.detail[0], cause as u64, "{refused}");
    assert_eq!(
        kernel
            .maps
            .record()
            .expect("record")
            .expect("started")
            .active_generation,
        1
    );
}

#[test]
fn without_agent_and_packets_the_deadline_ends_a_trial() {
    alone("part_agent_with_a_deadline", Cause::Deadline);
}

#[test]
fn without_agent_and_packets_the_lease_ends_a_trial() {
    alone("part_agent_with_a_lease", Cause::Lease);
}

/// With the agent killed under traffic.
fn under_traffic(name: &str, cause: Cause) {
    let bpffs = Bpffs::new();
    let mut agent = Part::start(name, bpffs.path());
    let due = numbers(&agent.hear());
    let due = if cause == Cause::Lease {
        due[0]
    } else {
        due[1]
    };
    let mut traffic = Part::start("part_traffic", bpffs.path());
    assert_eq!(traffic.hear(), "ready");
    agent.kill();
    let record = await_end(&bpffs.pins());
    ended(&record, cause, due);
    let told = numbers(&traffic.hear());
    traffic.end();
    let (active, shadow, last) = (told[0], told[1], told[2]);
    assert!(active >= 100 && shadow > 0);
    assert!(
        last < due,
        "SHADOW decided {} ms after its time",
        (last - due) / MS
    );
}

#[test]
fn without_agent_under_traffic_the_deadline_ends_a_trial() {
    under_traffic("part_agent_with_a_deadline", Cause::Deadline);
}

#[test]
fn without_agent_under_traffic_the_lease_ends_a_trial() {
    under_traffic("part_agent_with_a_lease", Cause::Lease);
}

/// A trial whose timer somebody has stopped from outside, and is seen to stand still.
struct Stopped {
    bench: Bench,
    bpffs: Bpffs,
    due: u64,
}

impl Stopped {
    /// `deadline` in ms; it lies far enough ahead to see the timer stand still before.
    fn new(deadline: u64) -> Self {
        let bpffs = Bpffs::new();
        let bench = Bench::pinned(&bpffs.pins());
        bench.commit(&shop(4));
        bench.stage(&bench.image(&shop(3))).expect("stage");
        bench
            .trial_of(u64::from(SHARE_ALL), 2, FAR, deadline)
            .expect("trial");
        let due = bench.record().deadline_ns;
        let stopped = Self { bench, bpffs, due };
        until("the first tick", || (stopped.ticks() > 0).then_some(()));
        stopped.stop();
        stopped
    }

    /// One stray write, by another program, and then silence for longer than the guard's patience.
    fn stop(&self) {
        let path = self.bpffs.pins().map(TIMER);
        let path = path.to_str().expect("a path");
        let value = vec!["0"; 16];
        let zeros = [
            "map", "update", "pinned", path, "key", "0", "0", "0", "0", "value",
        ];
        let output = bpftool::bpftool(&[&zeros[..], &value].concat());
        assert!(output.status.success(), "{output:?}");
        let at = self.ticks();
        let silent_since = Instant::now();
        while silent_since.elapsed() < Duration::from_millis(350) {
            assert_eq!(self.ticks(), at, "the timer runs");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(
            boot_ns() < self.due,
            "the machine is too slow for this test"
        );
        assert_eq!(self.restarts(), 0);
    }

    fn ticks(&self) -> u64 {
        self.bench.kernel.maps.control().expect("control").ticks
    }

    fn restarts(&self) -> u64 {
        self.bench.kernel.maps.control().expect("control").restarts
    }

    fn packet(&self) -> u8 {
        let talk = Talk::new("198.51.100.7:40000", "203.0.113.10:80");
        let ask = Ask {
            slot: None,
            no_flows: true,
        };
        self.bench
            .kernel
            .prober
            .run(&tcp(talk, Flags::Syn, &[]), ask)
            .expect("run")
            .slot
    }

    /// The trial ends as if nothing had been.
    fn ends_in_time(&self) {
        assert_eq!(self.restarts(), 1, "started again, once");
        ended(&await_end(&self.bpffs.pins()), Cause::Deadline, self.due);
    }
}

#[test]
fn a_stopped_timer_is_started_again_by_one_packet() {
    let stopped = Stopped::new(2_500);
    stopped.packet();
    stopped.ends_in_time();
}

#[test]
fn a_stopped_timer_is_started_again_by_one_guard_call() {
    let stopped = Stopped::new(2_500);
    let guard = &stopped.bench.kernel.guard;
    guard.call(Op::Lease, 1, &[FAR], &[]).expect("lease");
    stopped.ends_in_time();
}

#[test]
fn with_its_timer_stopped_a_trial_that_is_due_gets_no_packet_and_no_confirm() {
    let stopped = Stopped::new(1_500);
    until("the deadline", || (boot_ns() > stopped.due).then_some(()));
    let record = stopped.bench.record();
    assert_ne!(record.flags & control_flag::TRIAL, 0, "nobody has ended it");
    assert_eq!(refusal(stopped.bench.confirm()), Some(Refusal::TooLate));
    assert_eq!(stopped.packet(), record.active);
    let after = stopped.bench.record();
    assert_eq!((after.active_generation, after.lkg), (1, record.lkg));
    assert_ne!(after.shadow, NO_SLOT);
    let record = await_end(&stopped.bpffs.pins());
    assert_eq!(number(&record, "cause"), Cause::Deadline as u64);
}

#[test]
fn an_overwritten_timer_under_trial_is_started_again_whatever_was_written() {
    let stopped = Stopped::new(3_000);
    let map = Map::pinned(&stopped.bpffs.pins().map(TIMER));
    for round in 1..=3 {
        stopped.packet();
        let ticks = stopped.ticks();
        until("a tick", || (stopped.ticks() > ticks).then_some(()));
        assert_eq!(stopped.restarts(), round);
        map.element(Cmd::Update, 0).expect("the stray write");
        let silent = stopped
            .bench
            .kernel
            .maps
            .control()
            .expect("control")
            .ticked_ns;
        until("silence", || (boot_ns() > silent + 350 * MS).then_some(()));
    }
    stopped.packet();
    ended(
        &await_end(&stopped.bpffs.pins()),
        Cause::Deadline,
        stopped.due,
    );
}

#[test]
fn a_private_copy_ticks_too() {
    let bench = Bench::new();
    until("a tick", || {
        (bench.kernel.maps.control().expect("control").ticks > 1).then_some(())
    });
}
