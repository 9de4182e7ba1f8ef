//! The flow table as packets use it: a shared array of cache lines, read and written without a lock.
//! Where entries lie, and why none is lost, is [`lb_common::flow_table`].
//!
//! An entry is one word, so a race can lose an insert, never mix two flows. What packets call are
//! global functions of numbers, so that the verifier checks each once, and not in every state that a
//! packet can be in when it comes here. Such functions must return something.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use lb_common::flow::{Birth, Entry, LINE_ENTRIES, ORPHAN};
use lb_common::flow_table::{self as table, How, Line as _, Put, Shape};

use crate::maps::{CONTROL, FLOWS, MEMBERS};
use crate::room;

/// A line of the map.
#[derive(Clone, Copy)]
pub struct Line(*mut u64);

impl table::Line for Line {
    #[inline(always)]
    fn get(self, place: usize) -> u64 {
        // SAFETY: a line has LINE_ENTRIES words; other CPUs write whole words.
        unsafe { self.0.add(place & (LINE_ENTRIES - 1)).read_volatile() }
    }

    #[inline(always)]
    fn put(self, place: usize, word: u64) {
        // SAFETY: as above.
        unsafe { self.0.add(place & (LINE_ENTRIES - 1)).write_volatile(word) }
    }

    #[inline(always)]
    fn swap(self, place: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above; words are aligned.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
                self.0.add(place & (LINE_ENTRIES - 1)),
                old,
                new,
            )
        };
        done
    }
}

/// A line by its number.
#[inline(always)]
pub fn line(number: u32) -> Option<Line> {
    FLOWS.get_ptr_mut(number).map(|line| Line(line.cast()))
}

/// The map as a table: what works on a line are global functions of numbers.
pub struct Map;

impl table::Table for Map {
    type Line = Line;

    #[inline(always)]
    fn line(&self, number: u32) -> Option<Line> {
        line(number)
    }

    #[inline(always)]
    fn lives(&self, entry: Entry) -> bool {
        let member = entry.member();
        member == ORPHAN || MEMBERS.get(member).is_some_and(|member| member.slots != 0)
    }

    #[inline(always)]
    fn find_in(&self, number: u32, hash: u64) -> u64 {
        seek_line(hash, number)
    }

    #[inline(always)]
    fn put_in(&self, number: u32, entry: Entry, seat: usize, how: How) -> Put {
        Put::from_code(put_line(number, entry.0, seat as u32, how as u32))
    }

    #[inline(always)]
    fn move_line(&self, number: u32, _: Shape) {
        move_whole(number);
    }
}

/// The flow's entry in a line.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_line(hash: u64, number: u32) -> u64 {
    line(number).map_or(0, |line| table::find(line, hash))
}

/// Puts an entry into a line.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn put_line(number: u32, entry: u64, seat: u32, how: u32) -> u32 {
    line(number).map_or(0, |line| {
        table::put(line, Entry(entry), seat as usize, How::from_code(how)) as u32
    })
}

/// Moves the entries of a line to where they belong.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn move_whole(number: u32) -> u32 {
    for place in 0..LINE_ENTRIES as u32 {
        move_one(number, place);
    }
    1
}

/// [`move_whole`], one entry.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn move_one(number: u32, place: u32) -> u32 {
    table::move_entry(&Map, number, place as usize, shape());
    1
}

/// Which part of the table is in use.
#[inline(always)]
pub fn shape() -> Shape {
    let Some(control) = CONTROL.get_ptr(0) else {
        return Shape(0);
    };
    // SAFETY: the element lives as long as the program; the field is one aligned word.
    Shape(unsafe { (&raw const (*control).shape).read_volatile() })
}

/// A flow's line, and what lies at its seat there.
#[inline(always)]
pub fn glance(hash: u64, shape: Shape) -> Option<(Line, Entry)> {
    let line = line(table::home(hash, shape.now()))?;
    Some((line, Entry(line.get(table::seat(hash)))))
}

/// The entry of the flow with this hash; the empty entry if there is none.
#[inline(always)]
pub fn find(hash: u64) -> Entry {
    Entry(seek(hash))
}

/// [`find`], the entry as a number.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek(hash: u64) -> u64 {
    table::seek(&Map, shape(), hash)
}

/// [`find`], only where an entry mostly lies: in a line that is at hand.
#[inline(always)]
pub fn at_home(hash: u64) -> Entry {
    Entry(seek_line(hash, table::home(hash, shape().now())))
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
    exchange(hash, entry, Entry(entry).with_age(age).0)
}

/// Forgets the flow with this hash.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn forget(hash: u64) -> u32 {
    let found = seek(hash);
    if found == 0 {
        return 0;
    }
    exchange(hash, found, 0)
}

/// Puts a word where another is that a flow has; 1 if it was there.
#[inline(always)]
fn exchange(hash: u64, old: u64, new: u64) -> u32 {
    let shape = shape();
    let done = exchange_at(table::home(hash, shape.now()), old, new);
    if done != 0 || !shape.is_moving() {
        return done;
    }
    exchange_at(table::home(hash, shape.before()), old, new)
}

#[inline(always)]
fn exchange_at(home: u32, old: u64, new: u64) -> u32 {
    exchange_in(home, old, new)
        | exchange_in(table::spill(home), old, new)
        | exchange_in(table::last(home), old, new)
}

/// Puts a word where another is in a line; 1 if it was there.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn exchange_in(number: u32, old: u64, new: u64) -> u32 {
    let Some(line) = line(number) else {
        return 0;
    };
    for place in 0..LINE_ENTRIES {
        if line.get(place) == old {
            return u32::from(line.swap(place, old, new));
        }
    }
    0
}

/// Remembers a flow; false if it is refused, see [`room`].
#[inline(always)]
pub fn insert(hash: u64, member: u32, age: u32, birth: u32) -> bool {
    let Some(line) = line(table::home(hash, shape().now())) else {
        return false;
    };
    let there = Entry(line.get(table::seat(hash)));
    insert_at(line, there, hash, member, age, birth)
}

/// [`insert`], with what lies at the flow's seat.
#[inline(always)]
pub fn insert_at(line: Line, there: Entry, hash: u64, member: u32, age: u32, birth: u32) -> bool {
    let entry = Entry::new(hash, member, age, Birth(birth));
    let seat = table::seat(hash);
    if there.matches(hash) {
        line.put(seat, entry.0);
        return true;
    }
    let Some(local) = room::local() else {
        return false;
    };
    let mut done = ADDED;
    if there.0 != 0 || local.is_flooded() || !line.swap(seat, 0, entry.0) {
        done = remember(hash, entry.0);
    }
    if done == FULL {
        // More room, if there is any.
        room::make(1);
        clear_way(hash);
        done = remember(hash, entry.0);
        if done == FULL {
            local.evict();
            evict_for(hash, entry.0, age);
            done = ADDED;
        }
    }
    // Here and not below, since calls may not go deeper than eight functions.
    if done == ADDED && local.count() {
        room::make(0);
    }
    done != REFUSED
}

/// Results of [`remember`].
const FULL: u32 = 0;
const KNOWN: u32 = 1;
const ADDED: u32 = 2;
const REFUSED: u32 = 3;

/// Remembers a flow, if there is a place for it.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn remember(hash: u64, entry: u64) -> u32 {
    let Some(local) = room::local() else {
        return REFUSED;
    };
    let flooded = local.is_flooded();
    let how = if flooded { How::IfKnown } else { How::Anyhow };
    match table::admit(&Map, shape(), hash, Entry(entry), how) {
        Put::Known => KNOWN,
        Put::Added => ADDED,
        Put::Not if flooded => {
            local.refuse();
            REFUSED
        }
        Put::Not => FULL,
    }
}

/// Moves what is in a flow's way and belongs elsewhere.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn clear_way(hash: u64) -> u32 {
    table::clear_way(&Map, shape(), hash);
    1
}

/// Puts an entry in the place of the one that has been idle for longest.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn evict_for(hash: u64, entry: u64, age: u32) -> u32 {
    let Some(line) = line(table::home(hash, shape().now())) else {
        return 0;
    };
    line.put(table::oldest(line, age), entry);
    1
}
