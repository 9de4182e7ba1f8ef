//! Pools that a change leaves as they are: taken over from ACTIVE with what was proven there (K3).
//!
//! ACTIVE's record was walked before its slot was sealed, or was taken over from one that was; neither it
//! nor its tables can have been written since. What may have changed is the overlay, so every backend is
//! judged anew.

use lb_common::control::ControlRecord;
use lb_common::guard::Refusal;
use lb_common::invariant::judge_member;
use lb_common::slot::{PoolEntry, pool_seal, slot_state};

use super::begin::{cleared, no_pool, stale_base};
use super::pools::{adopt_table, explain};
use super::{Call, Detail, Outcome, Shadow, shadow};
use crate::maps::{self, MEMBERS, NEXT_HOPS, SLOT_HEADERS};
use crate::walk::walk;

/// What the walks over a pool's backends carry.
struct Members {
    /// ACTIVE's record.
    pool: *const PoolEntry,
    number: u32,
    /// ACTIVE's slot and its bit.
    active: usize,
    active_bit: u8,
    /// The same of SHADOW.
    shadow: usize,
    shadow_bit: u8,
    /// Backends that ACTIVE's pool has.
    found: u32,
    refusal: u32,
    details: [u64; 4],
}

/// `Op::KeepPool`.
#[inline(never)]
pub fn keep_pool(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    cleared(shadow.header, detail)?;
    let record = call.record()?;
    stale_base(call, record, detail)?;
    let number = call.arg(0);
    detail[0] = u64::from(number);
    let place = maps::pool(shadow.slot, number).ok_or(Refusal::OutOfRange)?;
    // SAFETY: map elements under the lock.
    let (generation, base) = unsafe { ((*shadow.header).generation, (*shadow.header).base) };
    // What is proven is a step from the generation that this slot was begun from (K2).
    if base != record.active_generation {
        *detail = [record.active_generation, base, 0, 0, 0, 0, 0];
        return Err(Refusal::StaleBase);
    }
    // SAFETY: as above; a pool entry of another generation is free.
    if unsafe { (*place).generation } == generation {
        return Err(Refusal::InUse);
    }
    let active = proven(record, number, detail)?;
    let members = take_members(&shadow, record, number, active, detail)?;
    adopt_table(&shadow, number, active.table, detail)?;
    if active.ids_table != 0 {
        adopt_table(&shadow, number, active.ids_table, detail)?;
    }
    // SAFETY: as above; `active` is an element of another slot.
    unsafe {
        place.write(PoolEntry {
            generation,
            sealed: pool_seal::KEPT,
            compared_with: 0,
            compared_moved: 0,
            ..*active
        });
        let header = &mut *shadow.header;
        header.pools = header.pools.wrapping_add(1);
        header.pools_sealed = header.pools_sealed.wrapping_add(1);
        header.members = header.members.wrapping_add(members);
    }
    detail[0] = u64::from(members);
    Ok(())
}

/// The pool as ACTIVE has it, sealed.
#[inline(always)]
fn proven(
    record: &ControlRecord,
    number: u32,
    detail: &mut Detail,
) -> Result<&'static PoolEntry, Refusal> {
    let slot = u32::from(record.active);
    let header = SLOT_HEADERS.get(slot).ok_or(Refusal::OutOfRange)?;
    let entry = maps::pool(slot, number).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock; nobody writes ACTIVE.
    let entry: &'static PoolEntry = unsafe { &*entry };
    let there = entry.generation == header.generation && entry.sealed != pool_seal::OPEN;
    if there && header.state == slot_state::SEALED {
        Ok(entry)
    } else {
        Err(no_pool(detail))
    }
}

/// Judges the backends that ACTIVE's pool has, all of them before SHADOW gets the first. How many they are.
#[inline(always)]
fn take_members(
    shadow: &Shadow,
    record: &ControlRecord,
    number: u32,
    active: &PoolEntry,
    detail: &mut Detail,
) -> Result<u32, Refusal> {
    let mut members = Members {
        pool: active,
        number,
        active: usize::from(record.active),
        active_bit: 1 << (record.active & 7),
        shadow: shadow.slot as usize,
        shadow_bit: shadow.bit(),
        found: 0,
        refusal: 0,
        details: [0; 4],
    };
    walk(active.member_limit, judge, &mut members)?;
    if let Some(refusal) = Refusal::from_code(members.refusal)
        && !matches!(refusal, Refusal::Done)
    {
        return Err(explain((refusal, members.details), detail));
    }
    if members.found != active.members {
        let (have, want) = (u64::from(members.found), u64::from(active.members));
        *detail = [3, have, want, 0, 0, 0, 0];
        return Err(Refusal::Incomplete);
    }
    walk(active.member_limit, mark, &mut members)?;
    Ok(members.found)
}

extern "C" fn judge(turn: u32, members: *mut Members) -> i64 {
    // SAFETY: what `walk` was given; `pool` is a map element that outlives the walk.
    let (members, pool) = unsafe { (&mut *members, &*(*members).pool) };
    let relative = turn.wrapping_add(1);
    let Some(member) = MEMBERS.get(pool.member_base.wrapping_add(relative)) else {
        return 1;
    };
    if member.slots & members.active_bit == 0 || u32::from(member.pool) != members.number {
        return 0;
    }
    members.found = members.found.wrapping_add(1);
    let hop = match member.next_hop {
        0 => None,
        hop => NEXT_HOPS.get(u32::from(hop)),
    };
    let number = members.number as u16;
    if let Err((refusal, details)) =
        judge_member(number, relative, pool, member, hop, members.active_bit)
    {
        members.refusal = refusal as u32;
        members.details = details;
        return 1;
    }
    0
}

extern "C" fn mark(turn: u32, members: *mut Members) -> i64 {
    // SAFETY: as in `judge`.
    let (members, pool) = unsafe { (&*members, &*(*members).pool) };
    let id = pool.member_base.wrapping_add(turn).wrapping_add(1);
    let Some(member) = MEMBERS.get_ptr_mut(id) else {
        return 1;
    };
    // SAFETY: a map element under the lock.
    unsafe {
        if (*member).slots & members.active_bit != 0 && u32::from((*member).pool) == members.number
        {
            (*member).slots |= members.shadow_bit;
            if (*member).drains & members.active_bit != 0 {
                (*member).drains |= members.shadow_bit;
            }
            let weights = &mut (*member).weights;
            let own = weights.get(members.active).copied();
            if let (Some(weight), Some(own)) = (weights.get_mut(members.shadow), own) {
                *weight = own;
            }
        }
    }
    0
}
