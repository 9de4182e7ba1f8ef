//! The breaker's weights for a share of new flows.
//!
//! With share w, and failing shares d1 (new arm) and d0 (control) under the design, a failed flow is
//! of the new arm with chance `q = w d1 / (w d1 + (1 - w) d0)`, a completed one with chance
//! `s = w (1 - d1) / (w (1 - d1) + (1 - w) (1 - d0))`; under "harmless" both are w. Weights are the logs
//! of the ratios. Rounded down, they stay a bet that does not gain under "harmless": the chance
//! that a CUSUM of n steps ever reaches h is at most n exp(-h).

use lb_common::breaker::{Breaker, Design, Weights};

use super::number::{real, share};

/// Failing shares that the two designs suppose: new arm, control.
const TOTAL: (f64, f64) = (0.95, 0.02);
const HALF: (f64, f64) = (0.5, 0.02);
/// Chance that a design trips in a harmless step.
const FALSE_TRIPS: f64 = 1e-5;

/// Weights and thresholds for a step with this share, `vips` VIPs that are watched, and at most
/// `steps` looks at each (one a tick of the timer). `None` unless both arms get flows.
pub fn breaker(share_ppm: u32, vips: u64, steps: u64) -> Option<Breaker> {
    let w = share(share_ppm);
    let sums = real(steps.max(1)) * real(vips.max(1));
    let threshold = milli((sums / FALSE_TRIPS).ln() * 1000.0 + 1.0);
    let design = |fails| {
        Some(Design {
            weights: weights(w, fails)?,
            threshold: i64::from(threshold),
        })
    };
    Some(Breaker {
        total: design(TOTAL)?,
        half: design(HALF)?,
    })
}

fn weights(w: f64, (d1, d0): (f64, f64)) -> Option<Weights> {
    if !(w > 0.0 && w < 1.0) {
        return None;
    }
    let new = |new: f64, control: f64| w * new / (w * new + (1.0 - w) * control);
    let (q, s) = (new(d1, d0), new(1.0 - d1, 1.0 - d0));
    let nats = |chance: f64, under_harmless: f64| milli((chance / under_harmless).ln() * 1000.0);
    Some(Weights {
        failed_new: nats(q, w),
        failed_control: nats(1.0 - q, 1.0 - w),
        completed_new: nats(s, w),
        completed_control: nats(1.0 - s, 1.0 - w),
    })
}

/// Downwards, so that a weight is never more than its log.
#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are below 5 nats, thresholds below 100; the cast saturates"
)]
fn milli(value: f64) -> i32 {
    value.floor() as i32
}
