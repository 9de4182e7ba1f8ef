//! A judged trial and none, by turns, on one balancer: another balancer's tables lie elsewhere in memory, which
//! alone is worth some percent.

use std::time::Duration;

use lb_common::breaker::Breaker;
use lb_common::control::control_flag;
use lb_common::flow::MAX_CHANGE;
use lb_common::guard::{Op, TrialPut};
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

/// Trials of a change of one backend's weight.
pub struct Trials {
    image: Image,
    share: u64,
    changes: u64,
}

impl Trials {
    /// Trials on a balancer of the usual size, in which the new arm has this share of new flows.
    pub fn new(bench: &Bench, share: u64) -> Self {
        Self {
            image: bench.image(&services(USUAL, 200)),
            share,
            changes: 0,
        }
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
            reserved: 0,
        };
        let change = self.changes % u64::from(MAX_CHANGE) + 1;
        self.changes += 1;
        let args = [self.share, 0x5eed, TRIAL_MS, TRIAL_MS, change];
        let guard = &bench.kernel.guard;
        guard
            .call(Op::Trial, bench.active(), &args, put.as_bytes())
            .expect("on trial");
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
