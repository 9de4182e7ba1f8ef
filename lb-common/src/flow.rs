//! One entry of the flow table: a flow remembered in 8 bytes.
//!
//! ```text
//! 63            28 27          10 9     4 3     0
//! |  tag (36 bits) | member (18)  | age(6) | birth(4) |
//! ```
//! The tag is the top of the flow's hash. Where the entry lies is up to the hash's low bits, and in a
//! table that has grown beyond its first size (see [`crate::flow_table`]) also to the tag's lowest
//! ones, so that an entry tells by itself where it belongs in a larger or smaller table. A look-up
//! compares some five entries of one line, and matches a foreign one with a chance of 2^-34 up to 64 k
//! flows, 2^-28 at 4 M. Entries are read and written as one word, so no CPU ever sees half of one.

use crate::MEMBER_BITS;

/// Entries in a line: one cache line.
pub const LINE_ENTRIES: usize = 8;

const BIRTH_BITS: u32 = 4;
const AGE_BITS: u32 = 6;
const AGE_SHIFT: u32 = BIRTH_BITS;
const MEMBER_SHIFT: u32 = AGE_SHIFT + AGE_BITS;
/// First bit of the hash that an entry keeps.
pub const TAG_SHIFT: u32 = MEMBER_SHIFT + MEMBER_BITS;

/// Ages are counted modulo this.
pub const AGES: u32 = 1 << AGE_BITS;
/// Steps after which the sweep of a table that has grown forgets an idle flow: 16 minutes. Below
/// [`AGES`] by more than the steps that a sweep takes, or such a flow would look young again.
pub const FORGOTTEN: u32 = 56;
/// Short change ids run from 1 to this.
pub const MAX_CHANGE: u32 = BIRTH_MASK >> 1;
const BIRTH_MASK: u32 = (1 << BIRTH_BITS) - 1;
/// Stands where the member id of a dead backend stood whose pool has its clients reset: no backend has this
/// id. The flow's next segment is answered with a reset, and what else comes is chosen for anew.
pub const ORPHAN: u32 = (1 << MEMBER_BITS) - 1;
/// Boot-clock nanoseconds to the age counter: one step is 2^34 ns, 17.2 s.
pub const AGE_NS_SHIFT: u32 = 34;

/// The age counter at a boot-clock time, with steps of 2^`ns_shift` ns: [`AGE_NS_SHIFT`].
#[inline(always)]
pub const fn age_at(now_ns: u64, ns_shift: u32) -> u32 {
    (now_ns >> (ns_shift & 63)) as u32 & (AGES - 1)
}

/// A remembered flow, or the empty entry 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

/// Where a flow was born: under a committed generation, or in an arm of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth(pub u32);

impl Birth {
    /// Under a committed generation, or in an arm that nobody watches.
    pub const SETTLED: Self = Self(0);

    /// Under a committed generation, and followed from there.
    pub const WATCHED: Self = Self(1);

    /// In the new arm of a change, or in its control arm.
    #[inline(always)]
    pub const fn in_arm(change: u32, new: bool) -> Self {
        Self(change << 1 | !new as u32)
    }

    /// Short id of the change, 0 if none.
    #[inline(always)]
    pub const fn change(self) -> u32 {
        self.0 >> 1
    }

    /// Whether it was in the new arm of this change.
    #[inline(always)]
    pub const fn is_new_in(self, change: u32) -> bool {
        change != 0 && self.0 == change << 1
    }
}

/// One cache line of entries.
pub type Line = [u64; LINE_ENTRIES];

impl Entry {
    /// Packs an entry. Fields are cut to their width.
    #[inline(always)]
    pub const fn new(hash: u64, member: u32, age: u32, birth: Birth) -> Self {
        let member = (member as u64) & ((1 << MEMBER_BITS) - 1);
        let age = (age as u64) & (AGES as u64 - 1);
        let birth = (birth.0 & BIRTH_MASK) as u64;
        Self((hash >> TAG_SHIFT) << TAG_SHIFT | member << MEMBER_SHIFT | age << AGE_SHIFT | birth)
    }

    /// Whether this may be the entry of the flow with this hash.
    #[inline(always)]
    pub const fn matches(self, hash: u64) -> bool {
        (self.0 ^ hash) >> TAG_SHIFT == 0 && self.member() != 0
    }

    /// Whether two entries may be the same flow's.
    #[inline(always)]
    pub const fn is_like(self, other: Self) -> bool {
        (self.0 ^ other.0) >> TAG_SHIFT == 0
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

    /// Where the flow was born.
    #[inline(always)]
    pub const fn birth(self) -> Birth {
        Birth(self.0 as u32 & BIRTH_MASK)
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
        Self(self.0 & !(BIRTH_MASK as u64))
    }

    /// The entry of the same flow without its backend, since `age`: see [`ORPHAN`].
    #[inline(always)]
    #[must_use]
    pub const fn orphaned(self, age: u32) -> Self {
        Self::new(self.0, ORPHAN, age, Birth::SETTLED)
    }

    /// Steps since the last use, modulo [`AGES`].
    #[inline(always)]
    pub const fn idle(self, now: u32) -> u32 {
        now.wrapping_sub(self.age()) & (AGES - 1)
    }
}

const _: () = assert!(size_of::<Line>() == 64);
const _: () = assert!(TAG_SHIFT == 28);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_survive_packing(hash: u64, member in 1u32..(1 << MEMBER_BITS), age in 0u32..AGES, change in 0u32..=MAX_CHANGE, new: bool) {
            let birth = Birth::in_arm(change, new);
            prop_assert_eq!((birth.change(), birth.is_new_in(change)), (change, new && change != 0));
            let entry = Entry::new(hash, member, age, birth);
            prop_assert!(entry.matches(hash));
            prop_assert!(!entry.matches(hash ^ (1 << 28)));
            prop_assert_eq!((entry.member(), entry.age(), entry.birth()), (member, age, birth));
            let later = entry.with_age((age + 5) % AGES);
            prop_assert_eq!(later.idle(age), AGES - 5);
            prop_assert_eq!((later.member(), later.birth()), (member, birth));
            prop_assert!(later.matches(hash));
            let settled = later.settled();
            prop_assert_eq!((settled.member(), settled.birth(), settled.age()), (member, Birth::SETTLED, later.age()));
            prop_assert!(settled.matches(hash));
            let orphan = later.orphaned(age);
            prop_assert!(orphan.matches(hash));
            prop_assert_eq!((orphan.member(), orphan.age(), orphan.birth()), (ORPHAN, age, Birth::SETTLED));
        }
    }

    #[test]
    fn the_empty_word_matches_nothing() {
        assert!(Entry(0).is_empty());
        assert!(!Entry(0).matches(0));
    }
}
