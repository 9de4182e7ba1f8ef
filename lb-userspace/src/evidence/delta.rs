//! Differences of counters that wrap at 2^32.

/// A sum of differences, and whether one of them was negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// How much the counter rose.
    pub(super) more: u64,
    /// Whether it fell.
    pub(super) fell: bool,
}

impl Delta {
    /// Adds the way from `then` to `now`. More than 2^31 between two readings is not believed:
    /// that is a counter that was put back.
    pub(super) fn add(&mut self, then: u32, now: u32) {
        let rise = now.wrapping_sub(then);
        if rise >> 31 == 0 {
            self.more = self.more.saturating_add(u64::from(rise));
        } else {
            self.fell = true;
        }
    }

    /// Adds it to a count; returns whether it fell.
    pub(super) fn into(self, count: &mut u64) -> bool {
        *count = count.saturating_add(self.more);
        self.fell
    }
}

/// Adds the way from `then` to `now` to a count; returns whether it fell.
pub(super) fn rise(count: &mut u64, then: u32, now: u32) -> bool {
    let mut delta = Delta::default();
    delta.add(then, now);
    delta.into(count)
}

/// The same for arrays.
pub(super) fn rises<const N: usize>(
    counts: &mut [u64; N],
    then: &[u32; N],
    now: &[u32; N],
) -> bool {
    let mut fell = false;
    for (count, (then, now)) in counts.iter_mut().zip(then.iter().zip(now)) {
        fell |= rise(count, *then, *now);
    }
    fell
}
