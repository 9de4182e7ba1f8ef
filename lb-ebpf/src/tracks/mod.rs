//! Flows that a trial follows: their records, found by the flow's hash.
//!
//! Only SYNs of a trial come here, and packets of flows that began in it. What the packet path
//! calls are global functions of numbers, so that the verifier checks each once.

mod begin;
mod counts;
mod follow;
mod pace;
mod places;

pub use begin::{
    Begun, begin_syn, begins_again, compared, decided_syn, enters, entry_by_record, is_left_alone,
    note, sample, seek_syn,
};
pub use counts::{count_hard, note_error};
pub use follow::{follow_segment, look_at, told};

use lb_common::evidence::NEW;

const NS_PER_MS: u64 = 1_000_000;

/// What is known of a packet's flow, in one word.
///
/// ```text
/// 57   40      35            34      33        32        31      0
/// | member | passed over | never | retried | new arm | place + 1 |
/// ```
#[derive(Clone, Copy)]
pub struct Found(pub u64);

impl Found {
    /// No record, and no room for one.
    pub const NONE: Self = Self(0);
    /// Nothing is remembered of the flow, so it is not followed.
    pub const NEVER: Self = Self(1 << 34);
    /// A new flow that is not followed, as its VIP's pace is used up or the change does not move it.
    pub const PASSED_OVER: Self = Self(1 << 35);
    /// The new arm has it.
    const NEW_ARM: u64 = 1 << 32;
    /// Its beginning came again.
    pub const RETRIED: u64 = 1 << 33;
    const MEMBER_SHIFT: u32 = 40;

    /// Whether there is a record, or a place for one.
    #[inline(always)]
    pub const fn has_place(self) -> bool {
        self.0 as u32 != 0
    }

    /// Whether the flow is the new arm's.
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 & Self::NEW_ARM != 0
    }

    /// Whether this is a SYN that came before.
    #[inline(always)]
    pub const fn is_retried(self) -> bool {
        self.0 & Self::RETRIED != 0
    }

    /// Whether this is a new flow that is passed over.
    #[inline(always)]
    pub const fn is_passed_over(self) -> bool {
        self.0 & Self::PASSED_OVER.0 != 0
    }

    /// Whether it can't be followed.
    #[inline(always)]
    pub const fn is_never(self) -> bool {
        self.0 == Self::NEVER.0
    }

    /// All ones, or 0 if this is a SYN that came before.
    #[inline(always)]
    pub const fn unless_retried(self) -> u64 {
        (self.0 >> 33 & 1).wrapping_sub(1)
    }

    /// Member id of its backend; 0 if it has none yet.
    #[inline(always)]
    pub const fn member(self) -> u32 {
        (self.0 >> Self::MEMBER_SHIFT) as u32
    }

    #[inline(always)]
    const fn place(self) -> u32 {
        self.0 as u32
    }
}

/// The record of a flow of this change: a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_track(hash: u64, change: u32) -> u64 {
    let place = places::find(hash);
    let Some(track) = places::record(place) else {
        return 0;
    };
    if u32::from(track.change) != change || track.is_retried() {
        return 0;
    }
    let new = if u32::from(track.arm) == NEW {
        Found::NEW_ARM
    } else {
        0
    };
    u64::from(place) | new | u64::from(track.member) << Found::MEMBER_SHIFT
}
