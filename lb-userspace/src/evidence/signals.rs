//! The signals as data: which counts are outcomes, and which difference is bad.

use lb_common::evidence::{NO_REQUEST, RESPONSES};
use serde::{Deserialize, Serialize};

use super::counts::VipCounts;
use super::number::{ratio, real};

/// Outcomes that a signal has at most.
pub const OUTCOMES: usize = RESPONSES;
/// One flow may cause several ICMP errors: that many count as one flow.
const PER_FLOW: u64 = 4;

/// What of a VIP's traffic tells how well it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// S1, and S17 for QUIC: handshake not complete in time.
    Handshakes,
    /// S2: the SYN came again.
    Retried,
    /// S3: reset or closed by the client without an answer.
    EarlyEnd,
    /// S4: bytes of response.
    Response,
    /// S5: time to the first response.
    Wait,
    /// S6: the client sent something again.
    Resent,
    /// S7: ICMP errors from backends or routers.
    Unreachable,
    /// S7: packets that did not fit.
    TooBig,
}

/// Whose signals a VIP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// All of them.
    Tcp,
    /// Handshakes, as S17, and ICMP errors.
    Quic,
    /// ICMP errors only.
    Udp,
}

/// How two arms are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The first outcome is bad: worse is a larger share of it.
    Rate,
    /// Any other distribution is bad. A wrong pool may answer shorter or longer, so neither way is
    /// harmless; the effect is the total-variation distance, the share of flows that would have
    /// to change their bucket.
    Shape,
    /// Outcomes are ordered, and later ones are worse: the effect is the largest surplus of the
    /// new arm beyond any bucket (one-sided Kolmogorov-Smirnov). A pool that answers sooner is
    /// no fault; one that answers sooner because it is the wrong one has S3 and S4 against it.
    Later,
}

/// Bad flows of all flows, or bad events of all flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Bad ones.
    pub bad: u64,
    /// All.
    pub of: u64,
}

/// What a signal says of one arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcomes {
    flows: [u64; OUTCOMES],
    used: usize,
    /// Flows that the share of the first outcome is taken of.
    pub of: u64,
}

impl Signal {
    /// Those that flows of this transport have. Of equal proofs the first is told, so what says more
    /// comes first: a flow whose packets are lost gets no response either.
    pub fn of(transport: Transport) -> &'static [Self] {
        match transport {
            Transport::Tcp => &[
                Self::Handshakes,
                Self::Retried,
                Self::EarlyEnd,
                Self::Resent,
                Self::Unreachable,
                Self::TooBig,
                Self::Wait,
                Self::Response,
            ],
            Transport::Quic => &[Self::Handshakes, Self::Unreachable, Self::TooBig],
            Transport::Udp => &[Self::Unreachable, Self::TooBig],
        }
    }

    /// Its number in the documentation.
    pub fn id(self, transport: Transport) -> &'static str {
        match self {
            Self::Handshakes if transport == Transport::Quic => "S17",
            Self::Handshakes => "S1",
            Self::Retried => "S2",
            Self::EarlyEnd => "S3",
            Self::Response => "S4",
            Self::Wait => "S5",
            Self::Resent => "S6",
            Self::Unreachable | Self::TooBig => "S7",
        }
    }

    /// Its name in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Retried => "repeated SYNs",
            Self::EarlyEnd => "early ends",
            Self::Response => "response sizes",
            Self::Wait => "waiting times",
            Self::Resent => "packets sent again",
            Self::Unreachable => "ICMP errors",
            Self::TooBig => "packets too big",
        }
    }

    /// How arms are compared by it.
    pub fn compare(self) -> Compare {
        match self {
            Self::Response => Compare::Shape,
            Self::Wait => Compare::Later,
            _ => Compare::Rate,
        }
    }

    /// Its part of alpha: half is for handshakes, which show most faults first, and the other half
    /// for all else.
    pub fn part_of_alpha(self, transport: Transport) -> f64 {
        let others = Self::of(transport)
            .iter()
            .filter(|signal| **signal != Self::Handshakes)
            .count();
        match (transport, self) {
            (Transport::Udp, _) => 1.0 / real(others as u64),
            (_, Self::Handshakes) => 0.5,
            _ => 0.5 / real(others as u64),
        }
    }

    /// Whether only flows whose handshake was complete have it. If handshakes fail in one arm, such
    /// flows no longer come with the share that was set: that is S1's finding, not this signal's.
    pub fn after_handshake(self) -> bool {
        use Signal::{EarlyEnd, Resent, Response, Wait};
        matches!(self, EarlyEnd | Response | Wait | Resent)
    }

    /// How many events of it may be one flow's.
    pub fn per_flow(self) -> u64 {
        match self {
            Self::Unreachable | Self::TooBig => PER_FLOW,
            _ => 1,
        }
    }

    /// Bad flows, and the flows that they are a share of; none for distributions.
    #[inline]
    pub fn rate(self, counts: &VipCounts) -> Option<Rate> {
        let [alive, closed, empty, reset] = counts.end;
        let [nothing, again @ ..] = counts.resent;
        let [protocol, port, host, too_big] = counts.icmp;
        let (bad, of) = match self {
            Self::Handshakes => (
                counts.started.saturating_sub(counts.completed),
                counts.started,
            ),
            Self::Retried => (counts.retried, counts.started),
            Self::EarlyEnd => (sum(&[empty, reset]), sum(&[alive, closed, empty, reset])),
            Self::Resent => (sum(&again), sum(&again).saturating_add(nothing)),
            Self::Unreachable => (sum(&[protocol, port, host]), counts.flows),
            Self::TooBig => (too_big, counts.flows),
            Self::Response | Self::Wait => return None,
        };
        Some(Rate { bad, of })
    }

    /// Its outcomes in one arm.
    ///
    /// Where a flow is put under "not bad" before it can't become bad any more (S2, S7), only the bad
    /// outcome is bet on: an outcome that a flow could leave again would not be a fair bet.
    pub fn look(self, counts: &VipCounts) -> Outcomes {
        match self.rate(counts) {
            Some(Rate { bad, of }) => {
                let stays = !matches!(self, Self::Retried | Self::Unreachable | Self::TooBig);
                let good = if stays { of.saturating_sub(bad) } else { 0 };
                let outcomes = many(&[bad, good]);
                Outcomes { of, ..outcomes }
            }
            None if self == Self::Response => many(&counts.response),
            None => many(counts.wait.get(..NO_REQUEST).unwrap_or_default()),
        }
    }

    /// How much worse the new arm is: a difference of shares of flows, -1 to 1; 0 while an arm has no
    /// flows.
    pub fn effect(self, new: &Outcomes, control: &Outcomes) -> f64 {
        if new.of == 0 || control.of == 0 {
            return 0.0;
        }
        match self.compare() {
            Compare::Rate => new.rate().surplus(control.rate(), self.per_flow()),
            Compare::Shape => {
                let off = |(n, c): (f64, f64)| (n - c).abs();
                new.shares().zip(control.shares()).map(off).sum::<f64>() / 2.0
            }
            Compare::Later => {
                let (mut up_to, mut worst) = (0.0, 0.0_f64);
                for (n, c) in new.shares().zip(control.shares()) {
                    // What control has more of up to here, the new arm has more of beyond.
                    up_to += c - n;
                    worst = worst.max(up_to);
                }
                worst
            }
        }
    }
}

impl Outcomes {
    /// Flows by outcome: the labels that the bet is on.
    pub fn flows(&self) -> &[u64] {
        self.flows.get(..self.used).unwrap_or_default()
    }

    /// Without what was there before.
    #[must_use]
    pub fn minus(mut self, before: &Self) -> Self {
        for (now, then) in self.flows.iter_mut().take(self.used).zip(&before.flows) {
            *now = now.saturating_sub(*then);
        }
        self.of = self.of.saturating_sub(before.of);
        self
    }

    /// The first outcome as a share of all.
    pub fn rate(&self) -> Rate {
        Rate {
            bad: self.flows.first().copied().unwrap_or(0),
            of: self.of,
        }
    }

    fn shares(&self) -> impl Iterator<Item = f64> + '_ {
        let one = 1.0 / real(self.of.max(1));
        self.flows().iter().map(move |flows| real(*flows) * one)
    }
}

impl Rate {
    /// Without what was there before.
    #[inline]
    #[must_use]
    pub fn minus(self, before: Self) -> Self {
        Self {
            bad: self.bad.saturating_sub(before.bad),
            of: self.of.saturating_sub(before.of),
        }
    }

    /// How much larger this share is than the other; 0 while one of them is of nothing.
    #[inline]
    pub fn surplus(self, other: Self, per_flow: u64) -> f64 {
        if self.of == 0 || other.of == 0 {
            return 0.0;
        }
        (ratio(self.bad, self.of) - ratio(other.bad, other.of)) / real(per_flow)
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

fn many(counts: &[u64]) -> Outcomes {
    let mut flows = [0; OUTCOMES];
    for (flow, count) in flows.iter_mut().zip(counts) {
        *flow = *count;
    }
    Outcomes {
        flows,
        used: counts.len().min(OUTCOMES),
        of: sum(counts),
    }
}
