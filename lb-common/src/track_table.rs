//! Where the record of a followed flow lies.
//!
//! ```text
//! key: 63      46      35      32        1   0
//!      | ...   | group | seat  |  ...    | 1 |
//! ```
//! A record is one cache line. By its key a flow has a home among them, and lies there unless another
//! flow does; then it lies elsewhere in the same group of eight. A home counts those of its flows that
//! lie elsewhere. So nearly every look-up reads one cache line, also if it finds nothing, and a record
//! is given back without looking at others. With 2,000 flows followed at once nine SYNs in a million
//! find their group full.
//!
//! No lock: keys are taken from records by compare-and-exchange, counts are added to. Two CPUs that take
//! one record for two flows leave one of those flows unfollowed, and a home's count too high at worst,
//! for as long as the maps live: then a look-up that finds nothing there reads the whole group. The kernel
//! runs this on a map, the tests on a vector.

use crate::track::TRACKS;

/// Records in a group, a power of two.
pub const GROUP: u32 = 8;

/// A record, as far as its place is concerned.
pub trait Record: Copy {
    /// Whose it is; 0 = free.
    fn key(self) -> u64;
    /// Takes the key away from it; false if it is another's by now.
    fn take_key(self, key: u64) -> bool;
    /// How many flows have their home here, and lie elsewhere.
    fn away(self) -> u32;
    /// Adds to that count, wrapping.
    fn add_away(self, count: u32);
    /// Whether nobody needs what is in it at boot-clock ns `now`.
    fn is_over(self, now: u64) -> bool;
}

/// All records.
pub trait Records {
    /// One of them.
    type Record: Record;
    /// A record by its number; `None` beyond the last.
    fn record(&self, number: u32) -> Option<Self::Record>;
    /// [`find_elsewhere`]; the kernel calls it as a function, so that its verifier walks it once.
    fn find_elsewhere(&self, key: u64) -> u32 {
        find_elsewhere(self, key)
    }
}

/// The key of a flow by its hash: no record has key 0.
#[inline(always)]
pub const fn key(hash: u64) -> u64 {
    hash | 1
}

/// Number of a key's home.
#[inline(always)]
pub const fn home(key: u64) -> u32 {
    (key >> 32) as u32 & (TRACKS - 1)
}

/// Number of the record that a key has, plus 1; 0 if there is none.
#[inline(always)]
pub fn find(records: &impl Records, key: u64) -> u32 {
    let home = home(key);
    match records.record(home) {
        Some(record) if record.key() == key => home + 1,
        Some(record) if record.away() != 0 => records.find_elsewhere(key),
        _ => 0,
    }
}

/// [`find`], of a flow that lies not at its home.
#[inline(always)]
pub fn find_elsewhere(records: &(impl Records + ?Sized), key: u64) -> u32 {
    let mut step = 1;
    while step < GROUP {
        let number = home(key) ^ step;
        if records.record(number).is_some_and(|it| it.key() == key) {
            return number + 1;
        }
        step += 1;
    }
    0
}

/// Number of a record that a key may take, plus 1; 0 if its group is full. A free one, as long as there
/// is one: a half-open flow whose record is over is still known for the same when its SYN comes again.
#[inline(always)]
pub fn room(records: &impl Records, key: u64, now: u64) -> u32 {
    let (mut over, mut step) = (0, 0);
    while step < GROUP {
        let number = home(key) ^ step;
        if let Some(record) = records.record(number) {
            if record.key() == 0 {
                return number + 1;
            }
            if over == 0 && record.is_over(now) {
                over = number + 1;
            }
        }
        step += 1;
    }
    over
}

/// Makes a record ready to be a key's: whoever had it has it no more. The caller writes it.
#[inline(always)]
pub fn take(records: &impl Records, number: u32, key: u64) {
    if let Some(record) = records.record(number) {
        give_back(records, number, record.key());
    }
    if home(key) != number
        && let Some(home) = records.record(home(key))
    {
        home.add_away(1);
    }
}

/// Gives a key's record back; false if it is that key's no more.
#[inline(always)]
pub fn give_back(records: &impl Records, number: u32, key: u64) -> bool {
    let Some(record) = records.record(number) else {
        return false;
    };
    if key == 0 || !record.take_key(key) {
        return false;
    }
    if home(key) != number
        && let Some(home) = records.record(home(key))
    {
        home.add_away(u32::MAX);
    }
    true
}

const _: () = assert!(TRACKS.is_power_of_two() && GROUP.is_power_of_two() && GROUP <= TRACKS);

#[cfg(test)]
#[path = "track_table_tests.rs"]
mod tests;
