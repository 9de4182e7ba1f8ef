//! The records as packets find them: [`lb_common::track_table`] on a map.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use lb_common::track::Track;
use lb_common::track_table::{self as table, Record, Records};

use crate::control::lately;
use crate::maps::TRACKS;

/// A record of the map, as its place is concerned.
#[derive(Clone, Copy)]
pub struct Held(*mut Track);

impl Record for Held {
    #[inline(always)]
    fn key(self) -> u64 {
        // SAFETY: a map element; other CPUs write whole words.
        unsafe { (&raw const (*self.0).key).read_volatile() }
    }

    #[inline(always)]
    fn take_key(self, key: u64) -> bool {
        // SAFETY: as above; the word is aligned.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
                &raw mut (*self.0).key,
                key,
                0,
            )
        };
        done
    }

    #[inline(always)]
    fn away(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).away).read_volatile() }
    }

    #[inline(always)]
    fn add_away(self, count: u32) {
        // SAFETY: as above; the word is aligned.
        unsafe {
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(&raw mut (*self.0).away, count);
        }
    }

    #[inline(always)]
    fn is_over(self, now: u64) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).is_over(now) }
    }
}

/// The map.
pub struct Map;

impl Records for Map {
    type Record = Held;

    #[inline(always)]
    fn record(&self, number: u32) -> Option<Held> {
        TRACKS.get_ptr_mut(number).map(Held)
    }

    #[inline(always)]
    fn find_elsewhere(&self, key: u64) -> u32 {
        seek_elsewhere(key)
    }
}

/// Number of the record of a flow that lies not at its home, plus 1; or 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_elsewhere(key: u64) -> u32 {
    table::find_elsewhere(&Map, key)
}

/// [`room`], anywhere in the key's group.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_room(key: u64) -> u32 {
    table::room(&Map, key, lately())
}

/// The record of the flow with this hash: its number plus 1, or 0.
#[inline(always)]
pub fn find(hash: u64) -> u32 {
    table::find(&Map, table::key(hash))
}

/// Number of a record that the flow with this hash may take, plus 1; or 0.
#[inline(always)]
pub fn room(hash: u64) -> u32 {
    let key = table::key(hash);
    let home = table::home(key);
    match Map.record(home) {
        // Nearly always, so that is not left to a call.
        Some(record) if record.key() == 0 => home + 1,
        _ => seek_room(key),
    }
}

/// A record by its number plus 1.
///
/// Packets of one flow come by one queue; should two CPUs write one record at once, its flow is counted
/// wrongly and nothing else happens.
#[inline(always)]
pub fn record(place: u32) -> Option<&'static mut Track> {
    let track = TRACKS.get_ptr_mut(place.wrapping_sub(1))?;
    // SAFETY: a map element; see above.
    Some(unsafe { &mut *track })
}

/// Makes a record ready to be that of the flow with this hash.
#[inline(always)]
pub fn take(place: u32, hash: u64) {
    table::take(&Map, place.wrapping_sub(1), table::key(hash));
}

/// Gives the record of a key back; 0 if it is that key's no more.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn give_back(place: u32, key: u64) -> u32 {
    u32::from(table::give_back(&Map, place.wrapping_sub(1), key))
}
