//! How many of a VIP's new flows a trial follows. There are 16 k records, and each is somebody's for two
//! seconds: where flows come faster than that, a fair sample of them is followed, not the first that fill
//! the records, and the rest costs next to nothing.
//!
//! The draw between the arms comes after it and does not know of it, so the arms stay comparable.

use crate::slot::VipEntry;

/// Most flows a second that can be followed, of all VIPs together. A flow has a record for its handshake and
/// 2 s, and up to 0.8 s until the timer looks at it; so 6,300 of the 16 k are used then, and of the eight
/// places that it may lie at one is free for 98 flows in 100.
pub const MOST: u32 = 2_500;
/// Unit of a pace, as a power of two ns: 4 µs, so that 16 bits are up to 0.27 s.
pub const NS_SHIFT: u32 = 12;
/// A pace that follows every flow.
pub const ALL: u16 = 0;
/// How much of its future a VIP may use up at once, ns: flows come in bursts.
pub const BURST_NS: u64 = 50_000_000;

/// The pace of so many followed flows a second; 3.7 at least, and [`ALL`] from 244,141 on.
pub const fn of_rate(flows_per_second: u32) -> u16 {
    let flows = if flows_per_second == 0 {
        1
    } else {
        flows_per_second
    };
    let units = (1_000_000_000 / flows) >> NS_SHIFT;
    if units > u16::MAX as u32 {
        u16::MAX
    } else {
        units as u16
    }
}

/// Whether a flow that begins at `now` is passed over, by the time until which its VIP's pace is used up
/// (boot-clock ns). A time that no pace can have set is of a clock that was wrong, and counts for nothing.
///
/// With [`used`] after each flow that is followed there is never more than one each pace, and [`BURST_NS`] of
/// them in advance (the generic cell rate algorithm, ITU-T I.371 Annex A).
#[inline(always)]
pub const fn is_used_up(used_up_to: u64, now: u64) -> bool {
    const LONGEST: u64 = (u16::MAX as u64) << NS_SHIFT;
    let ahead = used_up_to.saturating_sub(now);
    ahead > BURST_NS && ahead <= BURST_NS + LONGEST
}

/// Until when a pace is used up after a flow that is followed from `now` on.
#[inline(always)]
pub const fn used(used_up_to: u64, now: u64, pace: u16) -> u64 {
    let from = if used_up_to > now && used_up_to - now <= BURST_NS {
        used_up_to
    } else {
        now
    };
    from.wrapping_add((pace as u64) << NS_SHIFT)
}

/// For which VIP a flow of a trial counts, in both arms, and whether the change may move it: only such
/// flows are evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted(pub u32);

impl Counted {
    const MOVED: u32 = 1 << 16;

    /// Of a flow for which SHADOW has this VIP: so flows of a port that was carved out of a port-0 VIP are
    /// compared with those of the same port.
    #[inline(always)]
    pub const fn by(shadow: &VipEntry) -> Self {
        let moved = shadow.sealed_ppm > 1;
        Self(shadow.vip as u32 | if moved { Self::MOVED } else { 0 })
    }

    /// Of a flow of a VIP that the other slot lacks.
    #[inline(always)]
    pub const fn alone(own: u16) -> Self {
        Self(own as u32 | Self::MOVED)
    }

    /// Number of the VIP.
    #[inline(always)]
    pub const fn vip(self) -> u16 {
        self.0 as u16
    }

    /// Whether the change may move the flow.
    #[inline(always)]
    pub const fn is_moved(self) -> bool {
        self.0 & Self::MOVED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    /// How many of the flows that begin at these times are followed.
    fn followed(times: impl IntoIterator<Item = u64>, pace: u16) -> u64 {
        let mut used_up_to = 0;
        let mut count = 0;
        for now in times {
            if !is_used_up(used_up_to, now) {
                used_up_to = used(used_up_to, now, pace);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn paces_are_of_rates() {
        for (rate, pace) in [(1_000, 244), (3_000, 81), (100, 2_441), (1, 65_535)] {
            assert_eq!(of_rate(rate), pace, "{rate}");
        }
        assert_eq!((of_rate(0), of_rate(1_000_000)), (u16::MAX, ALL));
    }

    #[test]
    fn a_vip_counts_by_shadows_number_and_is_moved_or_not() {
        let shadow = |sealed_ppm| VipEntry {
            vip: 7,
            sealed_ppm,
            ..VipEntry::new_zeroed()
        };
        for (sealed_ppm, moved) in [(1, false), (2, true)] {
            let counted = Counted::by(&shadow(sealed_ppm));
            assert_eq!((counted.vip(), counted.is_moved()), (7, moved));
        }
        let alone = Counted::alone(5);
        assert_eq!((alone.vip(), alone.is_moved()), (5, true));
    }

    #[test]
    fn a_time_that_no_pace_can_have_set_counts_for_nothing() {
        let now = 1 << 40;
        assert!(is_used_up(now + BURST_NS + 1, now));
        for wrong in [now + (1 << 30), u64::MAX] {
            assert!(!is_used_up(wrong, now));
            assert_eq!(used(wrong, now, 1), now + (1 << NS_SHIFT));
        }
    }

    proptest! {
        /// Whatever the traffic, no more are followed than the pace and the burst allow.
        #[test]
        fn no_more_than_the_pace(gaps in prop::collection::vec(0u64..2_000_000, 1..2_000), rate in 50u32..20_000, from in 0u64..1 << 50) {
            let pace = of_rate(rate);
            let mut now = from;
            let span = gaps.iter().sum::<u64>() + BURST_NS;
            let times = gaps.iter().map(|gap| { now += gap; now });
            let most = span / (u64::from(pace) << NS_SHIFT) + 2;
            prop_assert!(followed(times, pace) <= most);
        }

        /// Slower traffic is followed whole, and so is all of it at [`ALL`].
        #[test]
        fn slow_traffic_is_followed_whole(count in 1u64..2_000, rate in 50u32..20_000, spare in 0u64..1_000_000) {
            let gap = (u64::from(of_rate(rate)) << NS_SHIFT) + spare;
            prop_assert_eq!(followed((0..count).map(|n| n * gap), of_rate(rate)), count);
            prop_assert_eq!(followed((0..count).map(|_| 5), ALL), count);
        }

        /// What a VIP gets does not fade: fast traffic is followed at its pace, within a tenth, for good.
        #[test]
        fn fast_traffic_is_followed_at_its_pace(rate in 200u32..5_000) {
            let seconds = 4;
            let flows = (0..seconds * 20_000u64).map(|n| n * 50_000);
            let all = followed(flows, of_rate(rate));
            let meant = u64::from(rate) * seconds;
            prop_assert!(all * 10 >= meant * 9 && all * 10 <= meant * 11, "{all} of {meant}");
        }
    }
}
