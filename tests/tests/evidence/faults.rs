//! One fault of each kind, on live traffic, with the checks before traffic passed over: which signal
//! finds it, and when.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_userspace::lab::{Host, HttpLoop, VIP_V4, VIP_V6};

use crate::broken::{Place, broken_lab, places};
use crate::figures::{Bounds, Figures};
use crate::run::run;
use crate::scene::{Scene, WEB};
use crate::soak::Length;

/// What a fault is, and how it has to be found.
struct Fault {
    name: &'static str,
    /// The pools of the IPv4 and the IPv6 VIP; none: the VIP is removed.
    pools: [Option<&'static [Place]>; 2],
    traffic: Traffic,
    /// The signals that may find it.
    by: &'static [&'static str],
    /// The VIP that it has to be seen at.
    at: &'static str,
    within: Duration,
}

/// Who asks for what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    V4,
    V6,
    /// Half of it each.
    Both,
    /// IPv4, with requests of several full-size packets.
    Big,
    /// The same, of clients each of which comes for the first time and has no path's MTU in mind.
    BigAndNew,
    /// IPv4, for a page that the other service does not have.
    Page,
}

const GOOD: Option<&[Place]> = Some(&[Place::Good, Place::Good2]);
/// What is never right is found within this time (first packet to 1 s).
const HARD: Duration = Duration::from_secs(1);
/// Or soon after so many flows of the new arm: three sources make it sure, told apart by one of 64 bits.
/// Of ten such flows a second three take longer than that in one run of three hundred.
const SURE: usize = 5;

const FAULTS: [Fault; 18] = [
    Fault {
        within: HARD,
        ..v4(
            "wrong address on the link, nobody there",
            &[Place::Nobody],
            &["breaker: S8", "S1", "breaker: S1"],
            1,
        )
    },
    Fault {
        within: HARD,
        ..v4(
            "wrong address on the link, another host",
            &[Place::Stranger],
            &["breaker: S7"],
            1,
        )
    },
    v4(
        "wrong address, no route to it",
        &[Place::Nowhere],
        &["S7", "S1", "breaker: S1", "S2"],
        2,
    ),
    v4(
        "wrong gateway",
        &[Place::BehindStranger],
        &["S1", "breaker: S1", "S2"],
        2,
    ),
    v4(
        "wrong MAC address",
        &[Place::WrongMac],
        &["S1", "breaker: S1", "S2"],
        2,
    ),
    v4(
        "service down",
        &[Place::NoService],
        &["S1", "breaker: S1"],
        2,
    ),
    v4("server hangs", &[Place::Hangs], &["S5", "S4"], 3),
    v4(
        "backend lacks the VIP",
        &[Place::NoVip],
        &["S1", "breaker: S1", "S2"],
        2,
    ),
    v4(
        "half of the pool dead",
        &[Place::Good, Place::NoVip],
        &["S1", "breaker: S1", "S2", "S12"],
        10,
    ),
    Fault {
        within: HARD,
        ..v4(
            "backend does not decapsulate",
            &[Place::NoDecap],
            &["breaker: S7"],
            1,
        )
    },
    Fault {
        name: "the same, IPv6",
        pools: [GOOD, Some(&[Place::NoDecap])],
        traffic: Traffic::V6,
        by: &["breaker: S7"],
        at: "",
        within: HARD,
    },
    v4(
        "outer source refused by the backend",
        &[Place::OtherSources],
        &["S1", "breaker: S1", "S2"],
        2,
    ),
    Fault {
        traffic: Traffic::Big,
        ..v4(
            "MTU too small, silently",
            &[Place::SmallMtu],
            &["S6", "S5"],
            3,
        )
    },
    Fault {
        traffic: Traffic::BigAndNew,
        ..v4(
            "MTU too small, told by ICMP",
            &[Place::FarSmallMtu],
            &["S7", "S6", "S5"],
            3,
        )
    },
    Fault {
        name: "IPv6 alone is broken",
        pools: [Some(&[Place::NoVipV6]); 2],
        traffic: Traffic::Both,
        by: &["S1", "breaker: S1", "S2"],
        at: "shop-v6",
        within: Duration::from_secs(3),
    },
    Fault {
        name: "VIP deleted by mistake",
        pools: [None, GOOD],
        traffic: Traffic::V4,
        by: &["breaker: S9"],
        at: "",
        within: HARD,
    },
    Fault {
        traffic: Traffic::Page,
        ..v4(
            "another service's pool, which answers",
            &[Place::OtherService],
            &["S4", "S3", "S5"],
            3,
        )
    },
    Fault {
        name: "another service's pool, which does not",
        ..v4(
            "",
            &[Place::NoVip, Place::NoService],
            &["S1", "breaker: S1"],
            2,
        )
    },
];

/// A pool of the IPv4 VIP alone.
const fn v4(
    name: &'static str,
    pool: &'static [Place],
    by: &'static [&'static str],
    seconds: u64,
) -> Fault {
    Fault {
        name,
        pools: [Some(pool), GOOD],
        traffic: Traffic::V4,
        by,
        at: "",
        within: Duration::from_secs(seconds),
    }
}

impl Fault {
    fn traffic(&self, scene: &Scene) -> Vec<HttpLoop> {
        let (v4, v6) = (IpAddr::from(VIP_V4), IpAddr::from(VIP_V6));
        match self.traffic {
            Traffic::V4 => vec![scene.ask(v4, 100, WEB, 0)],
            Traffic::V6 => vec![scene.ask(v6, 100, WEB, 0)],
            Traffic::Both => vec![scene.ask(v4, 50, WEB, 0), scene.ask(v6, 50, WEB, 0)],
            Traffic::Big | Traffic::BigAndNew => vec![scene.ask(v4, 100, WEB, 4000)],
            Traffic::Page => vec![scene.ask(v4, 100, "/64k", 0)],
        }
    }

    fn replay(&self, scene: &Scene, runs: usize, length: Length) -> Figures {
        let mut figures = Figures::new(self.name);
        let wrong = places(self.pools);
        let traffic = self.traffic(scene);
        let traffic: Vec<&HttpLoop> = traffic.iter().collect();
        let bounds = Bounds {
            exposed: length.patience(self.within),
            unless: if self.within == HARD { SURE } else { 0 },
            hurt: usize::MAX,
            slowest: Duration::MAX,
            inconclusive: false,
        };
        let _forgetting =
            (self.traffic == Traffic::BigAndNew).then(|| Forgetting::start(scene.lab.client()));
        for _ in 0..runs {
            let run = run(scene, &traffic, &wrong);
            figures.add(&run, bounds);
            if !self.by.contains(&run.signal.as_str()) {
                figures.miss(&format!("found by {}, not {:?}", run.signal, self.by));
            }
            if !run.subject.contains(self.at) {
                figures.miss(&format!("seen at {}, not {}", run.subject, self.at));
            }
        }
        figures
    }
}

/// Makes a host forget what it has learned about paths, as if each connection was another host's.
struct Forgetting {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forgetting {
    fn start(client: &Host) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (client, ends) = (client.clone(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            client.enter().unwrap();
            while !ends.load(Ordering::Relaxed) {
                std::fs::write("/proc/sys/net/ipv4/route/flush", "1").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Every fault; fails when all have been tried.
pub fn replay(runs: usize, length: Length) {
    let scene = broken_lab();
    let only = std::env::var("LB_EVIDENCE_FAULT").unwrap_or_default();
    let faults = FAULTS.iter().filter(|fault| fault.name.contains(&only));
    let figures: Vec<Figures> = faults
        .map(|fault| fault.replay(&scene, runs, length))
        .collect();
    let misses: Vec<String> = figures
        .into_iter()
        .filter_map(|f| f.close().err())
        .collect();
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}

#[test]
fn every_fault_is_found_by_its_signal_in_time() {
    replay(1, Length::Short);
}
