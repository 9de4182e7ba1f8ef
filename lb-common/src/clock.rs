//! A clock that costs a packet two loads: the kernel's ticks (jiffies), set by the boot clock.
//!
//! Asking the clock itself makes the CPU wait for every load before it, which is more than all that a
//! packet's look-ups cost (ADR 0015).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Time of which [`Ticks::jiffy_ns`] is a part: 0.3 s is a whole number of jiffies at every `CONFIG_HZ`.
const MEASURED_NS: u64 = 300_000_000;

/// Jiffies to what is soon: the kernel makes up for what it missed within five.
const SOON: u64 = 8;

/// Most that a time may be late by, ns: two jiffies at 100 Hz.
pub const MOST_LATE_NS: u64 = 20_000_000;

/// How jiffies become boot-clock time: late by less than two jiffies and never early, as long as the
/// kernel counts them in time. Where it does not for a while (a virtual CPU that has to wait), time is
/// late by as much, and may be early by as much until the timer sets it again.
///
/// The timer sets it, one word at a time; the length of a jiffy is set once, before anybody reads it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ticks {
    /// Boot-clock ns of jiffy 0; wraps, as that was 300 s before boot. 0 = not set yet.
    pub origin: u64,
    /// Length of a jiffy, ns.
    pub jiffy_ns: u64,
}

impl Ticks {
    /// Of a kernel with so many jiffies in 0.3 s; not set yet.
    #[inline(always)]
    pub const fn of(jiffies: u64) -> Self {
        let jiffies = if jiffies == 0 { 1 } else { jiffies };
        Self {
            origin: 0,
            jiffy_ns: MEASURED_NS / jiffies,
        }
    }

    /// Boot-clock ns, of this moment or up to two jiffies ago.
    #[inline(always)]
    pub const fn at(self, jiffies: u64) -> u64 {
        self.origin
            .wrapping_add(jiffies.wrapping_mul(self.jiffy_ns))
    }

    /// Boot-clock ns that are still to come, by some jiffies: also if some were not counted in time.
    #[inline(always)]
    pub const fn soon(self, jiffies: u64) -> u64 {
        self.at(jiffies.wrapping_add(SOON))
    }

    /// Set by the boot clock. The origin stays while it is right, so that time goes evenly.
    #[must_use]
    #[inline(always)]
    pub const fn set(self, now_ns: u64, jiffies: u64) -> Self {
        let exact = now_ns.wrapping_sub(jiffies.wrapping_mul(self.jiffy_ns));
        let is_right = exact.wrapping_sub(self.origin) < 2 * self.jiffy_ns;
        if is_right && self.origin != 0 {
            return self;
        }
        Self {
            origin: exact.wrapping_sub(self.jiffy_ns),
            ..self
        }
    }
}

const _: () = assert!(size_of::<Ticks>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A kernel's tick count at a boot-clock time: the counter began at `first`, the ticks fall `phase` ns
    /// after whole jiffies.
    fn jiffies(now: u64, first: u64, phase: u64, jiffy_ns: u64) -> u64 {
        first.wrapping_add((now + phase) / jiffy_ns)
    }

    proptest! {
        #[test]
        fn late_by_less_than_two_jiffies_and_never_early(
            hz in prop::sample::select(&[100_u64, 250, 300, 1000][..]),
            first in prop::sample::select(&[0_u64, 4_294_892_296, u64::MAX - 5][..]),
            phase in 0_u64..10_000_000,
            missed in 0_u64..6,
            times in prop::collection::vec(0_u64..1 << 48, 1..20),
        ) {
            let mut ticks = Ticks::of(hz * 3 / 10);
            let jiffy_ns = ticks.jiffy_ns;
            let count = |now| jiffies(now, first, phase, jiffy_ns);
            let mut sorted = times;
            sorted.sort_unstable();
            for (index, now) in sorted.iter().copied().enumerate() {
                if index % 3 == 0 {
                    ticks = ticks.set(now, count(now));
                }
                let lately = ticks.at(count(now));
                prop_assert!(lately <= now, "{lately} > {now}");
                prop_assert!(now - lately < 2 * ticks.jiffy_ns);
                prop_assert!(now - lately < MOST_LATE_NS);
                prop_assert!(ticks.soon(count(now).wrapping_sub(missed)) > now);
            }
        }

        #[test]
        fn what_is_right_stays(now in 0_u64..1 << 48, later in 0_u64..1 << 32, phase in 0_u64..4_000_000) {
            let ticks = Ticks::of(75);
            let count = |now| jiffies(now, 7, phase, ticks.jiffy_ns);
            let set = ticks.set(now, count(now));
            let then = now + later;
            prop_assert_eq!(set.set(then, count(then)), set);
        }
    }

    #[test]
    fn a_clock_that_jumped_is_followed() {
        let set = Ticks::of(75).set(1_000_000_000, 250);
        let slept = set.set(61_000_000_000, 251);
        assert_eq!(slept.at(251), 61_000_000_000 - 4_000_000);
    }

    #[test]
    fn the_length_of_a_jiffy() {
        assert_eq!(
            [30, 75, 90, 300, 0].map(|jiffies| Ticks::of(jiffies).jiffy_ns),
            [10_000_000, 4_000_000, 3_333_333, 1_000_000, 300_000_000]
        );
    }
}
