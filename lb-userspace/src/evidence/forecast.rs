//! How long a proof will take, before it is begun.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::noninferiority::Margin;
use super::number::{real, share};

/// What a VIP, or a pool's VIPs of one family, sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// New flows a second.
    pub flows_per_second: f64,
    /// Share of handshakes that fail anyhow.
    pub failing: f64,
}

/// How long all steps take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forecast {
    /// All of them together, if the change is good.
    After(Duration),
    /// One of them takes longer than it may.
    NotAtThisRate,
}

/// A step: its share of new flows in ppm, and the longest it may take.
pub type Step = (u32, Duration);

/// Time until a flow's handshake is judged, and until it is known how it ended.
const LATE: f64 = 0.5;
const ENDED: f64 = 2.5;

/// For these steps, each with what is followed in it, and each of which ends as soon as it is proven.
pub fn forecast(margin: Margin, steps: impl IntoIterator<Item = (Step, Traffic)>) -> Forecast {
    let mut total = 0.0;
    for ((share_ppm, within), traffic) in steps {
        match step(traffic, margin, share(share_ppm)) {
            Some(seconds) if seconds <= within.as_secs_f64() => total += seconds,
            _ => return Forecast::NotAtThisRate,
        }
    }
    Duration::try_from_secs_f64(total).map_or(Forecast::NotAtThisRate, Forecast::After)
}

fn step(traffic: Traffic, margin: Margin, w: f64) -> Option<f64> {
    let rate = traffic.flows_per_second;
    // As the judge: never quite zero.
    let p0 = traffic.failing.max(0.001);
    let new = real(margin.flows_needed(p0)?) / (rate * w);
    let control = real(margin.control_needed(p0)) / (rate * (1.0 - w));
    // The ends of half of the flows are awaited, too.
    let seconds = (new.max(control) + LATE).max(new / 2.0 + ENDED);
    seconds.is_finite().then_some(seconds)
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(time) if time.as_secs() < 120 => {
                write!(f, "about {} s", time.as_secs().saturating_add(1))
            }
            Self::After(time) => {
                let minutes = time.as_secs().div_ceil(60);
                write!(f, "about {minutes} min")
            }
            Self::NotAtThisRate => f.write_str("not at this rate"),
        }
    }
}
