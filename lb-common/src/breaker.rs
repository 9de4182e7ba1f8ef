//! The breaker (K8): a CUSUM over the labels of failed and succeeded handshakes, in integers, for
//! the kernel's timer. The agent computes the weights beforehand; from then on nobody is needed.
//!
//! A flow's arm is drawn with probability w, whatever becomes of the flow, if the change is
//! harmless. Each weight is the log of how much likelier that label is, given the outcome, under
//! a design (how bad the new arm is supposed to be) than under w. So the exponential of a sum
//! of weights is a fair bet under "harmless", and an attack, which hits both arms, does not move it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::evidence::{BIN_NS_SHIFT, BINS};

/// What one flow adds, milli-nats, by outcome and arm.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Weights {
    /// Not complete in time, new arm; positive.
    pub failed_new: i32,
    /// Not complete in time, control arm; negative.
    pub failed_control: i32,
    /// Complete in time, new arm; negative.
    pub completed_new: i32,
    /// Complete in time, control arm; positive.
    pub completed_control: i32,
}

/// A supposed fault: its weights, and the sum that proves it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Design {
    /// Per flow.
    pub weights: Weights,
    /// Milli-nats at which it trips; 0 = off.
    pub threshold: i64,
}

/// The two designs of a trial step. All zero never trips.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Breaker {
    /// 95 % of the new arm's flows fail, and 2 % of control's.
    pub total: Design,
    /// 50 % of the new arm's flows fail, and 2 % of control's.
    pub half: Design,
}

/// Sums of one VIP since its trial step began, milli-nats, never negative.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sums {
    /// Of [`Breaker::total`].
    pub total: i64,
    /// Of [`Breaker::half`].
    pub half: i64,
    /// Flows since both were 0.
    pub since: Tally,
}

/// Flows whose outcome became known since the last step: of bins that are mature now and were
/// not then.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tally {
    /// Not complete in time, new arm.
    pub failed_new: u32,
    /// Not complete in time, control arm.
    pub failed_control: u32,
    /// Complete in time, new arm.
    pub completed_new: u32,
    /// Complete in time, control arm.
    pub completed_control: u32,
}

impl Tally {
    /// From what was started and completed. A completed flow that did not start is not counted:
    /// a broken counter must not trip.
    #[inline(always)]
    pub const fn of(new: (u32, u32), control: (u32, u32)) -> Self {
        Self {
            failed_new: new.0.saturating_sub(new.1),
            failed_control: control.0.saturating_sub(control.1),
            completed_new: if new.1 < new.0 { new.1 } else { new.0 },
            completed_control: if control.1 < control.0 {
                control.1
            } else {
                control.0
            },
        }
    }

    /// Both together; counts end at [`MOST`].
    #[must_use]
    #[inline(always)]
    pub const fn plus(self, more: &Self) -> Self {
        Self {
            failed_new: bounded(self.failed_new, more.failed_new),
            failed_control: bounded(self.failed_control, more.failed_control),
            completed_new: bounded(self.completed_new, more.completed_new),
            completed_control: bounded(self.completed_control, more.completed_control),
        }
    }

    /// Whether the new arm's handshakes really fail, and more often than control's: labels that were
    /// drawn wrongly drive the sums as well.
    #[inline(always)]
    pub const fn is_worse(&self) -> bool {
        let new = self.failed_new as u64 + self.completed_new as u64;
        let control = self.failed_control as u64 + self.completed_control as u64;
        // failed / all of the new arm > failed / all of control + 1 / FLOOR.
        let (fails, failed) = (
            self.failed_new as u64 * control,
            self.failed_control as u64 * new,
        );
        self.failed_new >= FEWEST && fails * FLOOR > failed * FLOOR + new * control
    }
}

#[inline(always)]
const fn bounded(a: u32, b: u32) -> u32 {
    let sum = a.saturating_add(b);
    if sum < MOST { sum } else { MOST }
}

/// Failed flows of the new arm without which nothing trips.
const FEWEST: u32 = 3;
/// One part in so many is the smallest difference of failing shares that trips: 2 points, as for
/// the agent.
const FLOOR: u64 = 50;
/// More flows than that count as that many: four products of an `i32` and this can't leave an `i64`,
/// nor [`FLOOR`] times a product of two sums of two of them a `u64`.
const MOST: u32 = (1 << 27) - 1;
/// Highest sum: adding one step's terms can't leave an `i64`.
const HIGHEST: i64 = 1 << 61;

#[inline(always)]
const fn term(weight: i32, flows: u32) -> i64 {
    let flows = if flows < MOST { flows } else { MOST };
    (weight as i64).wrapping_mul(flows as i64)
}

impl Design {
    /// The sum after one more step. No product or sum below can overflow; the wrapping forms say
    /// so without a check that a BPF program would have to carry.
    #[inline(always)]
    pub const fn step(&self, sum: i64, flows: &Tally) -> i64 {
        let sum = if sum < HIGHEST { sum } else { HIGHEST };
        let sum = if sum > 0 { sum } else { 0 };
        let sum = sum
            .wrapping_add(term(self.weights.failed_new, flows.failed_new))
            .wrapping_add(term(self.weights.failed_control, flows.failed_control))
            .wrapping_add(term(self.weights.completed_new, flows.completed_new))
            .wrapping_add(term(
                self.weights.completed_control,
                flows.completed_control,
            ));
        let sum = if sum > 0 { sum } else { 0 };
        if sum < HIGHEST { sum } else { HIGHEST }
    }

    /// Whether this sum proves the fault.
    #[inline(always)]
    pub const fn trips(&self, sum: i64) -> bool {
        self.threshold > 0 && sum >= self.threshold
    }
}

impl Breaker {
    /// Adds a step to both sums; whether one of them trips.
    #[inline(always)]
    pub const fn step(&self, sums: &mut Sums, flows: &Tally) -> bool {
        sums.total = self.total.step(sums.total, flows);
        sums.half = self.half.step(sums.half, flows);
        sums.since = sums.since.plus(flows);
        if sums.total == 0 && sums.half == 0 {
            *sums = Sums::ZERO;
        }
        (self.total.trips(sums.total) || self.half.trips(sums.half)) && sums.since.is_worse()
    }
}

impl Sums {
    /// Before the first step.
    pub const ZERO: Self = Self {
        total: 0,
        half: 0,
        since: Tally {
            failed_new: 0,
            failed_control: 0,
            completed_new: 0,
            completed_control: 0,
        },
    };
}

/// VIPs that the kernel's breaker watches: those that the change moves, as many as fit.
pub const WATCHED: u32 = 64;

/// The breaker of a trial's step, as the timer keeps it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct BreakerState {
    /// The weights of this step.
    pub breaker: Breaker,
    /// Number of the bin that is judged next, once it is mature.
    pub next_bin: u64,
    /// Bins of the ring whose counters were noted before they began.
    pub noted: u32,
    /// Elements of the watch list that are in use.
    pub watched: u32,
}

/// A VIP that is watched: what its counters were when a bin began, and its sums.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Watched {
    /// Since the step began.
    pub sums: Sums,
    /// By bin: started and completed in control, started and completed in the new arm.
    pub noted: [[u32; 4]; BINS],
    /// Number of the VIP.
    pub vip: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bins below this number are mature: all of their handshakes that are complete in time are
/// counted. Times are boot-clock ns by the clock of the flows ([`crate::clock`]); `within_ns` is the time
/// that a handshake has.
#[inline(always)]
pub const fn mature_before(now_ns: u64, within_ns: u64) -> u64 {
    now_ns.saturating_sub(within_ns).saturating_sub(1) >> BIN_NS_SHIFT
}

const _: () = assert!(size_of::<Weights>() == 16);
const _: () = assert!(size_of::<Design>() == 24);
const _: () = assert!(size_of::<Breaker>() == 48);
const _: () = assert!(size_of::<Sums>() == 32);
const _: () = assert!(size_of::<BreakerState>() == 64);
const _: () = assert!(size_of::<Watched>() == 552);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DESIGN: Design = Design {
        weights: Weights {
            failed_new: 2_000,
            failed_control: -3_000,
            completed_new: -900,
            completed_control: 70,
        },
        threshold: 10_000,
    };

    #[test]
    fn failures_of_the_new_arm_alone_trip() {
        let failing = Tally::of((1, 0), (9, 9));
        let mut sum = 0;
        for _ in 0..3 {
            sum = DESIGN.step(sum, &failing);
            assert!(!DESIGN.trips(sum));
        }
        sum = DESIGN.step(sum, &failing);
        assert_eq!(sum, 4 * (2_000 + 9 * 70));
        assert!(DESIGN.trips(sum));
        // The same failures in both arms: an attack.
        assert_eq!(DESIGN.step(0, &Tally::of((1, 0), (9, 0))), 0);
    }

    #[test]
    fn zeros_never_trip() {
        let mut sums = Sums::default();
        assert!(!Breaker::default().step(&mut sums, &Tally::of((u32::MAX, 0), (0, 0))));
        assert!(!Design::default().trips(i64::MAX));
    }

    fn both() -> Breaker {
        Breaker {
            total: DESIGN,
            half: DESIGN,
        }
    }

    /// Clients that always come from the same ports: control may have all of them.
    #[test]
    fn an_arm_without_flows_never_trips() {
        let mut sums = Sums::ZERO;
        for _ in 0..1_000 {
            assert!(!both().step(&mut sums, &Tally::of((0, 0), (90, 90))));
        }
        assert!(DESIGN.trips(sums.total), "by the sum alone it would");
        assert!(!both().step(&mut sums, &Tally::of((2, 0), (90, 90))));
        assert!(both().step(&mut sums, &Tally::of((1, 0), (90, 90))));
    }

    #[test]
    fn what_was_before_the_sums_were_zero_is_forgotten() {
        let mut sums = Sums::ZERO;
        both().step(&mut sums, &Tally::of((2, 0), (0, 0)));
        assert_eq!(sums.since.failed_new, 2);
        both().step(&mut sums, &Tally::of((90, 90), (0, 0)));
        assert_eq!(sums, Sums::ZERO);
    }

    #[test]
    fn worse_is_worse_by_more_than_two_points() {
        let tally = |failed_new, failed_control| Tally {
            failed_new,
            failed_control,
            completed_new: 1_000 - failed_new,
            completed_control: 1_000 - failed_control,
        };
        assert!(!tally(30, 10).is_worse());
        assert!(tally(31, 10).is_worse());
        assert!(!tally(10, 31).is_worse());
    }

    #[test]
    fn a_bin_is_mature_when_its_last_flow_is_late() {
        let (bin, late) = (1_u64 << BIN_NS_SHIFT, 300_000_000);
        assert_eq!(mature_before(5 * bin + late, late), 4);
        assert_eq!(mature_before(5 * bin + late + 1, late), 5);
        assert_eq!(mature_before(late, late), 0);
        assert_eq!(mature_before(0, late), 0);
    }

    proptest! {
        #[test]
        fn worse_is_what_wide_arithmetic_says(flows: [u32; 4]) {
            let tally = Tally::default().plus(&Tally {
                failed_new: flows[0],
                failed_control: flows[1],
                completed_new: flows[2],
                completed_control: flows[3],
            });
            let [bad, failed, good, completed] = flows.map(|n| i128::from(n.min(MOST)));
            let (new, control) = (bad + good, failed + completed);
            let more = 50 * (bad * control - failed * new) > new * control;
            prop_assert_eq!(tally.is_worse(), bad >= 3 && more);
        }

        /// Whatever is in the maps: as wide arithmetic says, bounded, and without a panic.
        #[test]
        fn steps_are_bounded_sums(w: [i32; 4], flows: [u32; 4], sum: i64) {
            let design = Design {
                weights: Weights {
                    failed_new: w[0],
                    failed_control: w[1],
                    completed_new: w[2],
                    completed_control: w[3],
                },
                threshold: 1,
            };
            let tally = Tally {
                failed_new: flows[0],
                failed_control: flows[1],
                completed_new: flows[2],
                completed_control: flows[3],
            };
            let wide = i128::from(sum.clamp(0, HIGHEST))
                + w.iter()
                    .zip(flows)
                    .map(|(w, n)| i128::from(*w) * i128::from(n.min(MOST)))
                    .sum::<i128>();
            prop_assert_eq!(
                i128::from(design.step(sum, &tally)),
                wide.clamp(0, i128::from(HIGHEST))
            );
        }
    }
}
