//! New flows that come faster than a trial follows them: which arm they are in, and where they stay.

use std::time::{Duration, Instant};

use lb_common::breaker::Breaker;
use lb_common::control::SHARE_ALL;
use lb_common::evidence::Evidence;
use lb_common::guard::{Op, Refusal, TrialPut};
use lb_common::pace;
use lb_tests::bench::{Bench, refusal};
use lb_tests::packets::{Flags, Talk, tcp};
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::{Ask, Decision};
use zerocopy::IntoBytes;

use crate::world::{client, commit, flagged, probe, services, shop};

const FLOWS: u16 = 200;
const SHARE: u64 = SHARE_ALL as u64 / 2;
const MOST: u64 = SHARE_ALL as u64 - 1;
/// One flow each 0.27 s, and one in advance: no test here takes so long that this matters.
const SLOWEST: u16 = u16::MAX;

/// By which way packets go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Long,
    Short,
}

const WAYS: [Way; 2] = [Way::Long, Way::Short];

struct Trial {
    bench: Bench,
    new: Image,
    slot: u8,
    began: Instant,
}

impl Trial {
    /// A change of all backends, of which half of the flows are on trial at this pace.
    fn new(pace: u16) -> Self {
        let bench = Bench::new();
        commit(&bench, &shop(&[1]), 1);
        let new = bench.image(&shop(&[2]));
        let slot = bench.stage(&new).unwrap().slot;
        Self::of(bench, new, slot, pace)
    }

    /// Of what is staged.
    fn of(bench: Bench, new: Image, slot: u8, pace: u16) -> Self {
        let args = [SHARE, 0x5eed, 60_000, 60_000, 2];
        let guard = &bench.kernel.guard;
        let put = put(pace.into());
        guard.call(Op::Trial, 1, &args, put.as_bytes()).unwrap();
        let began = Instant::now();
        Self {
            bench,
            new,
            slot,
            began,
        }
    }

    /// The next step, with this share.
    fn step(&self, share: u64, pace: u16) {
        let guard = &self.bench.kernel.guard;
        let args = [share, 0x5eed, 60_000];
        let put = put(pace.into());
        guard.call(Op::Step, 1, &args, put.as_bytes()).unwrap();
    }

    fn send(&self, way: Way, port: u16, flags: Flags) {
        let frame = tcp(client(port), flags, &[]);
        let prober = &self.bench.kernel.prober;
        match way {
            Way::Long => drop(prober.run(&frame, Ask::default()).unwrap()),
            Way::Short => drop(prober.run_unmarked(&frame).unwrap()),
        }
    }

    /// Where a flow is.
    fn at(&self, port: u16) -> Decision {
        probe(&self.bench, &tcp(client(port), Flags::PshAck, b"data"))
    }

    fn counts(&self) -> [Evidence; 2] {
        self.counts_of("shop")
    }

    fn counts_of(&self, name: &str) -> [Evidence; 2] {
        let vip = self.new.vips.iter().find(|vip| vip.name == name).unwrap();
        let kernel = &self.bench.kernel;
        kernel.maps.evidence(&kernel.node, vip.entry.vip).unwrap()
    }

    /// Most flows that may have been followed by now.
    fn most(&self) -> u32 {
        let gap = u128::from(pace::of_rate(1)) << pace::NS_SHIFT;
        u32::try_from(self.began.elapsed().as_nanos() / gap).unwrap() + 2
    }
}

fn put(pace: u32) -> TrialPut {
    TrialPut {
        breaker: Breaker::default(),
        within_ms: 2_000,
        pace,
    }
}

#[test]
fn in_the_first_step_flows_that_are_passed_over_are_controls() {
    for way in WAYS {
        let trial = Trial::new(SLOWEST);
        for port in 1..=FLOWS {
            trial.send(way, port, Flags::Syn);
            trial.send(way, port, Flags::Ack);
        }
        let [control, new] = trial.counts();
        let followed = control.flows + new.flows;
        assert!((1..=trial.most()).contains(&followed), "{way:?} {followed}");
        assert_eq!(control.passed_over, u32::from(FLOWS) - followed, "{way:?}");
        assert_eq!((new.passed_over, control.untracked), (0, 0), "{way:?}");
        let in_new = (1..=FLOWS).filter(|port| trial.at(*port).slot == trial.slot);
        assert_eq!(u32::try_from(in_new.count()).unwrap(), new.flows, "{way:?}");
    }
}

#[test]
fn from_the_second_step_on_they_are_drawn_and_stay_in_their_arm() {
    for way in WAYS {
        let trial = Trial::new(SLOWEST);
        trial.step(SHARE + 1, SLOWEST);
        for port in 1..=FLOWS {
            trial.send(way, port, Flags::Syn);
            trial.send(way, port, Flags::Ack);
        }
        let [control, new] = trial.counts();
        assert!(control.flows + new.flows <= trial.most(), "{way:?}");
        let in_new = |port: &u16| {
            let at = trial.at(*port);
            assert!(at.followed, "{way:?} port {port}");
            at.slot == trial.slot
        };
        let arm: Vec<u16> = (1..=FLOWS).filter(in_new).collect();
        let count = u32::try_from(arm.len()).unwrap();
        assert_eq!(new.passed_over + new.flows, count, "{way:?}");
        // A fair coin, 200 times: below 50 has a chance of 10^-13.
        assert!((50..=150).contains(&count), "{way:?} {count}");
        trial.bench.revert().unwrap();
        for port in arm {
            assert_ne!(trial.at(port).slot, trial.slot, "{way:?} port {port}");
        }
    }
}

/// What makes a black hole heal, for them too.
#[test]
fn a_syn_that_comes_again_goes_to_control() {
    for way in WAYS {
        let trial = Trial::new(SLOWEST);
        trial.step(MOST, SLOWEST);
        for port in 1..=FLOWS {
            trial.send(way, port, Flags::Syn);
        }
        let [_, new] = trial.counts();
        assert!(new.passed_over > u32::from(FLOWS) / 2, "{way:?}");
        for port in 1..=FLOWS {
            trial.send(way, port, Flags::Syn);
            assert_ne!(trial.at(port).slot, trial.slot, "{way:?} port {port}");
        }
        assert_eq!(trial.counts()[1].passed_over, new.passed_over, "{way:?}");
    }
}

/// The pace is the VIP's: one step's ends with it.
#[test]
fn a_step_may_follow_all() {
    let trial = Trial::new(SLOWEST);
    trial.step(SHARE + 1, pace::ALL);
    let before = trial.counts().map(|counts| counts.flows);
    for port in 1..=FLOWS {
        trial.send(Way::Long, port, Flags::Syn);
    }
    let after = trial.counts().map(|counts| counts.flows);
    let followed: u32 = after.iter().zip(before).map(|(now, then)| now - then).sum();
    assert_eq!(followed, u32::from(FLOWS));
}

/// Flows that come no faster than their VIP's pace are all followed, for longer than it allows in advance.
#[test]
fn slow_flows_are_all_followed() {
    const SLOW: u16 = 60;
    let trial = Trial::new(pace::of_rate(500));
    for port in 1..=SLOW {
        trial.send(Way::Long, port, Flags::Syn);
        std::thread::sleep(Duration::from_millis(2));
    }
    let [control, new] = trial.counts();
    assert_eq!(control.flows + new.flows, u32::from(SLOW));
    assert_eq!(control.passed_over + new.passed_over, 0);
}

/// A flow that is given up by the short way is one flow all the same: SHADOW has its VIP only by a port-0 VIP, so
/// that the new arm's flows go the long way, and control's the short one.
#[test]
fn whoever_goes_the_long_way_is_followed_as_often() {
    let vip = |name, port| (name, "203.0.113.5", port, "tcp", "web");
    let web = [("web", "ipip", &[("web-1", "10.0.5.1", "")][..])];
    let bench = Bench::new();
    commit(
        &bench,
        &services(&[vip("any", 0), vip("port", 80)], &web),
        1,
    );
    let new = bench.image(&services(&[vip("any", 0)], &web));
    let slot = bench.stage(&new).unwrap().slot;
    let trial = Trial::of(bench, new, slot, pace::of_rate(2_000));
    for _ in 0..8 {
        for port in 1..=5_000 {
            trial.send(Way::Short, port, Flags::Syn);
            trial.send(Way::Short, port, Flags::Ack);
            trial.send(Way::Short, port, Flags::RstAck);
        }
    }
    let [control, arm] = trial.counts_of("any");
    let followed = control.flows + arm.flows;
    assert!(control.passed_over > 0 && followed > 100, "{followed}");
    // A fair coin, 100 times and more: below a quarter has a chance of 10^-7.
    let quarter = followed / 4;
    assert!(
        (quarter..=3 * quarter).contains(&arm.flows),
        "{} of {followed} in the new arm",
        arm.flows
    );
}

/// A SYN of a flow that is followed comes again while its VIP's pace is used up: it goes to control.
#[test]
fn a_followed_flows_syn_that_comes_again_is_known_though_the_pace_is_used_up() {
    for way in WAYS {
        let trial = Trial::new(pace::ALL);
        trial.step(MOST, SLOWEST);
        trial.send(way, 1, Flags::Syn);
        trial.send(way, 2, Flags::Syn);
        let [_, new] = trial.counts();
        assert_eq!((new.flows, new.passed_over), (1, 1), "{way:?}");
        trial.send(way, 1, Flags::Syn);
        assert_ne!(trial.at(1).slot, trial.slot, "{way:?}");
        // Counted in neither arm: control's would not be seen.
        assert_eq!(trial.counts().map(|arm| arm.retried), [0, 0], "{way:?}");
    }
}

/// A client whose flows are one stays with control if he is passed over, in every step: nothing would heal him.
#[test]
fn a_client_that_is_passed_over_is_controls() {
    let bench = Bench::new();
    let affine = |numbers| flagged(&shop(numbers), "shop", "client-affinity");
    commit(&bench, &affine(&[1]), 1);
    let new = bench.image(&affine(&[2]));
    let slot = bench.stage(&new).unwrap().slot;
    let trial = Trial::of(bench, new, slot, SLOWEST);
    trial.step(MOST, SLOWEST);
    let from = |n: u16| Talk::new(&format!("198.51.100.{n}:4000"), "203.0.113.5:80");
    let new = (1..=100).filter(|n| {
        let syn = tcp(from(*n), Flags::Syn, &[]);
        probe(&trial.bench, &syn).slot == trial.slot
    });
    let new = u32::try_from(new.count()).unwrap();
    assert!(new <= trial.most(), "{new}");
    assert_eq!(trial.counts()[1].passed_over, 0);
}

#[test]
fn a_pace_of_more_than_16_bits_is_refused() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1]), 1);
    bench.stage(&bench.image(&shop(&[2]))).unwrap();
    let args = [SHARE, 1, 60_000, 60_000, 2];
    let put = put(1 << 16);
    let call = bench.kernel.guard.call(Op::Trial, 1, &args, put.as_bytes());
    assert_eq!(refusal(call), Some(Refusal::OutOfRange));
}
