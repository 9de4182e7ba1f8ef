//! Sealing SHADOW: every VIP compared with ACTIVE's (K4), everything announced is there (K3).

use lb_common::control::ControlRecord;
use lb_common::guard::Refusal;
use lb_common::invariant::{MILLION, Step, classify, moved, ppm};
use lb_common::slot::{
    CHUNK_ENTRIES, PoolEntry, VipEntry, chunks, pool_seal, slot_state, vip_kind,
};

use super::begin::stale_base;
use super::policy;
use super::{Call, Detail, Outcome, Shadow, shadow};
use crate::control::now;
use crate::maps::{self, TABLES, TALLIES, VIP_PLACES, VIPS, VIPS_MAX, WATCH_LIST};
use crate::vips;
use crate::walk::walk;

/// What the walk over two tables carries.
struct Comparison {
    old: u32,
    new: u32,
    size: u32,
    moved: u32,
}

/// `Op::SealVip`.
#[inline(never)]
pub fn seal_vip(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    let active = u32::from(call.record()?.active);
    let place = call.arg(0);
    let places = VIP_PLACES.load();
    detail[0] = u64::from(place);
    if place >= places {
        return Err(Refusal::OutOfRange);
    }
    let entry = VIPS
        .get_ptr_mut(shadow.slot * places + place)
        .ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock.
    let vip = unsafe { &*entry };
    if vip.kind != vip_kind::VIP || vip.sealed_ppm != 0 {
        return Err(Refusal::InUse);
    }
    walked(&shadow, vip, detail)?;
    reachable(&shadow, place, vip, detail)?;
    let share = compare(&shadow, active, entry)?;
    // SAFETY: map elements under the lock.
    unsafe {
        (*entry).sealed_ppm = share.wrapping_add(1).max((*entry).sealed_ppm);
        let header = &mut *shadow.header;
        header.vips_sealed = header.vips_sealed.wrapping_add(1);
        if share > 0 {
            watch(header.vips_changed, vip.vip);
            header.vips_changed = header.vips_changed.wrapping_add(1);
        }
        if share > header.moved_ppm {
            header.moved_ppm = share;
        }
    }
    detail[0] = u64::from(share);
    Ok(())
}

/// Puts a VIP that moves on the breaker's list, as long as there is room.
#[inline(always)]
fn watch(place: u32, vip: u16) {
    if let Some(watched) = WATCH_LIST.get_ptr_mut(place) {
        // SAFETY: a map element under the lock; nothing is on trial.
        unsafe { (*watched).vip = u32::from(vip) };
    }
}

/// What is compared must be what flips: the pool has been walked, so its table is sealed (K2, K4).
#[inline(always)]
fn walked(shadow: &Shadow, vip: &VipEntry, detail: &mut Detail) -> Outcome {
    let pool = maps::pool(shadow.slot, u32::from(vip.pool)).ok_or(Refusal::OutOfRange)?;
    // SAFETY: map elements under the lock.
    let (sealed, header) = unsafe { ((*pool).sealed, &*shadow.header) };
    if sealed != pool_seal::OPEN {
        return Ok(());
    }
    detail[0] = 2;
    detail[1] = u64::from(header.pools_sealed);
    detail[2] = u64::from(header.pools);
    Err(Refusal::Incomplete)
}

/// Packets find the VIP at this very place, and its address in the filter (K3).
#[inline(always)]
fn reachable(shadow: &Shadow, place: u32, vip: &VipEntry, detail: &mut Detail) -> Outcome {
    if vips::find(shadow.slot, &vip.address, vip.port, vip.protocol) != place.wrapping_add(1) {
        return Err(Refusal::OutOfRange);
    }
    if vips::has_address(shadow.slot, &vip.address) {
        return Ok(());
    }
    detail[0] = 6;
    detail[1] = 0;
    detail[2] = 1;
    Err(Refusal::Incomplete)
}

/// Share of the VIP's table that moves, ppm. A VIP that ACTIVE lacks is counted; it moves nothing, unless its
/// port is carved out of a port-0 VIP, which has its flows now.
#[inline(always)]
fn compare(shadow: &Shadow, active: u32, entry: *mut VipEntry) -> Result<u32, Refusal> {
    let header = shadow.header;
    // SAFETY: a map element under the lock.
    let vip = unsafe { &*entry };
    let mut old = vips::exact(active, &vip.address, vip.port, vip.protocol);
    if old.is_none() {
        // SAFETY: a map element under the lock.
        unsafe { (*header).vips_added = (*header).vips_added.wrapping_add(1) };
        old = vips::exact(active, &vip.address, 0, vip.protocol);
    }
    let Some(old) = old else {
        // SAFETY: as above.
        unsafe { (*entry).sealed_ppm = SOMETHING_MOVES };
        return Ok(0);
    };
    if old.forward != vip.forward || old.mtu != vip.mtu {
        // SAFETY: as above.
        unsafe { (*header).encap_changed = (*header).encap_changed.wrapping_add(1) };
    }
    // SAFETY: as above.
    unsafe { (*entry).formerly = old.flags };
    if old.flags != vip.flags
        || old.pool != vip.pool
        || old.member_base != vip.member_base
        || old.table_size != vip.table_size
    {
        return Ok(MILLION as u32);
    }
    if old.table == vip.table {
        return Ok(0);
    }
    let pool = maps::pool(shadow.slot, u32::from(vip.pool)).ok_or(Refusal::OutOfRange)?;
    let count = entries_moved(pool, old, vip)?;
    Ok(ppm(count, vip.table_size))
}

/// Entries that differ; remembered in the pool, since its VIPs mostly have the same old table.
#[inline(always)]
fn entries_moved(pool: *mut PoolEntry, old: &VipEntry, vip: &VipEntry) -> Result<u32, Refusal> {
    // SAFETY: a map element under the lock.
    unsafe {
        if (*pool).compared_with == old.table {
            return Ok((*pool).compared_moved);
        }
        let mut comparison = Comparison {
            old: old.table_start,
            new: vip.table_start,
            size: vip.table_size,
            moved: 0,
        };
        walk(chunks(vip.table_size), compare_chunk, &mut comparison)?;
        (*pool).compared_with = old.table;
        (*pool).compared_moved = comparison.moved;
        Ok(comparison.moved)
    }
}

extern "C" fn compare_chunk(turn: u32, comparison: *mut Comparison) -> i64 {
    // SAFETY: what `walk` was given.
    let comparison = unsafe { &mut *comparison };
    let (Some(old), Some(new)) = (
        TABLES.get(comparison.old.wrapping_add(turn)),
        TABLES.get(comparison.new.wrapping_add(turn)),
    ) else {
        return 1;
    };
    let entries = comparison
        .size
        .wrapping_sub(turn.wrapping_mul(CHUNK_ENTRIES as u32));
    comparison.moved = comparison.moved.wrapping_add(moved(old, new, entries));
    0
}

/// What the walk over the VIPs of ACTIVE and SHADOW carries.
struct Sweep {
    active: u32,
    shadow: u32,
    places: u32,
    /// VIPs of ACTIVE that SHADOW lacks.
    removed: u32,
    /// A number that two VIPs of SHADOW have, plus 1.
    shared: u32,
}

/// `Op::Seal`.
#[inline(never)]
pub fn seal(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    let record = call.record()?;
    stale_base(call, record, detail)?;
    complete(call, &shadow, detail)?;
    let sweep = sweep_vips(&shadow, record)?;
    if sweep.shared != 0 {
        detail[0] = u64::from(sweep.shared - 1);
        return Err(Refusal::SharedNumber);
    }
    // SAFETY: a map element under the lock.
    let header = unsafe { &mut *shadow.header };
    header.vips_removed = sweep.removed;
    let policy = policy::held()?;
    // SAFETY: an element of the policy map under the lock.
    let (r1_ppm, r2_ppm) = unsafe { ((*policy).r1_ppm, (*policy).r2_ppm) };
    let step = Step {
        added: header.vips_added,
        removed: header.vips_removed,
        changed: header.vips_changed,
        encap: header.encap_changed,
        moved_ppm: header.moved_ppm,
    };
    header.class = classify(&step, r1_ppm, r2_ppm) as u32;
    header.sealed_ns = now();
    header.state = slot_state::SEALED;
    let generation = header.generation;
    call.writer.publish(|record| ControlRecord {
        highest_generation: generation,
        ..record
    });
    *detail = [
        u64::from(header.class),
        u64::from(header.moved_ppm),
        u64::from(header.vips_added),
        u64::from(header.vips_removed),
        u64::from(header.vips_changed),
        u64::from(header.encap_changed),
        0,
    ];
    Ok(())
}

/// K3: what was announced is there and has been walked.
#[inline(always)]
fn complete(call: &Call<'_>, shadow: &Shadow, detail: &mut Detail) -> Outcome {
    // SAFETY: a map element under the lock.
    let header = unsafe { &*shadow.header };
    let checks = [
        (1, header.vips, call.arg(0)),
        (1, header.vips_sealed, call.arg(0)),
        (2, header.pools, call.arg(1)),
        (2, header.pools_sealed, call.arg(1)),
        (3, header.members, call.arg(2)),
    ];
    for (what, have, want) in checks {
        if have != want {
            *detail = [what, u64::from(have), u64::from(want), 0, 0, 0, 0];
            return Err(Refusal::Incomplete);
        }
    }
    Ok(())
}

/// Walks both VIP tables.
#[inline(always)]
fn sweep_vips(shadow: &Shadow, record: &ControlRecord) -> Result<Sweep, Refusal> {
    let places = VIP_PLACES.load();
    let mut sweep = Sweep {
        active: u32::from(record.active),
        shadow: shadow.slot,
        places,
        removed: 0,
        shared: 0,
    };
    walk(VIPS_MAX.load(), forget_number, &mut sweep)?;
    walk(places, sweep_place, &mut sweep)?;
    Ok(sweep)
}

extern "C" fn forget_number(number: u32, _: *mut Sweep) -> i64 {
    if let Some(tally) = TALLIES.get_ptr_mut(number) {
        // SAFETY: a map element under the lock.
        unsafe { tally.write(0) };
    }
    0
}

/// The port-0 VIP that gets the flows of one that is gone moves something, too.
#[inline(always)]
fn inherit(sweep: &Sweep, gone: &VipEntry) {
    let place = vips::find(sweep.shadow, &gone.address, 0, gone.protocol);
    if place == 0 || place > sweep.places {
        return;
    }
    if let Some(heir) = VIPS.get_ptr_mut(sweep.shadow * sweep.places + place - 1) {
        // SAFETY: a map element under the lock.
        unsafe {
            (*heir).sealed_ppm = (*heir).sealed_ppm.max(SOMETHING_MOVES);
        }
    }
}

/// The least [`VipEntry::sealed_ppm`] of a VIP whose flows are evidence: also of one that is brand-new, or gets
/// flows of another, while its table is as it was.
const SOMETHING_MOVES: u32 = 2;

extern "C" fn sweep_place(turn: u32, sweep: *mut Sweep) -> i64 {
    // SAFETY: what `walk` was given.
    let sweep = unsafe { &mut *sweep };
    let (Some(old), Some(new)) = (
        VIPS.get(sweep.active * sweep.places + turn),
        VIPS.get(sweep.shadow * sweep.places + turn),
    ) else {
        return 1;
    };
    if old.kind == vip_kind::VIP
        && vips::exact(sweep.shadow, &old.address, old.port, old.protocol).is_none()
    {
        sweep.removed = sweep.removed.wrapping_add(1);
        inherit(sweep, old);
    }
    if new.kind == vip_kind::VIP
        && let Some(tally) = TALLIES.get_ptr_mut(u32::from(new.vip))
    {
        // SAFETY: a map element under the lock.
        unsafe {
            if *tally != 0 {
                sweep.shared = u32::from(new.vip).wrapping_add(1);
                return 1;
            }
            tally.write(1);
        }
    }
    0
}
