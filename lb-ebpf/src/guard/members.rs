//! Members of a slot, and next hops.

use aya_ebpf::programs::XdpContext;
use lb_common::guard::{COMMAND_LEN, HOPS, MemberPut, PUTS, Refusal};
use lb_common::slot::{
    Member, NextHop, PoolEntry, SlotHeader, hold, member_state, pool_seal, slot_state,
};
use lb_common::wire::Frame;

use super::begin::cleared;
use super::names::copy_name;
use super::records::Records;
use super::{Call, Detail, Outcome, Shadow, shadow};
use crate::maps::{self, MEMBER_NAMES, MEMBERS, NEXT_HOPS, NEXT_HOPS_MAX};
use crate::packet::XdpFrame;

/// A number in a payload, where nothing is aligned.
type U32 = [u8; 4];
/// Bounds a turn for the verifier; a command has no more records.
pub const RECORD_MASK: u32 = 15;
const PUT_LEN: usize = size_of::<MemberPut>();

/// `Op::PutMembers`.
#[inline(never)]
pub fn put_members(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    cleared(shadow.header, detail)?;
    let count = call.arg(0);
    if count > PUTS as u32 {
        return Err(Refusal::Malformed);
    }
    Records::take(call, shadow, 0, count, take_member, detail)
}

extern "C" fn take_member(turn: u32, records: *mut Records) -> i64 {
    // SAFETY: what `walk` was given.
    let records = unsafe { &mut *records };
    let ctx = XdpContext::new(records.ctx);
    let frame = XdpFrame::new(&ctx);
    let offset = COMMAND_LEN + (turn & RECORD_MASK) as usize * PUT_LEN;
    let Some([id, drain]) = frame.read::<[U32; 2]>(offset) else {
        return records.note(turn, Err(Refusal::Malformed));
    };
    let (id, drain) = (u32::from_ne_bytes(id), u32::from_ne_bytes(drain) != 0);
    let outcome = put_member(&frame, offset, id, drain, &records.shadow());
    records.note(id, outcome)
}

#[inline(always)]
fn put_member(frame: &XdpFrame, offset: usize, id: u32, drain: bool, shadow: &Shadow) -> Outcome {
    let raw: [u8; size_of::<Member>()] = frame.read(offset + 8).ok_or(Refusal::Malformed)?;
    // SAFETY: Member is made of integers: any bytes are one. It is copied out unaligned.
    let put: Member = unsafe { core::mem::transmute(raw) };
    // SAFETY: the header is a map element under the lock.
    belongs(id, &put, shadow, unsafe { (*shadow.header).generation })?;
    let member = MEMBERS.get_ptr_mut(id).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock. It is written whole only while no slot has it: what was
    // put by a change that was given up, its state and next hop too, is forgotten then.
    unsafe {
        if (*member).identity != 0 && !same(&*member, &put) {
            return Err(Refusal::InUse);
        }
        if (*member).slots == 0 {
            let holds = match put.holds {
                0 => member_state::held_without_hop(put.state),
                holds => holds & hold::ALL,
            };
            member.write(Member {
                slots: 0,
                drains: 0,
                holds,
                state: member_state::of(holds),
                ..put
            });
            copy_name(
                frame,
                offset + 8 + size_of::<Member>(),
                MEMBER_NAMES.get_ptr_mut(id),
            )?;
        }
        add(member, shadow, drain, &put);
    }
    Ok(())
}

/// Counts the member in and sets the slot's bits.
///
/// # Safety
/// `member` and `shadow.header` are map elements, and the caller holds the lock.
#[inline(always)]
unsafe fn add(member: *mut Member, shadow: &Shadow, drain: bool, put: &Member) {
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
        let slot = shadow.slot as usize;
        if let (Some(weight), Some(own)) = ((*member).weights.get_mut(slot), put.weights.get(slot))
        {
            *weight = *own;
        }
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
    if pool.sealed != pool_seal::OPEN {
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
    a.identity == b.identity && a.address == b.address && a.pool == b.pool && a.forward == b.forward
}

/// `Op::PutNextHops`.
#[inline(never)]
pub fn put_next_hops(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let (first, count) = (call.arg(0), call.arg(1));
    if count > HOPS as u32 {
        return Err(Refusal::Malformed);
    }
    let nowhere = Shadow {
        slot: 0,
        header: core::ptr::null_mut(),
    };
    Records::take(call, nowhere, first, count, take_next_hop, detail)
}

extern "C" fn take_next_hop(turn: u32, records: *mut Records) -> i64 {
    // SAFETY: what `walk` was given.
    let records = unsafe { &mut *records };
    let number = records.first.wrapping_add(turn);
    // Number 0 is "none".
    if number == 0 || number >= NEXT_HOPS_MAX.load() {
        return records.note(number, Err(Refusal::OutOfRange));
    }
    let ctx = XdpContext::new(records.ctx);
    let offset = COMMAND_LEN + (turn & RECORD_MASK) as usize * size_of::<NextHop>();
    let outcome = match XdpFrame::new(&ctx).read::<[u8; size_of::<NextHop>()]>(offset) {
        Some(bytes) => store_next_hop(number, bytes),
        None => Err(Refusal::Malformed),
    };
    records.note(number, outcome)
}

#[expect(clippy::cast_ptr_alignment, reason = "the copy is read unaligned")]
/// Interface and VLAN first, then each MAC address in one store with what must go with it.
#[inline(always)]
fn store_next_hop(number: u32, bytes: [u8; 32]) -> Outcome {
    let hop = NEXT_HOPS.get_ptr_mut(number).ok_or(Refusal::OutOfRange)?;
    let from = bytes.as_ptr().cast::<u64>();
    let to = hop.cast::<u64>();
    // SAFETY: both are 32 bytes; the map element is aligned to 8, the copy is read unaligned.
    unsafe {
        to.add(3).write_volatile(from.add(3).read_unaligned());
        to.add(2).write_volatile(from.add(2).read_unaligned());
        to.add(1).write_volatile(from.add(1).read_unaligned());
        to.write_volatile(from.read_unaligned());
    }
    Ok(())
}

const _: () = assert!(PUTS == RECORD_MASK as usize + 1 && HOPS == PUTS);
