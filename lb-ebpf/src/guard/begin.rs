//! Generation 0, taking a slot for a new generation, giving it up.

use lb_common::SLOTS;
use lb_common::clock::Ticks;
use lb_common::control::{ControlRecord, NO_SLOT, control_flag};
use lb_common::flow::age_at;
use lb_common::flow_table::Shape;
use lb_common::guard::{BeginPut, CLEARS, COMMAND_LEN, Refusal};
use lb_common::slot::{FILTER_WORDS, Node, SlotHeader, VipEntry, slot_state, vip_kind};
use lb_common::wire::Frame;
use zerocopy::FromZeros;

use super::{Call, Detail, Outcome, shadow};
use crate::control::{self, jiffies, now};
use crate::deadman;
use crate::maps::{
    self, AGE_SHIFT, FILTERS, FLOW_LINES, MEMBERS, MEMBERS_MAX, NODE, POOLS_MAX, SLOT_HEADERS,
    TABLE_HEADERS, TABLES_MAX, VIP_PLACES, VIPS, VIPS_MAX, VIPS_TAKEN,
};
use crate::packet::XdpFrame;
use crate::walk::walk;

/// A slot is not written for this long after it was last in use.
const GRACE_NS: u64 = 100_000_000;

/// `Op::Start`.
#[inline(never)]
pub fn start(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let control = call.writer.control();
    let patience = call.arg64(0);
    // SAFETY: the control element; this holds the lock.
    unsafe {
        if (*control).started_ns == 0 {
            keep_node(call)?;
            empty_generation_zero()?;
            (*control).shape = Shape::first(FLOW_LINES.load()).0;
            (*control).started_ns = now();
            (*control).clock = Ticks::of(patience);
            // Flows may come before the first tick, and their age must not jump then.
            (*control).age = age_at((*control).started_ns, AGE_SHIFT.load());
        }
        (*control).patience = patience;
        (*control).object = call.arg64(1);
        control::stamp(control, now());
    }
    let first = call.writer.record().is_none();
    let session = call.session();
    call.writer.publish(|mut record| {
        if first {
            record = ControlRecord {
                lkg: NO_SLOT,
                shadow: NO_SLOT,
                ..ControlRecord::new_zeroed()
            };
        }
        record.session = session;
        record
    });
    deadman::start();
    detail[0] = now();
    detail[1] = jiffies();
    Ok(())
}

/// Keeps what the loader says of this object.
#[inline(always)]
fn keep_node(call: &Call<'_>) -> Outcome {
    let bytes: [u8; size_of::<Node>()] = XdpFrame::new(call.ctx)
        .read(COMMAND_LEN)
        .ok_or(Refusal::Malformed)?;
    let node = NODE.get_ptr_mut(0).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock; both are of one size.
    unsafe { node.cast::<[u8; size_of::<Node>()]>().write(bytes) };
    Ok(())
}

/// Slot 0 as generation 0: sealed, without a VIP.
#[inline(always)]
fn empty_generation_zero() -> Outcome {
    let header = SLOT_HEADERS.get_ptr_mut(0).ok_or(Refusal::OutOfRange)?;
    // SAFETY: an element of the header map; the caller holds the lock.
    unsafe {
        (*header).state = slot_state::SEALED;
        (*header).sealed_ns = now();
    }
    Ok(())
}

/// `Op::Begin`.
#[inline(never)]
pub fn begin(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let record = call.record()?;
    if record.flags & control_flag::TRIAL != 0 {
        return Err(Refusal::TrialOn);
    }
    let generation = call.arg64(0);
    // A generation may be staged again only as long as none is committed: an agent that died while
    // it restored the committed one after a reboot.
    let again = record.active_generation == 0 && generation == record.highest_generation;
    if generation == 0 || (generation <= record.highest_generation && !again) {
        *detail = [record.highest_generation, generation, 0, 0, 0, 0, 0];
        return Err(Refusal::OldGeneration);
    }
    stale_base(call, record, detail)?;
    let age = now().saturating_sub(record.ended_ns);
    if record.ended_ns != 0 && age < GRACE_NS {
        detail[0] = (GRACE_NS - age) / 1_000_000 + 1;
        return Err(Refusal::GracePeriod);
    }
    let slot = free_slot(record).ok_or(Refusal::NoSlot)?;
    let put: BeginPut = XdpFrame::new(call.ctx)
        .read(COMMAND_LEN)
        .ok_or(Refusal::Malformed)?;
    let header = SLOT_HEADERS.get_ptr_mut(slot).ok_or(Refusal::OutOfRange)?;
    // SAFETY: an element of the header map that neither ACTIVE, LKG nor a trial uses; this holds
    // the lock.
    unsafe {
        header.write(SlotHeader::new_zeroed());
        (*header).generation = generation;
        (*header).base = call.base();
        (*header).digest = put.digest;
        (*header).state = slot_state::STAGING;
    }
    release_tables(record)?;
    call.writer.publish(|record| ControlRecord {
        shadow: slot as u8,
        shadow_generation: generation,
        ..record
    });
    detail[0] = u64::from(slot);
    Ok(())
}

/// K2: the change was made from the generation that is ACTIVE now.
#[inline(always)]
pub fn stale_base(call: &Call<'_>, record: &ControlRecord, detail: &mut Detail) -> Outcome {
    let base = call.base();
    if base == record.active_generation {
        return Ok(());
    }
    detail[0] = record.active_generation;
    detail[1] = base;
    Err(Refusal::StaleBase)
}

/// K5: a slot that is neither ACTIVE nor LKG.
#[inline(always)]
fn free_slot(record: &ControlRecord) -> Option<u32> {
    (0..SLOTS as u32)
        .find(|slot| u32::from(record.active) != *slot && u32::from(record.lkg) != *slot)
}

/// Leaves every table to ACTIVE and LKG alone: besides SHADOW's, the bits go of a slot that was
/// left without being taken anew, by going back.
#[inline(always)]
fn release_tables(record: &ControlRecord) -> Outcome {
    let mut mask = kept(record);
    walk(TABLES_MAX.load(), release_table, &mut mask)
}

extern "C" fn release_table(table: u32, mask: *mut u64) -> i64 {
    if let Some(header) = TABLE_HEADERS.get_ptr_mut(table) {
        // SAFETY: `mask` is what `walk` was given; the header is a map element under the lock.
        unsafe { (*header).slots &= *mask as u16 };
    }
    0
}

/// Bits of the slots that stay: ACTIVE and LKG.
#[inline(always)]
pub fn kept(record: &ControlRecord) -> u64 {
    // NO_SLOT gives a bit that is no slot's.
    let bit = |slot: u8| 1u64 << (slot & 63);
    bit(record.active) | bit(record.lkg)
}

/// What a clearing loop needs to know.
struct Clearing {
    /// Bits of the slots whose members stay theirs.
    keep: u8,
    slot: u32,
    from: u32,
    limit: u32,
    sweeps: u32,
}

/// `Op::Clear`.
#[inline(never)]
pub fn clear(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    let (places, members) = (VIP_PLACES.load(), MEMBERS_MAX.load());
    let keep = kept(call.record()?) as u8;
    // SAFETY: the control element under the lock.
    let sweeps = unsafe { (*call.writer.control()).sweeps };
    // SAFETY: the header is a map element under the lock.
    let (vips_done, members_done) = unsafe {
        (
            (*shadow.header).cleared_vips,
            (*shadow.header).cleared_members,
        )
    };
    let left = places.saturating_sub(vips_done);
    if left > 0 {
        let turns = left.min(CLEARS);
        let mut state = Clearing {
            keep,
            slot: shadow.slot,
            from: vips_done,
            limit: places,
            sweeps,
        };
        if vips_done == 0 {
            walk(VIPS_MAX.load(), free_number, &mut state)?;
        }
        walk(turns, clear_vip, &mut state)?;
        walk(FILTER_WORDS, clear_filter, &mut state)?;
        walk(POOLS_MAX.load(), clear_pool, &mut state)?;
        // SAFETY: as above.
        unsafe { (*shadow.header).cleared_vips = vips_done.wrapping_add(turns) };
    } else {
        let turns = members.saturating_sub(members_done).min(CLEARS);
        let mut state = Clearing {
            keep,
            slot: shadow.slot,
            from: members_done,
            limit: members,
            sweeps,
        };
        walk(turns, clear_member, &mut state)?;
        // SAFETY: as above.
        unsafe { (*shadow.header).cleared_members = members_done.wrapping_add(turns) };
    }
    // SAFETY: as above.
    unsafe {
        detail[0] = u64::from(places.saturating_sub((*shadow.header).cleared_vips))
            + u64::from(members.saturating_sub((*shadow.header).cleared_members));
    }
    Ok(())
}

extern "C" fn clear_vip(turn: u32, state: *mut Clearing) -> i64 {
    // SAFETY: what `walk` was given.
    let state = unsafe { &*state };
    let place = state.from.wrapping_add(turn);
    if place >= state.limit {
        return 0;
    }
    for slot in 0..SLOTS as u32 {
        let index = slot * state.limit + place;
        if u32::from(state.keep) >> slot & 1 != 0
            && let Some(entry) = VIPS.get(index).filter(|entry| entry.kind == vip_kind::VIP)
            && let Some(taken) = VIPS_TAKEN.get_ptr_mut(u32::from(entry.vip))
        {
            // SAFETY: a map element under the lock.
            unsafe { taken.write(1) };
        }
    }
    if let Some(entry) = VIPS.get_ptr_mut(state.slot * state.limit + place) {
        // SAFETY: a place of SHADOW under the lock.
        unsafe { entry.write(VipEntry::new_zeroed()) };
    }
    0
}

extern "C" fn free_number(vip: u32, _: *mut Clearing) -> i64 {
    if let Some(taken) = VIPS_TAKEN.get_ptr_mut(vip) {
        // SAFETY: a map element under the lock.
        unsafe { taken.write(0) };
    }
    0
}

extern "C" fn clear_filter(turn: u32, state: *mut Clearing) -> i64 {
    // SAFETY: what `walk` was given.
    let slot = unsafe { (*state).slot };
    if let Some(word) = FILTERS.get_ptr_mut(slot * FILTER_WORDS + turn) {
        // SAFETY: a word of SHADOW's filter under the lock.
        unsafe { word.write(0) };
    }
    0
}

/// A pool entry counts by its generation; one that is staged again has the same.
extern "C" fn clear_pool(turn: u32, state: *mut Clearing) -> i64 {
    // SAFETY: what `walk` was given.
    let slot = unsafe { (*state).slot };
    if let Some(pool) = maps::pool(slot, turn) {
        // SAFETY: an entry of SHADOW under the lock.
        unsafe { (*pool).generation = 0 };
    }
    0
}

extern "C" fn clear_member(turn: u32, state: *mut Clearing) -> i64 {
    // SAFETY: what `walk` was given.
    let state = unsafe { &*state };
    if let Some(member) = MEMBERS.get_ptr_mut(state.from.wrapping_add(turn)) {
        let keep = state.keep;
        // SAFETY: a map element under the lock; bits of ACTIVE and LKG stay.
        unsafe {
            let had = (*member).slots;
            (*member).slots &= keep;
            (*member).drains &= keep;
            if had != 0 && (*member).slots == 0 {
                (*member).left_at = state.sweeps;
            }
        }
    }
    0
}

/// Refused until SHADOW has been cleared wholly.
#[inline(always)]
pub fn cleared(header: *const SlotHeader, detail: &mut Detail) -> Outcome {
    // SAFETY: an element of the header map under the lock.
    let (vips, members) = unsafe { ((*header).cleared_vips, (*header).cleared_members) };
    let (places, limit) = (VIP_PLACES.load(), MEMBERS_MAX.load());
    if vips >= places && members >= limit {
        return Ok(());
    }
    detail[0] = 5;
    detail[1] = u64::from(vips) + u64::from(members);
    detail[2] = u64::from(places) + u64::from(limit);
    Err(Refusal::Incomplete)
}

/// Says that a pool is not there.
#[inline(always)]
pub fn no_pool(detail: &mut Detail) -> Refusal {
    detail[0] = 2;
    detail[1] = 0;
    detail[2] = 1;
    Refusal::Incomplete
}

/// `Op::Abandon`.
#[inline(never)]
pub fn abandon(call: &Call<'_>, _detail: &mut Detail) -> Outcome {
    let record = call.record()?;
    if record.flags & control_flag::TRIAL != 0 {
        return Err(Refusal::TrialOn);
    }
    call.writer.publish(|record| ControlRecord {
        shadow: NO_SLOT,
        shadow_generation: 0,
        ..record
    });
    Ok(())
}

/// `Op::Clock`.
#[inline(always)]
pub fn clock(detail: &mut Detail) {
    detail[0] = now();
    detail[1] = jiffies();
}
