//! The flow table: where an entry lies, and how the table grows and shrinks without losing one.
//!
//! ```text
//! hash: 63               28 27        17 16         9        2     0
//!       |  tag, kept in the entry ...  |  block  |  home |      | seat |
//!         ... its lowest bits number blocks beyond the first 2,048
//! ```
//! The table is an array of cache lines of 8 entries, preallocated for the worst day. Eight lines are a
//! block: six homes, one of which the hash names, and two spill lines for what finds its home full.
//! Only the blocks below [`Shape::now`] are in use, so that few flows touch little memory, whatever the
//! table's capacity. An entry has a seat in its line, where a look-up looks first.
//!
//! **Growing** takes four times the blocks into use. From then on new entries go to where they belong in the larger
//! table. Old ones are moved line by line, by whoever inserts and by the timer; until all are moved, a look-up that finds nothing looks there, too. The next
//! step waits for that. **Shrinking** is the same the other way. Since an entry keeps the bits of the
//! hash that number its block, whoever moves it needs no more than the entry.
//!
//! No lock: an entry is one word, put into an empty place by compare-and-exchange, and copied to its
//! new place before the old one is cleared. The kernel runs this on a map, the tests on a vector.

use crate::flow::{AGES, Entry, LINE_ENTRIES, TAG_SHIFT};

/// Lines in a block, a power of two.
pub const BLOCK_LINES: u32 = 8;
const BLOCK_BITS: u32 = BLOCK_LINES.trailing_zeros();
/// Lines of a block that are homes; the last two take what spills over.
const HOMES: u64 = BLOCK_LINES as u64 - 2;
/// Blocks that the hash numbers without the tag: as many are in use at least, 1 MB of entries.
pub const FIRST_BLOCKS: u32 = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 11;
const FIRST_SHIFT: u32 = TAG_SHIFT - FIRST_BITS;
const HOME_SHIFT: u32 = FIRST_SHIFT - 8;
/// A step of growth multiplies the blocks in use by 2 to the power of this.
const STEP_BITS: u32 = 2;
/// Lines at most.
pub const MAX_LINES: u32 = 1 << 28;
/// Capacity: entries that a line is meant to hold, on average over the table. At this load one entry
/// in thirty spills, and a block's spill lines, with room for sixteen, have one on average.
pub const LOAD: u32 = 4;

/// A line of the table.
pub trait Line: Copy {
    /// The word at a place.
    fn get(self, place: usize) -> u64;
    /// Stores a word.
    fn put(self, place: usize, word: u64);
    /// Stores a word where `old` is; false if it is there no more.
    fn swap(self, place: usize, old: u64, new: u64) -> bool;
}

/// Which blocks are in use, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub u64);

impl Shape {
    /// Blocks less one in use, now and before.
    #[inline(always)]
    const fn new(now: u32, before: u32) -> Self {
        Self((before as u64) << 32 | now as u64)
    }

    /// Of a table of `lines` lines at its smallest.
    #[inline(always)]
    pub const fn first(lines: u32) -> Self {
        let blocks = lines >> BLOCK_BITS;
        let least = if blocks < FIRST_BLOCKS {
            blocks
        } else {
            FIRST_BLOCKS
        };
        Self::new(least.wrapping_sub(1), least.wrapping_sub(1))
    }

    /// Blocks less one that new entries go to.
    #[inline(always)]
    pub const fn now(self) -> u32 {
        self.0 as u32
    }

    /// Blocks less one among which entries may lie that have not been moved.
    #[inline(always)]
    pub const fn before(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether entries are being moved.
    #[inline(always)]
    pub const fn is_moving(self) -> bool {
        self.now() != self.before()
    }

    /// Lines in which entries may lie.
    #[inline(always)]
    pub const fn lines(self) -> u32 {
        let most = if self.now() > self.before() {
            self.now()
        } else {
            self.before()
        };
        most.wrapping_add(1) << BLOCK_BITS
    }

    /// More blocks, in a table of `lines` lines; the same if it may not grow now.
    #[must_use]
    #[inline(always)]
    pub const fn grown(self, lines: u32) -> Self {
        let most = (lines >> BLOCK_BITS).wrapping_sub(1);
        let next = (self.now() << STEP_BITS | ((1 << STEP_BITS) - 1)) & most;
        if self.is_moving() || next <= self.now() {
            return self;
        }
        Self::new(next, self.now())
    }

    /// Fewer blocks; the same if it may not shrink now.
    #[must_use]
    #[inline(always)]
    pub const fn shrunk(self) -> Self {
        let next = (self.now() >> STEP_BITS) | (FIRST_BLOCKS - 1);
        if self.is_moving() || next >= self.now() {
            return self;
        }
        Self::new(next, self.now())
    }

    /// All entries are where they belong.
    #[must_use]
    #[inline(always)]
    pub const fn moved(self) -> Self {
        Self::new(self.now(), self.now())
    }

    /// First line of those whose entries have to move, and how many there are.
    #[inline(always)]
    pub const fn moving(self) -> (u32, u32) {
        let (now, before) = (self.now().wrapping_add(1), self.before().wrapping_add(1));
        if now < before {
            (now << BLOCK_BITS, (before - now) << BLOCK_BITS)
        } else {
            (0, before << BLOCK_BITS)
        }
    }

    /// Entries above which the table grows, a little above [`LOAD`], so that a round number of flows does
    /// not lie on the edge.
    #[inline(always)]
    pub const fn crowded(self) -> u64 {
        let lines = (self.now() as u64 + 1) << BLOCK_BITS;
        lines * LOAD as u64 + lines / 4
    }

    /// Entries below which it shrinks: half of what the smaller table may hold.
    #[inline(always)]
    pub const fn sparse(self) -> u64 {
        self.crowded() >> (STEP_BITS + 1)
    }
}

/// The line that a flow belongs to, in a table of `blocks + 1` blocks.
#[inline(always)]
pub const fn home(hash: u64, blocks: u32) -> u32 {
    let block = (hash >> FIRST_SHIFT) as u32 & blocks;
    let line = ((hash >> HOME_SHIFT & 0xff) * HOMES) >> 8;
    block << BLOCK_BITS | line as u32
}

/// The first spill line behind a line.
#[inline(always)]
pub const fn spill(line: u32) -> u32 {
    last(line) - 1
}

/// The last spill line behind a line.
#[inline(always)]
pub const fn last(line: u32) -> u32 {
    line | (BLOCK_LINES - 1)
}

/// The place in its line where a flow's entry is looked for first.
#[inline(always)]
pub const fn seat(hash: u64) -> usize {
    hash as usize & (LINE_ENTRIES - 1)
}

/// Where an entry that lies in `line` belongs, in a table of `blocks + 1` blocks.
#[inline(always)]
pub const fn belongs(entry: Entry, line: u32, blocks: u32) -> u32 {
    let first = (line >> BLOCK_BITS) & (FIRST_BLOCKS - 1);
    let further = ((entry.0 >> TAG_SHIFT) as u32) << FIRST_BITS;
    ((further | first) & blocks) << BLOCK_BITS | line & (BLOCK_LINES - 1)
}

/// The flow's entry in a line, at its seat first; the empty word if it has none here.
#[inline(always)]
pub fn find(line: impl Line, hash: u64) -> u64 {
    let word = line.get(seat(hash));
    if Entry(word).matches(hash) {
        return word;
    }
    let mut place = 0;
    while place < LINE_ENTRIES {
        let word = line.get(place);
        if Entry(word).matches(hash) {
            return word;
        }
        place += 1;
    }
    0
}

/// How an entry may be put into a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum How {
    /// In the place of the flow's old one, else into an empty place.
    Anyhow = 0,
    /// In the place of the flow's old one only.
    IfKnown = 1,
    /// Into an empty place, unless the flow has an entry here.
    IfUnknown = 2,
}

impl How {
    /// From its number.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::IfKnown,
            2 => Self::IfUnknown,
            _ => Self::Anyhow,
        }
    }
}

/// What became of an entry that was to be put into a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Put {
    /// It was not put there: there is no room, or it may not.
    Not = 0,
    /// The flow has an entry here: this one now, or that which it had.
    Known = 1,
    /// It has got an empty place.
    Added = 2,
}

impl Put {
    /// From its number.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Known,
            2 => Self::Added,
            _ => Self::Not,
        }
    }
}

/// Puts an entry into a line, at its seat if that is empty.
#[inline(always)]
pub fn put(line: impl Line, entry: Entry, seat: usize, how: How) -> Put {
    let mut place = 0;
    while place < LINE_ENTRIES {
        let word = line.get(place);
        if word != 0 && Entry(word).is_like(entry) {
            if !matches!(how, How::IfUnknown) {
                line.put(place, entry.0);
            }
            return Put::Known;
        }
        place += 1;
    }
    if matches!(how, How::IfKnown) {
        return Put::Not;
    }
    if line.swap(seat, 0, entry.0) {
        return Put::Added;
    }
    let mut place = 0;
    while place < LINE_ENTRIES {
        if line.get(place) == 0 && line.swap(place, 0, entry.0) {
            return Put::Added;
        }
        place += 1;
    }
    Put::Not
}

/// The place of the entry that has been idle for longest.
#[inline(always)]
pub fn oldest(line: impl Line, now: u32) -> usize {
    let (mut best, mut most) = (0, 0);
    let mut place = 0;
    while place < LINE_ENTRIES {
        let idle = Entry(line.get(place)).idle(now) + 1;
        if idle > most {
            (best, most) = (place, idle);
        }
        place += 1;
    }
    best
}

/// A whole table. What works on a whole line can be replaced, so that the kernel calls it as a function
/// and its verifier walks it once.
pub trait Table {
    /// Its lines.
    type Line: Line;

    /// A line by its number.
    fn line(&self, number: u32) -> Option<Self::Line>;

    /// Whether an entry's backend still is one.
    fn lives(&self, entry: Entry) -> bool;

    /// [`find`] in a line.
    fn find_in(&self, number: u32, hash: u64) -> u64 {
        self.line(number).map_or(0, |line| find(line, hash))
    }

    /// [`put`] into a line.
    fn put_in(&self, number: u32, entry: Entry, seat: usize, how: How) -> Put {
        self.line(number)
            .map_or(Put::Not, |line| put(line, entry, seat, how))
    }

    /// [`move_line`].
    fn move_line(&self, number: u32, shape: Shape) {
        move_line(self, number, shape);
    }
}

/// The flow's entry; the empty word if it has none.
#[inline(always)]
pub fn seek<T: Table + ?Sized>(table: &T, shape: Shape, hash: u64) -> u64 {
    let own = home(hash, shape.now());
    let found = seek_at(table, own, hash);
    let before = home(hash, shape.before());
    if found != 0 || before == own {
        return found;
    }
    let found = seek_at(table, before, hash);
    if found == 0 {
        // It may just have been moved.
        return seek_at(table, own, hash);
    }
    found
}

#[inline(always)]
fn seek_at<T: Table + ?Sized>(table: &T, line: u32, hash: u64) -> u64 {
    let mut found = table.find_in(line, hash);
    if found == 0 {
        found = table.find_in(spill(line), hash);
    }
    if found == 0 {
        found = table.find_in(last(line), hash);
    }
    found
}

/// Puts a flow's entry where it belongs. An entry that the flow may have behind a home with room is
/// left: it is found only when the new one is gone.
#[inline(always)]
pub fn admit<T: Table + ?Sized>(table: &T, shape: Shape, hash: u64, entry: Entry, how: How) -> Put {
    let own = home(hash, shape.now());
    let mut done = table.put_in(own, entry, seat(hash), how);
    if done == Put::Not {
        done = table.put_in(spill(own), entry, seat(hash), how);
    }
    if done == Put::Not {
        done = table.put_in(last(own), entry, seat(hash), how);
    }
    done
}

/// Moves what lies where a flow belongs and does not belong there.
#[inline(always)]
pub fn clear_way<T: Table + ?Sized>(table: &T, shape: Shape, hash: u64) {
    let own = home(hash, shape.now());
    table.move_line(own, shape);
    table.move_line(spill(own), shape);
    table.move_line(last(own), shape);
}

/// Moves the entries of a line to where they belong.
#[inline(always)]
pub fn move_line<T: Table + ?Sized>(table: &T, number: u32, shape: Shape) {
    let mut place = 0;
    while place < LINE_ENTRIES {
        move_entry(table, number, place, shape);
        place += 1;
    }
}

/// Moves one entry to where it belongs, if it is not there. It is copied before the old one is cleared,
/// so that a look-up finds it in one of both places. Without room there it stays.
#[inline(always)]
pub fn move_entry<T: Table + ?Sized>(table: &T, number: u32, place: usize, shape: Shape) {
    let Some(line) = table.line(number) else {
        return;
    };
    let entry = Entry(line.get(place));
    let target = belongs(entry, number, shape.now());
    if entry.0 == 0 || target == number {
        return;
    }
    // If the flow has one there already, that is newer.
    let gone = !table.lives(entry)
        || table.put_in(target, entry, place, How::IfUnknown) != Put::Not
        || table.put_in(spill(target), entry, place, How::IfUnknown) != Put::Not
        || table.put_in(last(target), entry, place, How::IfUnknown) != Put::Not;
    if gone {
        line.swap(place, entry.0, 0);
    }
}

const _: () = assert!(AGES <= 64 && LINE_ENTRIES == 8 && HOME_SHIFT >= 3);

#[cfg(test)]
#[path = "flow_table_tests.rs"]
mod tests;
