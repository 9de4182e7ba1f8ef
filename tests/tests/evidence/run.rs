//! One wrong change on live traffic, from its beginning to the end of what was under way.

use std::time::{Duration, Instant};

use lb_common::control::Cause;
use lb_common::counter::Reason;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::lab::{HttpLoop, Request};
use lb_userspace::sys;

use crate::applied::Applied;
use crate::scene::{SOON, Scene};
use crate::seen::{LATE, Seen, seen};

/// What every wrong change is run with: checks before traffic are passed over.
pub const UNCHECKED: [&str; 3] = ["--force-unsafe", "--canary", "10"];

/// What the kernel needs to end a trial once it has met enough: two ticks of its timer, and the way
/// there.
const NOTICE: Duration = Duration::from_millis(250);

/// What one run showed.
#[derive(Debug)]
pub struct Run {
    pub applied: Applied,
    /// From the first step's beginning to the end in the kernel.
    pub exposed: Duration,
    pub seen: Seen,
    /// Requests that the end was to be found by: late ones that began [`NOTICE`] before it or earlier.
    pub met: usize,
    /// What found it: "S1", "breaker: S1", "breaker: S9".
    pub signal: String,
    /// At which VIP or backend; empty for hard events.
    pub subject: String,
}

/// Runs a wrong change under traffic that flows already.
pub fn run(scene: &Scene, traffic: &[&HttpLoop], services: &str) -> Run {
    run_with(scene, traffic, services, &UNCHECKED)
}

/// The same with other words of `apply`.
pub fn run_with(scene: &Scene, traffic: &[&HttpLoop], services: &str, words: &[&str]) -> Run {
    let maps = scene.maps();
    let before = HardCounts::read(&maps);
    for requests in traffic {
        drop(requests.take());
    }
    let applied = scene.apply(services, words);
    let seen = saw(traffic, applied.began);
    let (signal, subject) = found(&applied, &maps, &before);
    if applied.cause() == "breaker" {
        scene.instance.expect(&["ack"], 0).unwrap();
    }
    Run {
        exposed: exposed(scene, applied.generation()),
        met: met(scene, traffic, applied.began),
        applied,
        seen,
        signal,
        subject,
    }
}

/// Of the requests that began since; waits until those under way have ended.
pub fn saw(traffic: &[&HttpLoop], since: Instant) -> Seen {
    traffic.iter().fold(Seen::default(), |sum, requests| {
        requests.settle(SOON).unwrap();
        sum.plus(seen(requests, since))
    })
}

/// By the kernel's clock; the journal has the beginning, the control record the end.
pub fn exposed(scene: &Scene, generation: u64) -> Duration {
    let trial = scene.recorded(generation, "trial");
    let began = trial.unwrap_or_else(|| panic!("{generation} was never on trial"));
    let record = scene.record();
    assert_eq!(record.ended_generation, generation);
    Duration::from_nanos(record.ended_ns - began["boot_ns"].as_u64().unwrap())
}

/// Late requests that began since, and well before the end of the trial.
fn met(scene: &Scene, traffic: &[&HttpLoop], since: Instant) -> usize {
    let ago = Duration::from_nanos(sys::boot_ns() - scene.record().ended_ns);
    let well_before = Instant::now().checked_sub(ago + NOTICE).unwrap();
    let met = |requests: &&HttpLoop| {
        let requests = requests.requests().into_iter();
        let met = |request: &Request| request.at >= since && request.at <= well_before;
        requests.filter(met).filter(|r| r.latency >= LATE).count()
    };
    traffic.iter().map(met).sum()
}

/// The signal and what it was about.
fn found(applied: &Applied, maps: &Maps, before: &HardCounts) -> (String, String) {
    match applied.cause() {
        "verdict" => {
            let text = |key: &str| applied.finding()[key].as_str().unwrap_or("?").to_owned();
            (text("signal"), text("subject"))
        }
        "breaker" => {
            let record = maps.record().unwrap().unwrap();
            assert_eq!(Cause::from_code(record.cause), Cause::Breaker);
            let Some(vip) = record.tripped_vip.checked_sub(1) else {
                let kind = HardCounts::read(maps).more_than(before);
                return (format!("breaker: {kind}"), String::new());
            };
            let name = maps.vip_name(u16::try_from(vip).unwrap()).unwrap();
            ("breaker: S1".to_owned(), name)
        }
        other => (format!("none: {other}"), String::new()),
    }
}

/// Packets of the kinds that hard events are of: S7, S8, S9.
#[derive(Debug)]
struct HardCounts([u64; 3]);

impl HardCounts {
    fn read(maps: &Maps) -> Self {
        let of = |reasons: &[Reason]| {
            let sets = 0..u32::try_from(lb_common::SLOTS).unwrap();
            sets.map(|set| {
                let packets = maps.reasons(set).unwrap().packets;
                reasons
                    .iter()
                    .map(|reason| packets[*reason as usize])
                    .sum::<u64>()
            })
            .sum()
        };
        Self([
            of(&[Reason::TunnelError]),
            of(&[Reason::NoBackend, Reason::NoNextHop, Reason::Broken]),
            of(&[Reason::Tombstone]),
        ])
    }

    /// The kind that there was most of.
    fn more_than(&self, before: &Self) -> String {
        let more = self.0.iter().zip(&before.0).map(|(now, then)| now - then);
        let (_, name) = more.zip(["S7", "S8", "S9"]).max().unwrap();
        name.to_owned()
    }
}
