//! The flow table: a shared array of one-line buckets, read and written without a lock.
//!
//! An entry is one word, so a race can lose an insert, never mix two flows.

use lb_common::flow::{BUCKET_ENTRIES, Birth, Entry, bucket, victim};

use crate::maps::{FLOW_BUCKETS, FLOWS};

/// The entry of the flow with this hash; the empty entry if there is none.
#[inline(always)]
pub fn find(hash: u64) -> Entry {
    Entry(seek(hash))
}

/// [`find`], the entry as a number.
///
/// A global function of numbers, so that the verifier checks it once: with the loop in the packet
/// path it would go through all that follows once for each place of the bucket.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek(hash: u64) -> u64 {
    let Some(words) = FLOWS.get_ptr_mut(bucket(hash, FLOW_BUCKETS.load())) else {
        return 0;
    };
    let words = words.cast::<u64>();
    for index in 0..BUCKET_ENTRIES {
        // SAFETY: a bucket has BUCKET_ENTRIES words; other CPUs write whole words.
        let entry = Entry(unsafe { words.add(index).read_volatile() });
        if entry.matches(hash) {
            return entry.0;
        }
    }
    0
}

/// Notes that the flow of an entry lives. Written once per age step, so that reading stays reading.
#[inline(always)]
pub fn touch(hash: u64, entry: Entry, age: u32) {
    if entry.age() != age {
        renew(hash, entry.0, age);
    }
}

/// [`touch`], as a global function of numbers. An entry that was replaced meanwhile is left alone.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn renew(hash: u64, entry: u64, age: u32) -> u32 {
    let Some(words) = FLOWS.get_ptr_mut(bucket(hash, FLOW_BUCKETS.load())) else {
        return 0;
    };
    let words = words.cast::<u64>();
    for index in 0..BUCKET_ENTRIES {
        // SAFETY: a bucket has BUCKET_ENTRIES words.
        let place = unsafe { words.add(index) };
        // SAFETY: as above; other CPUs write whole words.
        unsafe {
            if place.read_volatile() == entry {
                place.write_volatile(Entry(entry).with_age(age).0);
                return 1;
            }
        }
    }
    0
}

/// Forgets the flow with this hash: a global function of numbers, as [`insert`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn forget(hash: u64) -> u32 {
    let Some(words) = FLOWS.get_ptr_mut(bucket(hash, FLOW_BUCKETS.load())) else {
        return 0;
    };
    for index in 0..BUCKET_ENTRIES {
        // SAFETY: a bucket has BUCKET_ENTRIES words; other CPUs write whole words.
        unsafe {
            let place = words.cast::<u64>().add(index);
            if Entry(place.read_volatile()).matches(hash) {
                place.write_volatile(0);
                return 1;
            }
        }
    }
    0
}

/// Remembers a flow.
///
/// A global function of numbers, so that the verifier checks it once and not in every state that a
/// packet can be in when it comes here. The result means nothing; such functions must have one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn insert(hash: u64, member: u32, age: u32, birth: u32) -> u32 {
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
            .write_volatile(Entry::new(hash, member, age, Birth(birth)).0);
    }
    1
}
