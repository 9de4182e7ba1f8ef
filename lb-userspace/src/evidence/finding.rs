//! A proof that the new arm is worse, with all of its numbers.

use std::f64::consts::LN_10;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::signals::{Compare, Outcomes, Signal, Transport};

/// What was proven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// S1 to S17.
    pub signal: String,
    /// What it is about.
    pub what: What,
    /// The VIP that it was seen at, or the pool.
    pub subject: String,
    /// VIP id; none for a backend.
    pub vip: Option<u16>,
    /// The new arm.
    pub new: Numbers,
    /// The control arm, or the rest of the pool.
    pub control: Numbers,
    /// ln E.
    pub ln_e: f64,
    /// ln E from which it is proof.
    pub ln_needed: f64,
    /// How much worse, in ppm of flows.
    pub effect_ppm: i64,
    /// Share of new flows that the new arm had, ppm.
    pub share_ppm: u32,
    /// Seen in a block of 10 s rather than over the whole step.
    pub block: bool,
    /// Flows that the new arm has got since the trial began, of this VIP (of all, for a backend).
    pub flows_exposed: u64,
    /// Time since the trial began, ms.
    pub exposed_ms: u64,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A signal of a VIP.
    Signal(Signal),
    /// A backend that never answers.
    SilentBackend,
}

/// One side's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Flows that are known to be good or bad.
    pub flows: u64,
    /// Bad ones (events, for ICMP).
    pub bad: u64,
    /// Flows by bucket, for distributions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<u64>,
}

impl Numbers {
    pub(super) fn of(signal: Signal, outcomes: &Outcomes) -> Self {
        let rate = signal.compare() == Compare::Rate;
        Self {
            flows: outcomes.of,
            bad: if rate { outcomes.rate().bad } else { 0 },
            buckets: if rate {
                Vec::new()
            } else {
                outcomes.flows().to_vec()
            },
        }
    }

    fn good(&self) -> u64 {
        self.flows.saturating_sub(self.bad)
    }
}

impl What {
    pub(super) fn id(self, transport: Transport) -> &'static str {
        match self {
            Self::Signal(signal) => signal.id(transport),
            Self::SilentBackend => "S12",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (new, control) = (&self.new, &self.control);
        match self.what {
            What::Signal(signal) => {
                write!(f, "{} {} of {}: ", self.signal, signal.name(), self.subject)?;
                self.signal_numbers(f, signal)?;
            }
            What::SilentBackend => write!(
                f,
                "{} {}: 0 of {} new flows completed against {} of {}",
                self.signal,
                self.subject,
                new.flows,
                control.good(),
                control.flows
            )?,
        }
        let ten = |ln: f64| ln / LN_10;
        write!(
            f,
            " (e = 10^{:.1}, needs 10^{:.1})",
            ten(self.ln_e),
            ten(self.ln_needed)
        )
    }
}

impl Finding {
    fn signal_numbers(&self, f: &mut fmt::Formatter<'_>, signal: Signal) -> fmt::Result {
        let (new, control) = (&self.new, &self.control);
        #[expect(clippy::cast_precision_loss, reason = "bounded by a million")]
        let percent = self.effect_ppm as f64 / 1e4;
        match signal {
            Signal::Handshakes => write!(
                f,
                "{} of {} new flows completed against {} of {}",
                new.good(),
                new.flows,
                control.good(),
                control.flows
            ),
            Signal::Response => write!(
                f,
                "{percent:.0} % of {} new flows are unlike {} control flows",
                new.flows, control.flows
            ),
            Signal::Wait => write!(
                f,
                "{percent:.0} % of {} new flows wait longer than {} control flows",
                new.flows, control.flows
            ),
            Signal::Unreachable | Signal::TooBig => write!(
                f,
                "{} for {} new flows against {} for {}",
                new.bad, new.flows, control.bad, control.flows
            ),
            Signal::Retried | Signal::EarlyEnd | Signal::Resent => write!(
                f,
                "{} of {} new flows against {} of {}",
                new.bad, new.flows, control.bad, control.flows
            ),
        }
    }
}
