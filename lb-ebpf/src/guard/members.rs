//! Members of a slot, and the overlays: their state and their next hops.

use lb_common::guard::{COMMAND_LEN, HOPS, MemberPut, PUTS, Refusal};
use lb_common::slot::{Member, NextHop, PoolEntry, SlotHeader, member_state, slot_state};
use lb_common::wire::Frame;

use super::begin::cleared;
use super::{Call, Detail, Outcome, Shadow, shadow};
use crate::maps::{self, MEMBER_NAMES, MEMBERS, NEXT_HOPS, NEXT_HOPS_MAX};
use crate::packet::XdpFrame;

/// The bytes of a record in a payload; records are read as bytes, since they lie unaligned.
type Raw<const N: usize> = [u8; N];
const PUT_LEN: usize = size_of::<MemberPut>();

/// `Op::PutMembers`.
#[inline(never)]
pub fn put_members(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    if !cleared(shadow.header) {
        return Err(Refusal::Incomplete);
    }
    let count = call.arg(0) as usize;
    for index in 0..PUTS {
        if index >= count {
            break;
        }
        put_member(call, &shadow, index, detail)?;
    }
    Ok(())
}

#[inline(always)]
fn put_member(call: &Call<'_>, shadow: &Shadow, index: usize, detail: &mut Detail) -> Outcome {
    let frame = XdpFrame::new(call.ctx);
    let offset = COMMAND_LEN + index * PUT_LEN;
    let id: [u8; 4] = frame.read(offset).ok_or(Refusal::Malformed)?;
    let drain: [u8; 4] = frame.read(offset + 4).ok_or(Refusal::Malformed)?;
    let raw: Raw<64> = frame.read(offset + 8).ok_or(Refusal::Malformed)?;
    let id = u32::from_ne_bytes(id);
    // SAFETY: Member is made of integers: any 64 bytes are one. It is copied out unaligned.
    let put: Member = unsafe { raw.as_ptr().cast::<Member>().read_unaligned() };
    detail[0] = u64::from(id);
    // SAFETY: the header is a map element under the lock.
    belongs(id, &put, shadow, unsafe { (*shadow.header).generation })?;
    let member = MEMBERS.get_ptr_mut(id).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock. It is written whole only while no slot has it.
    unsafe {
        if (*member).slots == 0 && (*member).identity == 0 {
            member.write(Member { slots: 0, drains: 0, ..put });
            let name: Raw<64> = frame.read(offset + 72).ok_or(Refusal::Malformed)?;
            let place = MEMBER_NAMES.get_ptr_mut(id).ok_or(Refusal::OutOfRange)?;
            place.write(name);
        } else if !same(&*member, &put) {
            return Err(Refusal::InUse);
        }
        add(member, shadow, u32::from_ne_bytes(drain) != 0, put.weight);
    }
    Ok(())
}

/// Counts the member in and sets the slot's bits.
///
/// # Safety
/// `member` and `shadow.header` are map elements, and the caller holds the lock.
#[inline(always)]
unsafe fn add(member: *mut Member, shadow: &Shadow, drain: bool, weight: u32) {
    let header: *mut SlotHeader = shadow.header;
    // SAFETY: by this function's contract.
    unsafe {
        if (*member).slots & shadow.bit() == 0 {
            (*header).members = (*header).members.wrapping_add(1);
        }
        (*member).slots |= shadow.bit();
        if drain {
            (*member).drains |= shadow.bit();
        }
        (*member).weight = weight;
    }
}

/// A member lies in its pool's region, of a pool of this generation that is not walked yet.
#[inline(always)]
fn belongs(id: u32, put: &Member, shadow: &Shadow, generation: u64) -> Outcome {
    let pool = maps::pool(shadow.slot, u32::from(put.pool)).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock.
    let pool: &PoolEntry = unsafe { &*pool };
    if pool.generation != generation {
        return Err(Refusal::Incomplete);
    }
    if pool.sealed != 0 {
        return Err(Refusal::InUse);
    }
    let number = id.wrapping_sub(pool.member_base);
    if number == 0 || number > pool.member_limit || put.identity == 0 {
        return Err(Refusal::OutOfRange);
    }
    Ok(())
}

/// Identity: what must not change under a number.
#[inline(always)]
fn same(a: &Member, b: &Member) -> bool {
    a.identity == b.identity
        && a.address == b.address
        && a.pool == b.pool
        && a.forward == b.forward
}

/// `Op::PutNextHops`.
#[inline(never)]
pub fn put_next_hops(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let (first, count) = (call.arg(0), call.arg(1) as usize);
    let limit = NEXT_HOPS_MAX.load();
    let frame = XdpFrame::new(call.ctx);
    for index in 0..HOPS {
        if index >= count {
            break;
        }
        let number = first.wrapping_add(index as u32);
        detail[0] = u64::from(number);
        // Number 0 is "none".
        if number == 0 || number >= limit {
            return Err(Refusal::OutOfRange);
        }
        let words: [u8; 32] = frame
            .read(COMMAND_LEN + index * size_of::<NextHop>())
            .ok_or(Refusal::Malformed)?;
        store_next_hop(number, words)?;
    }
    Ok(())
}

/// Interface first, then each MAC address in one store with what must go with it.
#[inline(always)]
fn store_next_hop(number: u32, bytes: [u8; 32]) -> Outcome {
    let hop = NEXT_HOPS.get_ptr_mut(number).ok_or(Refusal::OutOfRange)?;
    let from = bytes.as_ptr().cast::<u64>();
    let to = hop.cast::<u64>();
    // SAFETY: both are 32 bytes; the map element is aligned to 8, the copy is read unaligned.
    unsafe {
        to.add(2).write_volatile(from.add(2).read_unaligned());
        to.add(1).write_volatile(from.add(1).read_unaligned());
        to.write_volatile(from.read_unaligned());
    }
    Ok(())
}

/// `Op::SetMember`.
#[inline(never)]
pub fn set_member(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let (id, state, hop) = (call.arg(0), call.arg(1), call.arg(2));
    detail[0] = u64::from(id);
    if state > u32::from(member_state::DOWN) || hop >= NEXT_HOPS_MAX.load() {
        return Err(Refusal::OutOfRange);
    }
    let member = MEMBERS.get_ptr_mut(id).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock; each field is one store, and readers take either value.
    unsafe {
        if (*member).identity == 0 {
            return Err(Refusal::OutOfRange);
        }
        (&raw mut (*member).next_hop).write_volatile(hop as u16);
        (&raw mut (*member).state).write_volatile(state as u8);
    }
    Ok(())
}
