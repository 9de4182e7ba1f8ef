//! VIPs of a slot: written where the packet path will look for them.

use aya_ebpf::programs::XdpContext;
use lb_common::guard::{COMMAND_LEN, PUTS, Refusal, VipPut};
use lb_common::slot::{SlotHeader, VIP_PROBES, VipEntry, pool_seal, slot_state, vip_kind};
use lb_common::wire::Frame;

use super::begin::cleared;
use super::members::RECORD_MASK;
use super::names::give_name;
use super::records::Records;
use super::{Call, Detail, Outcome, Shadow, shadow};
use crate::maps::{
    self, FILTERS, TABLE_HEADERS, VIP_NAMES, VIP_PLACES, VIPS, VIPS_MAX, VIPS_TAKEN,
};
use crate::packet::XdpFrame;
use crate::vips;

const PUT_LEN: usize = size_of::<VipPut>();

/// `Op::PutVips`.
#[inline(never)]
pub fn put_vips(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::STAGING, detail)?;
    cleared(shadow.header, detail)?;
    let count = call.arg(0);
    if count > PUTS as u32 {
        return Err(Refusal::Malformed);
    }
    Records::take(call, shadow, 0, count, take_vip, detail)
}

extern "C" fn take_vip(turn: u32, records: *mut Records) -> i64 {
    // SAFETY: what `walk` was given.
    let records = unsafe { &mut *records };
    let ctx = XdpContext::new(records.ctx);
    let frame = XdpFrame::new(&ctx);
    let offset = COMMAND_LEN + (turn & RECORD_MASK) as usize * PUT_LEN;
    let Some(place) = frame.read::<[u8; 4]>(offset) else {
        return records.note(turn, Err(Refusal::Malformed));
    };
    let place = u32::from_ne_bytes(place);
    let outcome = put_vip(&frame, offset, place, &records.shadow());
    records.note(place, outcome)
}

#[inline(always)]
fn put_vip(frame: &XdpFrame, offset: usize, place: u32, shadow: &Shadow) -> Outcome {
    let bytes: [u8; size_of::<VipEntry>()] = frame.read(offset + 8).ok_or(Refusal::Malformed)?;
    // SAFETY: VipEntry is made of integers: any bytes are one.
    let put: VipEntry = unsafe { core::mem::transmute(bytes) };
    let target = vacant(shadow, place, &put)?;
    let header = shadow.header;
    let entry = if put.kind == vip_kind::VIP {
        let vip = u32::from(put.vip);
        if vip >= VIPS_MAX.load() {
            return Err(Refusal::OutOfRange);
        }
        let taken = VIPS_TAKEN.get(vip).ok_or(Refusal::OutOfRange)?;
        give_name(
            frame,
            offset + 8 + size_of::<VipEntry>(),
            VIP_NAMES.get_ptr_mut(vip),
            *taken != 0,
        )?;
        // SAFETY: a map element under the lock.
        unsafe { (*header).vips = (*header).vips.wrapping_add(1) };
        of_pool(shadow, header, &put)?
    } else {
        mark(shadow, &put);
        VipEntry {
            table_start: 0,
            table_size: 0,
            ..put
        }
    };
    // SAFETY: a vacant place of SHADOW under the lock.
    unsafe {
        target.write(VipEntry {
            sealed_ppm: 0,
            ..entry
        });
    }
    Ok(())
}

/// An empty place where the packet path finds this key, which the slot has not yet.
#[inline(always)]
fn vacant(shadow: &Shadow, place: u32, put: &VipEntry) -> Result<*mut VipEntry, Refusal> {
    let places = VIP_PLACES.load();
    let first = vips::place(&put.address, put.port, put.protocol);
    let away = place.wrapping_sub(first) & (places - 1);
    let kind_fits = match put.kind {
        vip_kind::VIP => put.protocol != 0,
        vip_kind::ADDRESS => put.protocol == 0 && put.port == 0,
        _ => false,
    };
    if place >= places || away >= VIP_PROBES || !kind_fits {
        return Err(Refusal::OutOfRange);
    }
    if vips::exact(shadow.slot, &put.address, put.port, put.protocol).is_some() {
        return Err(Refusal::InUse);
    }
    let target = VIPS
        .get_ptr_mut(shadow.slot * places + place)
        .ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock.
    if unsafe { (*target).kind } != vip_kind::EMPTY {
        return Err(Refusal::InUse);
    }
    Ok(target)
}

/// Completes a VIP with what its pool says. The pool must be of this generation and not walked, or kept and
/// known to fit VIPs of this family: which ones it serves is part of what was proven.
#[inline(always)]
fn of_pool(
    shadow: &Shadow,
    header: *const SlotHeader,
    put: &VipEntry,
) -> Result<VipEntry, Refusal> {
    let pool = maps::pool(shadow.slot, u32::from(put.pool)).ok_or(Refusal::OutOfRange)?;
    // SAFETY: map elements under the lock.
    unsafe {
        if (*pool).generation != (*header).generation {
            return Err(Refusal::Incomplete);
        }
        let serves = if put.address.is_v4() {
            &raw mut (*pool).serves_v4
        } else {
            &raw mut (*pool).serves_v6
        };
        match (*pool).sealed {
            pool_seal::OPEN => serves.write(1),
            pool_seal::KEPT if serves.read() == 1 => {}
            _ => return Err(Refusal::InUse),
        }
        let table = TABLE_HEADERS
            .get((*pool).table)
            .ok_or(Refusal::OutOfRange)?;
        let (ids_start, ids_lines) = match TABLE_HEADERS.get((*pool).ids_table) {
            Some(ids) if (*pool).ids_table != 0 => (ids.start, ids.chunks),
            _ => (0, 0),
        };
        Ok(VipEntry {
            table_start: table.start,
            table_size: table.size,
            member_base: (*pool).member_base,
            table: (*pool).table,
            forward: (*pool).forward,
            formerly: 0,
            idle: (*pool).idle,
            on_dead: (*pool).on_dead,
            quic_bytes: (*pool).quic_bytes,
            mtu: (*pool).mtu,
            ids_start,
            ids_lines,
            reserved: 0,
            ..*put
        })
    }
}

/// Adds an address to the slot's filter.
#[inline(always)]
fn mark(shadow: &Shadow, put: &VipEntry) {
    let (word, bit) = vips::filter_place(shadow.slot, &put.address);
    if let Some(bits) = FILTERS.get_ptr_mut(word) {
        // SAFETY: a map element under the lock.
        unsafe { *bits |= bit };
    }
}
