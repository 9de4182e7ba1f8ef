//! Pools of a slot, and the walk that finds one sane (K3).

use lb_common::SLOTS;
use lb_common::guard::{COMMAND_LEN, Refusal};
use lb_common::invariant::{Tally, judge_member, judge_pool, judge_share};
use lb_common::slot::{CHUNK_ENTRIES, PoolEntry, pool_seal, slot_state, table_state};
use lb_common::wire::Frame;

use super::begin::{cleared, kept, no_pool};
use super::names::give_name;
use super::{Call, Detail, Outcome, Shadow, shadow};
use crate::maps::{
    self, MEMBERS, MEMBERS_MAX, NEXT_HOPS, POOL_NAMES, SLOT_HEADERS, TABLE_HEADERS, TABLES,
    TABLES_MAX, TALLIES,
};
use crate::packet::XdpFrame;
use crate::walk::walk;

/// `Op::PutPool`.
#[inline(never)]
pub fn put_pool(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    cleared(shadow.header, detail)?;
    let number = call.arg(0);
    detail[0] = u64::from(number);
    let place = maps::pool(shadow.slot, number).ok_or(Refusal::OutOfRange)?;
    let frame = XdpFrame::new(call.ctx);
    let bytes: [u8; size_of::<PoolEntry>()] = frame.read(COMMAND_LEN).ok_or(Refusal::Malformed)?;
    // SAFETY: PoolEntry is made of integers: any bytes are one.
    let put: PoolEntry = unsafe { core::mem::transmute(bytes) };
    if put.member_base > MEMBERS_MAX.load()
        || put.member_limit > u32::from(u16::MAX)
        || put.member_base + put.member_limit >= MEMBERS_MAX.load()
    {
        return Err(Refusal::OutOfRange);
    }
    // SAFETY: map elements under the lock.
    let generation = unsafe { (*shadow.header).generation };
    // SAFETY: as above; a pool entry of another generation is free.
    if unsafe { (*place).generation } == generation {
        return Err(Refusal::InUse);
    }
    let name = COMMAND_LEN + size_of::<PoolEntry>();
    let taken = is_taken(call, number)?;
    give_name(&frame, name, POOL_NAMES.get_ptr_mut(number), taken)?;
    adopt_table(&shadow, number, put.table, detail)?;
    if put.ids_table != 0 {
        adopt_table(&shadow, number, put.ids_table, detail)?;
    }
    // SAFETY: as above.
    unsafe {
        place.write(PoolEntry {
            generation,
            serves_v4: 0,
            serves_v6: 0,
            sealed: pool_seal::OPEN,
            compared_with: 0,
            compared_moved: 0,
            ..put
        });
        (*shadow.header).pools = (*shadow.header).pools.wrapping_add(1);
    }
    Ok(())
}

/// Whether ACTIVE or LKG has a pool of this number.
#[inline(always)]
fn is_taken(call: &Call<'_>, number: u32) -> Result<bool, Refusal> {
    let kept = kept(call.record()?);
    for slot in 0..SLOTS as u32 {
        let header = SLOT_HEADERS.get(slot).ok_or(Refusal::OutOfRange)?;
        let entry = maps::pool(slot, number).ok_or(Refusal::OutOfRange)?;
        // SAFETY: a map element under the lock.
        let (generation, table) = unsafe { ((*entry).generation, (*entry).table) };
        if kept >> slot & 1 != 0 && table != 0 && generation == header.generation {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the slot use a table; it may still be open, but must be this pool's.
#[inline(always)]
pub fn adopt_table(shadow: &Shadow, pool: u32, table: u32, detail: &mut Detail) -> Outcome {
    detail[0] = u64::from(table);
    if table == 0 || table >= TABLES_MAX.load() {
        return Err(Refusal::OutOfRange);
    }
    let header = TABLE_HEADERS
        .get_ptr_mut(table)
        .ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock. A free table may have been overwritten meanwhile, so
    // only one that some slot uses is taken.
    unsafe {
        if (*header).slots == 0 || u32::from((*header).pool) != pool {
            return Err(Refusal::InUse);
        }
        (*header).slots |= u16::from(shadow.bit());
    }
    Ok(())
}

/// What the walk over a table's elements carries.
struct TableWalk {
    start: u32,
    size: u32,
    limit: u32,
    holes: u32,
    /// A number above the limit, or 0.
    beyond: u32,
}

/// What the walk over a pool's backends carries.
struct MemberWalk {
    pool: *const PoolEntry,
    number: u32,
    size: u32,
    bit: u32,
    distinct: u32,
    members: u32,
    refusal: u32,
    details: [u64; 4],
}

/// `Op::SealPool`.
#[inline(never)]
pub fn seal_pool(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    let number = call.arg(0);
    detail[0] = u64::from(number);
    let pool = maps::pool(shadow.slot, number).ok_or(Refusal::OutOfRange)?;
    // SAFETY: map elements under the lock.
    let (generation, entry) = unsafe { ((*shadow.header).generation, &*pool) };
    if entry.generation != generation {
        return Err(no_pool(detail));
    }
    if entry.sealed != pool_seal::OPEN {
        return Ok(());
    }
    let table = TABLE_HEADERS.get(entry.table).ok_or(Refusal::OutOfRange)?;
    let ids = TABLE_HEADERS
        .get(entry.ids_table)
        .ok_or(Refusal::OutOfRange)?;
    let open = entry.ids_table != 0 && ids.state != table_state::SEALED;
    if open || table.state != table_state::SEALED {
        *detail = [4, 0, 1, 0, 0, 0, 0];
        return Err(Refusal::Incomplete);
    }
    let holes = tally_table(entry, table.start, table.size, detail)?;
    let distinct = judge_members(&shadow, number, entry, table.size, detail)?;
    let tally = Tally { holes, distinct };
    judge_pool(number as u16, entry, &tally).map_err(|refused| explain(refused, detail))?;
    // SAFETY: as above.
    unsafe {
        (*pool).sealed = pool_seal::WALKED;
        (*shadow.header).pools_sealed = (*shadow.header).pools_sealed.wrapping_add(1);
    }
    Ok(())
}

/// Puts the numbers of a refusal into the reply.
#[inline(always)]
pub fn explain((refusal, numbers): (Refusal, [u64; 4]), detail: &mut Detail) -> Refusal {
    detail[0] = numbers[0];
    detail[1] = numbers[1];
    detail[2] = numbers[2];
    detail[3] = numbers[3];
    refusal
}

/// Counts entries per backend number. Returns the holes.
#[inline(always)]
fn tally_table(
    entry: &PoolEntry,
    start: u32,
    size: u32,
    detail: &mut Detail,
) -> Result<u32, Refusal> {
    let mut walked = TableWalk {
        start,
        size,
        limit: entry.member_limit,
        holes: 0,
        beyond: 0,
    };
    walk(entry.member_limit.wrapping_add(1), clear_tally, &mut walked)?;
    walk(lb_common::slot::chunks(size), tally_chunk, &mut walked)?;
    if walked.beyond != 0 {
        detail[1] = u64::from(walked.beyond);
        return Err(Refusal::BadEntry);
    }
    Ok(walked.holes)
}

extern "C" fn clear_tally(number: u32, _: *mut TableWalk) -> i64 {
    if let Some(tally) = TALLIES.get_ptr_mut(number) {
        // SAFETY: a map element under the lock.
        unsafe { tally.write(0) };
    }
    0
}

extern "C" fn tally_chunk(turn: u32, walked: *mut TableWalk) -> i64 {
    // SAFETY: what `walk` was given.
    let walked = unsafe { &mut *walked };
    let Some(chunk) = TABLES.get(walked.start.wrapping_add(turn)) else {
        return 1;
    };
    let first = turn.wrapping_mul(CHUNK_ENTRIES as u32);
    for (index, number) in chunk.iter().enumerate() {
        if first.wrapping_add(index as u32) >= walked.size {
            break;
        }
        let number = u32::from(*number);
        if number == 0 {
            walked.holes = walked.holes.wrapping_add(1);
        } else if number > walked.limit {
            walked.beyond = number;
        } else if let Some(tally) = TALLIES.get_ptr_mut(number) {
            // SAFETY: a map element under the lock.
            unsafe { *tally = (*tally).wrapping_add(1) };
        }
    }
    0
}

/// Judges every backend that has an entry. Returns how many there are.
#[inline(always)]
fn judge_members(
    shadow: &Shadow,
    number: u32,
    entry: &PoolEntry,
    size: u32,
    detail: &mut Detail,
) -> Result<u32, Refusal> {
    let mut walked = MemberWalk {
        pool: entry,
        number,
        size,
        bit: u32::from(shadow.bit()),
        distinct: 0,
        members: 0,
        refusal: 0,
        details: [0; 4],
    };
    walk(entry.member_limit, judge, &mut walked)?;
    if let Some(refusal) = Refusal::from_code(walked.refusal)
        && !matches!(refusal, Refusal::Done)
    {
        return Err(explain((refusal, walked.details), detail));
    }
    if walked.members != entry.members {
        *detail = [
            3,
            u64::from(walked.members),
            u64::from(entry.members),
            0,
            0,
            0,
            0,
        ];
        return Err(Refusal::Incomplete);
    }
    Ok(walked.distinct)
}

extern "C" fn judge(turn: u32, walked: *mut MemberWalk) -> i64 {
    // SAFETY: what `walk` was given; `pool` is a map element that outlives the walk.
    let (walked, pool) = unsafe { (&mut *walked, &*(*walked).pool) };
    let relative = turn.wrapping_add(1);
    let (Some(member), Some(count)) = (
        MEMBERS.get(pool.member_base.wrapping_add(relative)),
        TALLIES.get(relative),
    ) else {
        return 1;
    };
    let bit = walked.bit as u8;
    if member.slots & bit != 0 && u32::from(member.pool) == walked.number {
        walked.members = walked.members.wrapping_add(1);
    }
    if *count == 0 {
        return 0;
    }
    walked.distinct = walked.distinct.wrapping_add(1);
    let pool_number = walked.number as u16;
    let hop = match member.next_hop {
        0 => None,
        hop => NEXT_HOPS.get(u32::from(hop)),
    };
    let verdict = judge_member(pool_number, relative, pool, member, hop, bit).and_then(|()| {
        judge_share(
            pool_number,
            relative,
            *count,
            walked.size,
            pool.max_share_ppm,
        )
    });
    if let Err((refusal, details)) = verdict {
        walked.refusal = refusal as u32;
        walked.details = details;
        return 1;
    }
    0
}
