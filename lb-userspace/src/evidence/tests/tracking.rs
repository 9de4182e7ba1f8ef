//! The tracker against a list of flows.

use lb_common::clock::MOST_LATE_NS;
use lb_common::evidence::{BIN_NS_SHIFT, Evidence, MemberEvidence, bin};
use proptest::prelude::*;
use zerocopy::FromZeros;

use crate::evidence::counts::{CONTROL, Counts, NEW, Raw};
use crate::evidence::tracker::{Timing, Tracker};

const MS: u64 = 1_000_000;
const WITHIN: u64 = 300 * MS;
const TIMING: Timing = Timing {
    within_ns: WITHIN,
    settle_ns: 0,
};
/// A host has been up for longer than a lap.
const START: u64 = 10_000 * MS;

#[derive(Clone, Copy, Debug)]
struct Flow {
    began: u64,
    new: bool,
    /// When complete after its begin, if in time.
    completes: Option<u64>,
}

impl Flow {
    /// When it began by the clock of the flows, which is late.
    const fn stamp(&self) -> u64 {
        self.began - (MOST_LATE_NS - 1)
    }
}

/// What the kernel's counters say at `now`, if they were `offset` before all flows.
fn counters(flows: &[Flow], now: u64, offset: u32) -> Raw {
    let mut arms = [Evidence::new_zeroed(), Evidence::new_zeroed()];
    for arm in &mut arms {
        arm.started = [offset; 32];
        arm.completed = [offset; 32];
        arm.flows = offset;
    }
    let mut members = [MemberEvidence::default(); 2];
    for flow in flows.iter().filter(|flow| flow.began <= now) {
        let arm = usize::from(flow.new);
        let bin = bin(flow.stamp());
        arms[arm].started[bin] = arms[arm].started[bin].wrapping_add(1);
        arms[arm].flows = arms[arm].flows.wrapping_add(1);
        members[arm].started += 1;
        if flow
            .completes
            .is_some_and(|after| flow.began + after <= now)
        {
            arms[arm].completed[bin] = arms[arm].completed[bin].wrapping_add(1);
            arms[arm].response[2] += 1;
            members[arm].completed += 1;
        }
    }
    let mut raw = Raw::default();
    raw.vips.insert(7, arms);
    raw.members.insert(9, members);
    raw
}

/// Started and completed of the bins after `began`'s that are mature at `now`.
fn truth(flows: &[Flow], began: u64, now: u64, new: bool) -> (u64, u64) {
    let mature = |flow: &&Flow| {
        let bin = flow.stamp() >> BIN_NS_SHIFT;
        let mature = ((bin + 1) << BIN_NS_SHIFT) + WITHIN + MOST_LATE_NS < now;
        flow.new == new && bin > began >> BIN_NS_SHIFT && mature
    };
    let flows: Vec<_> = flows.iter().filter(mature).collect();
    let completed = flows.iter().filter(|flow| flow.completes.is_some());
    (flows.len() as u64, completed.count() as u64)
}

fn flows(seconds: u64) -> impl Strategy<Value = Vec<Flow>> {
    let flow = (
        0..seconds * 1000,
        any::<bool>(),
        prop::option::weighted(0.7, 0..=300_u64),
    );
    prop::collection::vec(flow, 0..400).prop_map(|flows| {
        let flow = |(began, new, completes): (u64, bool, Option<u64>)| Flow {
            began: START + began * MS + 77,
            new,
            completes: completes.map(|ms| ms * MS),
        };
        flows.into_iter().map(flow).collect()
    })
}

/// Runs readings with these gaps (ms); the step begins at reading `begin`.
fn run(flows: &[Flow], gaps: &[u64], begin: usize, offset: u32) -> Vec<(u64, u64, Counts)> {
    let mut tracker = Tracker::new(TIMING);
    let (mut now, mut began, mut rounds) = (START, 0, Vec::new());
    for (number, gap) in gaps.iter().enumerate() {
        now += gap * MS;
        let raw = counters(flows, now, offset);
        if number == begin {
            tracker.begin_stage(&raw, now);
            began = now;
        }
        let counts = tracker.round(&raw, now);
        if number >= begin {
            rounds.push((began, now, counts.clone()));
        }
    }
    rounds
}

proptest! {
    /// Rounds that are never more than 2.5 s apart lose nothing and invent nothing.
    #[test]
    fn every_flow_is_counted_once(
        flows in flows(20),
        gaps in prop::collection::vec(prop_oneof![9 => 50..150_u64, 1 => 150..2_400_u64], 60),
        begin in 8..20_usize,
        offset in prop_oneof![Just(0), Just(u32::MAX - 3)],
    ) {
        for (began, now, counts) in run(&flows, &gaps, begin, offset) {
            prop_assert_eq!(&counts.suspect, &None);
            let arms = counts.vips[&7];
            for (arm, new) in [(CONTROL, false), (NEW, true)] {
                let (started, completed) = truth(&flows, began, now, new);
                prop_assert_eq!(arms[arm].started, started);
                prop_assert_eq!(arms[arm].completed, completed);
                let all = flows.iter().filter(|f| f.new == new && f.began > began && f.began <= now);
                prop_assert_eq!(arms[arm].flows, all.count() as u64);
            }
        }
    }

    /// Whatever is missed: no flow too many, no failure that was none, no flow of before.
    #[test]
    fn missed_rounds_lose_flows_at_most(
        flows in flows(60),
        gaps in prop::collection::vec(
            prop_oneof![6 => 50..150_u64, 2 => 150..5_000_u64, 1 => 4_000..14_000_u64], 30),
        begin in 0..12_usize,
        offset in prop_oneof![Just(0), Just(u32::MAX - 3)],
    ) {
        for (began, now, counts) in run(&flows, &gaps, begin, offset) {
            prop_assert_eq!(&counts.suspect, &None);
            let arms = counts.vips[&7];
            for (arm, new) in [(CONTROL, false), (NEW, true)] {
                let (started, completed) = truth(&flows, began, now, new);
                let seen = arms[arm];
                prop_assert!(seen.completed <= completed && seen.completed <= seen.started);
                prop_assert!(seen.started - seen.completed <= started - completed);
            }
        }
    }

    /// Mature flows of a member have had their time.
    #[test]
    fn members_mature(
        flows in flows(20),
        gaps in prop::collection::vec(50..900_u64, 40),
        begin in 0..12_usize,
    ) {
        for (began, now, counts) in run(&flows, &gaps, begin, 0) {
            let arms = counts.members[&9];
            for (arm, new) in [(CONTROL, false), (NEW, true)] {
                let of = |late: u64| flows.iter()
                    .filter(|f| f.new == new && f.began > began && f.began + late <= now)
                    .count() as u64;
                prop_assert_eq!(arms[arm].started, of(0));
                prop_assert!(arms[arm].mature <= of(WITHIN));
                prop_assert!(arms[arm].mature >= of(2 * WITHIN + 900 * MS));
            }
        }
    }
}

#[test]
fn ends_of_an_earlier_step_are_left_out_until_it_has_settled() {
    let mut tracker = Tracker::new(Timing {
        settle_ns: 4_000 * MS,
        ..TIMING
    });
    let mut raw = counters(&[], 0, 0);
    let mut round = |begin: bool, ms: u64| {
        let Some([_, new]) = raw.vips.get_mut(&7) else {
            panic!("it is there");
        };
        (new.response[2], new.flows) = (new.response[2] + 1, new.flows + 1);
        if begin {
            tracker.begin_stage(&raw, ms * MS);
        }
        let counts = tracker.round(&raw, ms * MS).vips[&7][NEW];
        (counts.response[2], counts.flows)
    };
    assert_eq!(round(true, 2_000), (0, 0));
    assert_eq!(round(false, 5_900), (0, 1));
    assert_eq!(round(false, 6_000), (1, 2));
}

#[test]
fn what_falls_or_is_missing_is_seen() {
    let flow = Flow {
        began: 1_000 * MS,
        new: true,
        completes: None,
    };
    let mut tracker = Tracker::new(TIMING);
    tracker.begin_stage(&counters(&[], 500 * MS, 0), 500 * MS);
    let counts = tracker.round(&counters(&[flow], 2_000 * MS, 0), 2_000 * MS);
    assert_eq!((counts.suspect.as_ref(), counts.vips.len()), (None, 1));
    let counts = tracker.round(&Raw::default(), 2_100 * MS);
    assert_eq!((counts.suspect.as_ref(), counts.vips.len()), (None, 0));
    let counts = tracker.round(&counters(&[], 2_200 * MS, 0), 2_200 * MS);
    assert_eq!(
        counts.suspect.as_deref(),
        Some("a counter of member 9 went backwards")
    );
}

#[test]
fn cpus_are_added_up() {
    let mut raw = Raw::default();
    let mut one = Evidence::new_zeroed();
    one.started[3] = u32::MAX;
    one.hard = 5;
    let mut other = Evidence::new_zeroed();
    other.started[3] = 2;
    raw.add_vip(1, &one, &other);
    raw.add_vip(1, &other, &other);
    let arms = &raw.vips[&1];
    assert_eq!((arms[CONTROL].started[3], arms[NEW].started[3]), (1, 4));
    assert_eq!((arms[CONTROL].hard, arms[NEW].hard), (5, 0));
}
