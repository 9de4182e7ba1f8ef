//! Flows that a trial follows: their records, found by the flow's hash.
//!
//! Only SYNs of a trial come here, and packets of flows that began in it. What the packet path
//! calls are global functions of numbers, so that the verifier checks each once.

mod begin;
mod counts;
mod follow;

pub use begin::{Begun, begin_syn, begins_again, compared, decided_syn, note, seek_syn};
pub use counts::{count_hard, note_error};
pub use follow::{Decided, decided, follow_segment, look_at, told};

use lb_common::evidence::NEW;
use lb_common::track::{KEYS, TRACKS as PLACES};

use crate::maps::{TRACK_KEYS, TRACKS};

const NS_PER_MS: u64 = 1_000_000;

/// What is known of a packet's flow, in one word.
///
/// ```text
/// 57   40      34      33        32        31      0
/// | member | never | retried | new arm | place + 1 |
/// ```
#[derive(Clone, Copy)]
pub struct Found(pub u64);

impl Found {
    /// No record, and no room for one.
    pub const NONE: Self = Self(0);
    /// Nothing is remembered of the flow, so it is not followed.
    pub const NEVER: Self = Self(1 << 34);
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

/// A record has no hash 0.
#[inline(always)]
const fn key(hash: u64) -> u64 {
    hash | 1
}

/// The line that a flow's key is in.
#[inline(always)]
const fn line(hash: u64) -> u32 {
    (hash >> 32) as u32 & (PLACES / KEYS - 1)
}

/// Number of the record that a key has, plus 1; 0 if there is none.
#[inline(always)]
fn place_of(line: u32, key: u64) -> u32 {
    let Some(keys) = TRACK_KEYS.get_ptr_mut(line) else {
        return 0;
    };
    for index in 0..KEYS {
        // SAFETY: a line has KEYS words; other CPUs write whole words.
        if unsafe { keys.cast::<u64>().add(index as usize).read_volatile() } == key {
            return line * KEYS + index + 1;
        }
    }
    0
}

/// Gives a record away, or takes it back with key 0.
#[inline(always)]
fn set_key(number: u32, key: u64) {
    let Some(keys) = TRACK_KEYS.get_ptr_mut(number / KEYS) else {
        return;
    };
    let index = (number & (KEYS - 1)) as usize;
    // SAFETY: `index` is within the line.
    unsafe { keys.cast::<u64>().add(index).write_volatile(key) };
}

/// The record of a flow of this change: a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_track(hash: u64, change: u32) -> u64 {
    let place = place_of(line(hash), key(hash));
    let Some(track) = TRACKS.get(place.wrapping_sub(1)) else {
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

const _: () = assert!(PLACES.is_power_of_two());
