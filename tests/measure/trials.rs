//! A judged trial and none, by turns, on one balancer: another balancer's tables lie elsewhere in memory, which
//! alone is worth some percent.

use std::time::Duration;

use lb_common::breaker::Breaker;
use lb_common::control::{SHARE_ALL, control_flag};
use lb_common::flow::MAX_CHANGE;
use lb_common::guard::{Op, TrialPut};
use lb_common::pace::MOST;
use lb_userspace::evidence::pace;
use lb_userspace::kernel::image::Image;
use zerocopy::IntoBytes as _;

use crate::bench::Bench;
use crate::measure::balancer::{USUAL, services};

/// Longer than the guard wants between a trial's end and the next change.
const REST: Duration = Duration::from_millis(150);
/// Time for a handshake.
const HANDSHAKE_MS: u32 = 300;
/// Longer than any turn.
const TRIAL_MS: u64 = 3_600_000;

/// What a trial is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its step, from 0 on.
    pub number: u32,
    /// Share of new flows that the new arm has, of [`SHARE_ALL`].
    pub share: u32,
}

/// Trials of a change of one backend's weight.
pub struct Trials {
    image: Image,
    step: Step,
    pace: u32,
    changes: u64,
}

impl Trials {
    /// Trials on a balancer of the usual size, at this step, with what is followed of new flows (see
    /// [`lb_common::pace`]).
    pub fn new(bench: &Bench, step: Step, pace: u16) -> Self {
        Self {
            image: bench.image(&services(USUAL, 200)),
            step,
            pace: pace.into(),
            changes: 0,
        }
    }

    /// The same with what the agent has followed, of one VIP with any number of flows.
    pub fn as_shipped(bench: &Bench, step: Step) -> Self {
        let ppm = u64::from(step.share) * 1_000_000 / u64::from(SHARE_ALL);
        let number = usize::try_from(step.number).expect("a small number");
        let share_ppm = u32::try_from(ppm).expect("a million at most");
        let rate = pace::in_step(f64::from(MOST), number, share_ppm);
        Self::new(bench, step, pace::of_kernel(rate))
    }

    /// Begins a turn, with a trial or without. Alike as far as can be: rest and work before a turn are
    /// seen in its figures.
    pub fn begin(&mut self, bench: &Bench, on_trial: bool) {
        std::thread::sleep(REST);
        bench.stage(&self.image).expect("staged");
        if !on_trial {
            return;
        }
        let put = TrialPut {
            breaker: Breaker::default(),
            within_ms: HANDSHAKE_MS,
            pace: self.pace,
        };
        let change = self.changes % u64::from(MAX_CHANGE) + 1;
        self.changes += 1;
        let (guard, active) = (&bench.kernel.guard, bench.active());
        let earlier = u64::from(self.step.share - self.step.number);
        let args = [earlier, 0x5eed, TRIAL_MS, TRIAL_MS, change];
        guard
            .call(Op::Trial, active, &args, put.as_bytes())
            .expect("on trial");
        for number in 1..=u64::from(self.step.number) {
            let args = [earlier + number, 0x5eed, TRIAL_MS];
            guard
                .call(Op::Step, active, &args, put.as_bytes())
                .expect("the next step");
        }
    }

    /// Ends a turn.
    pub fn end(&self, bench: &Bench, on_trial: bool) {
        if !on_trial {
            return;
        }
        let record = bench.record();
        let lives = record.flags & control_flag::TRIAL != 0;
        assert!(lives, "the trial has ended meanwhile: {record:?}");
        bench.revert().expect("reverted");
    }
}

/// Which turns a round has, in order: by turns the one first and the other.
pub const fn turns(round: usize) -> [bool; 2] {
    [round % 2 == 1, round.is_multiple_of(2)]
}
