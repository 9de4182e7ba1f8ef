//! Lookup tables: opened in free room, written, sealed. A sealed table is never written again.

use lb_common::guard::{CHUNKS, COMMAND_LEN, Refusal};
use lb_common::invariant::checksum;
use lb_common::slot::{CHUNK_ENTRIES, Chunk, TableHeader, chunks, slot_state, table_state};
use lb_common::wire::Frame;

use super::{Call, Detail, Outcome, shadow};
use crate::maps::{CHUNKS_MAX, TABLE_HEADERS, TABLES, TABLES_MAX};
use crate::packet::XdpFrame;
use crate::walk::walk;

/// Entries at most: numbers of entries stay far from overflow.
const SIZE_MAX: u32 = 1 << 20;

/// Room that is asked for, and what is in its way.
struct Room {
    start: u32,
    end: u32,
    table: u32,
    /// Table that overlaps, plus 1.
    taken: u32,
}

#[inline(always)]
fn header(table: u32) -> Result<*mut TableHeader, Refusal> {
    if table == 0 || table >= TABLES_MAX.load() {
        return Err(Refusal::OutOfRange);
    }
    TABLE_HEADERS.get_ptr_mut(table).ok_or(Refusal::OutOfRange)
}

/// `Op::OpenTable`.
#[inline(never)]
pub fn open(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    let (table, start, size, pool) = (call.arg(0), call.arg(1), call.arg(2), call.arg(3));
    detail[0] = u64::from(table);
    let header = header(table)?;
    let length = chunks(size);
    if size == 0 || size > SIZE_MAX || start > CHUNKS_MAX.load() {
        return Err(Refusal::OutOfRange);
    }
    let end = start + length;
    if end > CHUNKS_MAX.load() {
        return Err(Refusal::OutOfRange);
    }
    // SAFETY: a map element under the lock.
    if unsafe { (*header).slots } != 0 {
        return Err(Refusal::InUse);
    }
    let mut room = Room {
        start,
        end,
        table,
        taken: 0,
    };
    walk(TABLES_MAX.load(), overlaps, &mut room)?;
    if room.taken != 0 {
        detail[0] = u64::from(room.taken - 1);
        return Err(Refusal::Overlap);
    }
    // SAFETY: as above; no slot uses the table.
    unsafe {
        header.write(TableHeader {
            start,
            chunks: length,
            size,
            state: table_state::OPEN,
            largest: 0,
            pool: pool as u16,
            slots: u16::from(shadow.bit()),
            checksum: 0,
        });
    }
    Ok(())
}

extern "C" fn overlaps(table: u32, room: *mut Room) -> i64 {
    let Some(other) = TABLE_HEADERS.get(table) else {
        return 1;
    };
    // SAFETY: what `walk` was given.
    let room = unsafe { &mut *room };
    let apart = other.start >= room.end || other.start.wrapping_add(other.chunks) <= room.start;
    if table != room.table && other.slots != 0 && !apart {
        room.taken = table.wrapping_add(1);
        return 1;
    }
    0
}

/// `Op::WriteTable`.
#[inline(never)]
pub fn write(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    shadow(call, slot_state::STAGING, detail)?;
    let (table, from, count) = (call.arg(0), call.arg(1), call.arg(2));
    detail[0] = u64::from(table);
    let header = header(table)?;
    // SAFETY: a map element under the lock.
    let (start, length, state) = unsafe { ((*header).start, (*header).chunks, (*header).state) };
    if state != table_state::OPEN {
        return Err(Refusal::InUse);
    }
    if count > CHUNKS as u32 || from > length || from + count > length {
        return Err(Refusal::OutOfRange);
    }
    let frame = XdpFrame::new(call.ctx);
    for index in 0..CHUNKS {
        if index as u32 >= count {
            break;
        }
        let bytes: [u8; size_of::<Chunk>()] = frame
            .read(COMMAND_LEN + index * size_of::<Chunk>())
            .ok_or(Refusal::Malformed)?;
        let chunk = TABLES
            .get_ptr_mut(start.wrapping_add(from).wrapping_add(index as u32))
            .ok_or(Refusal::OutOfRange)?;
        // SAFETY: an element of an open table under the lock; both are 64 bytes.
        unsafe { chunk.cast::<[u8; size_of::<Chunk>()]>().write(bytes) };
    }
    Ok(())
}

/// A walk over a table's elements.
struct Sum {
    start: u32,
    state: u64,
}

/// `Op::SealTable`.
#[inline(never)]
pub fn seal(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    shadow(call, slot_state::STAGING, detail)?;
    let table = call.arg(0);
    detail[0] = u64::from(table);
    let header = header(table)?;
    // SAFETY: a map element under the lock.
    unsafe {
        if (*header).state != table_state::OPEN {
            return Err(Refusal::InUse);
        }
        let mut sum = Sum {
            start: (*header).start,
            state: u64::from((*header).size),
        };
        walk((*header).chunks, add, &mut sum)?;
        (*header).checksum = sum.state;
        (*header).state = table_state::SEALED;
        detail[0] = sum.state;
    }
    Ok(())
}

extern "C" fn add(turn: u32, sum: *mut Sum) -> i64 {
    // SAFETY: what `walk` was given.
    let sum = unsafe { &mut *sum };
    let Some(chunk) = TABLES.get(sum.start.wrapping_add(turn)) else {
        return 1;
    };
    sum.state = checksum(sum.state, chunk);
    0
}

const _: () = assert!(CHUNK_ENTRIES == 32);
