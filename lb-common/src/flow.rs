//! One entry of the flow table: a flow remembered in 8 bytes.
//!
//! ```text
//! 63            28 27          10 9     4 3      0
//! |  tag (36 bits) | member (18)  | age(6) | change(4) |
//! ```
//! The tag is the top of the flow's hash; the bucket is chosen by its low bits, which never reach
//! bit 28. With 8 entries a bucket, a look-up matches a foreign flow with a chance of 2^-33.
//! Entries are read and written as one word, so no CPU ever sees half of one.

use crate::MEMBER_BITS;

/// Entries in a bucket: one cache line.
pub const BUCKET_ENTRIES: usize = 8;
/// Buckets at most, so that bucket number and tag share no bit of the hash.
pub const MAX_BUCKETS: u32 = 1 << TAG_SHIFT;

const CHANGE_BITS: u32 = 4;
const AGE_BITS: u32 = 6;
const AGE_SHIFT: u32 = CHANGE_BITS;
const MEMBER_SHIFT: u32 = AGE_SHIFT + AGE_BITS;
const TAG_SHIFT: u32 = MEMBER_SHIFT + MEMBER_BITS;

/// Ages are counted modulo this.
pub const AGES: u32 = 1 << AGE_BITS;
/// Short change ids run from 1 to this; 0 is "born under a committed generation".
pub const MAX_CHANGE: u32 = (1 << CHANGE_BITS) - 1;
/// Boot-clock nanoseconds to the age counter: one step is 2^34 ns, 17.2 s.
pub const AGE_NS_SHIFT: u32 = 34;

/// A remembered flow, or the empty entry 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

/// A bucket: one cache line of entries.
pub type Bucket = [u64; BUCKET_ENTRIES];

impl Entry {
    /// Packs an entry. Fields are cut to their width.
    #[inline(always)]
    pub const fn new(hash: u64, member: u32, age: u32, change: u32) -> Self {
        let member = (member as u64) & ((1 << MEMBER_BITS) - 1);
        let age = (age as u64) & (AGES as u64 - 1);
        let change = (change as u64) & MAX_CHANGE as u64;
        Self((hash >> TAG_SHIFT) << TAG_SHIFT | member << MEMBER_SHIFT | age << AGE_SHIFT | change)
    }

    /// Whether this may be the entry of the flow with this hash.
    #[inline(always)]
    pub const fn matches(self, hash: u64) -> bool {
        (self.0 ^ hash) >> TAG_SHIFT == 0 && self.member() != 0
    }

    /// Whether nothing is remembered here.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.member() == 0
    }

    /// Member id of the backend that the flow goes to; 0 if empty.
    #[inline(always)]
    pub const fn member(self) -> u32 {
        (self.0 >> MEMBER_SHIFT) as u32 & ((1 << MEMBER_BITS) - 1)
    }

    /// Age counter at the last use.
    #[inline(always)]
    pub const fn age(self) -> u32 {
        (self.0 >> AGE_SHIFT) as u32 & (AGES - 1)
    }

    /// Short id of the change in whose new arm the flow was born; 0 if in none.
    #[inline(always)]
    pub const fn change(self) -> u32 {
        self.0 as u32 & MAX_CHANGE
    }

    /// The same entry, used at `age`.
    #[must_use]
    #[inline(always)]
    pub const fn with_age(self, age: u32) -> Self {
        let mask = (AGES as u64 - 1) << AGE_SHIFT;
        Self((self.0 & !mask) | (((age as u64) << AGE_SHIFT) & mask))
    }

    /// The same entry, of no change any more.
    #[inline(always)]
    #[must_use]
    pub const fn settled(self) -> Self {
        Self(self.0 & !(MAX_CHANGE as u64))
    }

    /// Steps since the last use, modulo [`AGES`].
    #[inline(always)]
    pub const fn idle(self, now: u32) -> u32 {
        now.wrapping_sub(self.age()) & (AGES - 1)
    }
}

/// Bucket number of a hash; `buckets` is a power of two.
#[inline(always)]
pub const fn bucket(hash: u64, buckets: u32) -> u32 {
    (hash as u32) & buckets.wrapping_sub(1)
}

/// Which entry of a bucket a new flow replaces: its own, else an empty one, else the longest idle.
#[inline(always)]
pub fn victim(bucket: &Bucket, hash: u64, now: u32) -> usize {
    let mut best = 0;
    let mut best_score = 0;
    let mut index = 0;
    while index < BUCKET_ENTRIES {
        let entry = Entry(bucket[index]);
        let score = if entry.matches(hash) {
            AGES + 2
        } else if entry.is_empty() {
            AGES + 1
        } else {
            entry.idle(now) + 1
        };
        if score > best_score {
            best_score = score;
            best = index;
        }
        index += 1;
    }
    best
}

const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(TAG_SHIFT == 28);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_survive_packing(hash: u64, member in 1u32..(1 << MEMBER_BITS), age in 0u32..AGES, change in 0u32..=MAX_CHANGE) {
            let entry = Entry::new(hash, member, age, change);
            prop_assert!(entry.matches(hash));
            prop_assert!(!entry.matches(hash ^ (1 << 28)));
            prop_assert_eq!((entry.member(), entry.age(), entry.change()), (member, age, change));
            let later = entry.with_age((age + 5) % AGES);
            prop_assert_eq!(later.idle(age), AGES - 5);
            prop_assert_eq!((later.member(), later.change()), (member, change));
            prop_assert!(later.matches(hash));
            let settled = later.settled();
            prop_assert_eq!((settled.member(), settled.change(), settled.age()), (member, 0, later.age()));
            prop_assert!(settled.matches(hash));
        }

        #[test]
        fn own_entry_then_empty_then_oldest(hash: u64, ages in proptest::array::uniform8(0u32..AGES), own in 0usize..8, empty in 0usize..8, now in 0u32..AGES) {
            let other = hash ^ (1 << 40);
            let mut bucket: Bucket = core::array::from_fn(|i| Entry::new(other, 1, ages[i], 0).0);
            let oldest = victim(&bucket, hash, now);
            let idle = |i: usize| Entry(bucket[i]).idle(now);
            prop_assert!((0..8).all(|i| idle(i) <= idle(oldest)));
            bucket[empty] = 0;
            prop_assert_eq!(victim(&bucket, hash, now), empty);
            bucket[own] = Entry::new(hash, 2, 0, 0).0;
            prop_assert_eq!(victim(&bucket, hash, now), own);
        }
    }

    #[test]
    fn the_empty_word_matches_nothing() {
        assert!(Entry(0).is_empty());
        assert!(!Entry(0).matches(0));
    }
}
