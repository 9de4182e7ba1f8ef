//! `policy.toml`: what a change may do and how long things may take. Never part of a change.

use std::time::Duration;

use lb_common::pace;

use super::Digest;

/// Checked content of `policy.toml`; [`Policy::default`] when there is no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A trial ends when the agent has not renewed it for this long.
    pub lease: Duration,
    /// Deadline of a bake, unless `apply --confirm-within` names another.
    pub confirm_within: Duration,
    /// The longest that `apply --confirm-within` may ask for.
    pub confirm_within_max: Duration,
    /// Class R1 up to this share of one VIP's table moved, in percent.
    pub r1_moved: u8,
    /// Class R2 up to this share, in percent; beyond is R3.
    pub r2_moved: u8,
    /// Changes that may be put on trial at once; then one more each [`Policy::change_every`].
    pub changes: u32,
    /// See [`Policy::changes`]; going back is always free.
    pub change_every: Duration,
    /// Share of a pool's backends that health may take out, in percent; one always.
    pub ejected_max: u8,
    /// Hard events in the new arm, from as many sources, that end a trial; 0 = off.
    pub hard_events: u32,
    /// How trials are judged on their traffic.
    pub evidence: EvidencePolicy,
}

/// `[evidence]`: how a trial is judged on its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidencePolicy {
    /// Whether it is. If not, a trial gets its whole share at once, and a person decides alone.
    pub enabled: bool,
    /// Shares of new flows that the canary steps have, rising, in percent.
    pub canary: Vec<u8>,
    /// Share while it waits to be confirmed, in percent: the rest stays with the running
    /// configuration, so that an attack and a bad change can be told apart to the end.
    pub baking: u8,
    /// Longest time of a canary step.
    pub step_within: Duration,
    /// Time in which a handshake has to be complete to count as good.
    pub handshake_within: Duration,
    /// New flows a second that a trial follows at most, of all VIPs together.
    pub follow: u32,
    /// Shortest time of a step whose VIPs traffic cannot all prove (UDP, brand-new ones): time for what
    /// is never right to show.
    pub dwell: Duration,
    /// Between changes one of so many new flows is followed, so that people can be told what is
    /// odd: a power of two; 0 = none.
    pub watch: u32,
}

impl EvidencePolicy {
    /// The shares of the canary steps, and the last one, ppm, for a change with this first share.
    /// Without evidence there are no steps.
    pub fn shares(&self, canary_ppm: Option<u32>) -> (Vec<u32>, u32) {
        if !self.enabled {
            return (
                Vec::new(),
                canary_ppm.unwrap_or(1_000_000).clamp(1, 1_000_000),
            );
        }
        let ppm = |percent: &u8| u32::from(*percent).saturating_mul(10_000);
        let baking = ppm(&self.baking);
        let first = canary_ppm.or_else(|| self.canary.first().map(ppm));
        let later = self.canary.iter().map(ppm);
        let canary = first
            .into_iter()
            .chain(later.filter(|share| first.is_none_or(|first| *share > first)))
            .filter(|share| *share < baking)
            .collect();
        (canary, baking)
    }
}

impl Default for EvidencePolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            canary: vec![10, 25, 50],
            baking: 90,
            step_within: Duration::from_mins(10),
            handshake_within: Duration::from_millis(300),
            follow: pace::MOST,
            dwell: Duration::from_secs(5),
            watch: 16,
        }
    }
}

impl Policy {
    /// SHA-256 over every limit: what `status` shows and the journal records.
    pub fn digest(&self) -> Digest {
        Digest::of(format!("{self:?}").as_bytes())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3),
            confirm_within: Duration::from_mins(2),
            confirm_within_max: Duration::from_hours(1),
            r1_moved: 10,
            r2_moved: 34,
            changes: 10,
            change_every: Duration::from_secs(30),
            ejected_max: 50,
            hard_events: 3,
            evidence: EvidencePolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_of_ones_own_comes_first_and_only_rising_steps_after_it() {
        let policy = EvidencePolicy::default();
        let usual = (vec![100_000, 250_000, 500_000], 900_000);
        assert_eq!(policy.shares(None), usual);
        assert_eq!(
            policy.shares(Some(300_000)),
            (vec![300_000, 500_000], 900_000)
        );
        assert_eq!(policy.shares(Some(500_000)), (vec![500_000], 900_000));
        let off = EvidencePolicy {
            enabled: false,
            ..policy
        };
        assert_eq!(off.shares(None), (vec![], 1_000_000));
        assert_eq!(off.shares(Some(100_000)), (vec![], 100_000));
    }
}
