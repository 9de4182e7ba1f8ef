//! The flow table: a shared array of one-line buckets, read and written without a lock.
//!
//! An entry is one word, so a race can lose an insert, never mix two flows.

use lb_common::flow::{BUCKET_ENTRIES, Entry, bucket, victim};

use crate::maps::{FLOW_BUCKETS, FLOWS};

/// An entry found, and where it lies; the empty entry if there is none.
///
/// Not an `Option`: the compiler would carry its payload, undefined where there is none, over the
/// branches, and the verifier refuses to read what was never written.
#[derive(Clone, Copy)]
pub struct Found {
    /// The entry as read.
    pub entry: Entry,
    place: *mut u64,
}

impl Found {
    /// No entry.
    pub const NONE: Self = Self {
        entry: Entry(0),
        place: core::ptr::null_mut(),
    };

    /// Whether there is an entry.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        !self.entry.is_empty()
    }

    /// Notes that the flow lives. Written once per age step, so that reading stays reading.
    #[inline(always)]
    pub fn touch(&self, age: u32) {
        if self.entry.age() != age && !self.place.is_null() {
            // SAFETY: `place` is a word of a bucket, which lives as long as the program.
            unsafe { self.place.write_volatile(self.entry.with_age(age).0) };
        }
    }
}

/// The entry of the flow with this hash.
#[inline(always)]
pub fn find(hash: u64) -> Found {
    let Some(words) = FLOWS.get_ptr_mut(bucket(hash, FLOW_BUCKETS.load())) else {
        return Found::NONE;
    };
    let words = words.cast::<u64>();
    for index in 0..BUCKET_ENTRIES {
        // SAFETY: a bucket has BUCKET_ENTRIES words.
        let place = unsafe { words.add(index) };
        // SAFETY: as above; other CPUs write whole words.
        let entry = Entry(unsafe { place.read_volatile() });
        if entry.matches(hash) {
            return Found { entry, place };
        }
    }
    Found::NONE
}

/// Remembers a flow.
///
/// A global function of numbers, so that the verifier checks it once and not in every state that a
/// packet can be in when it comes here. The result means nothing; such functions must have one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn insert(hash: u64, member: u32, age: u32, change: u32) -> u32 {
    let Some(bucket) = FLOWS.get_ptr_mut(bucket(hash, FLOW_BUCKETS.load())) else {
        return 0;
    };
    // SAFETY: a copy of a bucket, word by word; other CPUs write whole words.
    let index = victim(unsafe { &*bucket }, hash, age) & (BUCKET_ENTRIES - 1);
    // SAFETY: `index` is within the bucket.
    unsafe {
        bucket
            .cast::<u64>()
            .add(index)
            .write_volatile(Entry::new(hash, member, age, change).0);
    }
    1
}
