//! Counting: per CPU, so that no increment waits for another CPU.

use core::intrinsics::{AtomicOrdering, atomic_or, atomic_xadd, is_val_statically_known};

use lb_common::TEST_SET;
use lb_common::address::Address;
use lb_common::counter::{MemberCounters, Reason, VipCounters};
use lb_common::hash;

use crate::maps::{
    HARD_EVENTS, MEMBER_COUNTS, MEMBERS_MAX, REASON_COUNTS, TAG_KEY, VIP_COUNTS, VIPS_MAX,
};

/// The counter set of a packet: its slot's, or that of test runs.
#[inline(always)]
pub fn set(slot: u32, probed: bool) -> u32 {
    if probed { TEST_SET } else { slot }
}

/// The number of a reason. One that the compiler does not know is read anew: it would leave out the mask,
/// since no reason has a number beyond, and older verifiers do not know that.
#[inline(always)]
fn number(reason: Reason) -> usize {
    let number = reason as usize;
    if is_val_statically_known(number) {
        number
    } else {
        // SAFETY: a local.
        unsafe { (&raw const number).read_volatile() }
    }
}

/// Counts a packet's outcome.
#[inline(always)]
pub fn reason(set: u32, reason: Reason) {
    if let Some(counts) = REASON_COUNTS.get_ptr_mut(set) {
        let place = number(reason) & (lb_common::counter::REASONS - 1);
        // SAFETY: this CPU's copy of a map element; `place` is within the array.
        unsafe {
            let count = (&raw mut (*counts).packets).cast::<u64>().add(place);
            *count = (*count).wrapping_add(1);
        }
    }
}

/// Changes the counters of a VIP.
#[inline(always)]
pub fn vip(set: u32, vip: u16, change: impl FnOnce(&mut VipCounters)) {
    let limit = VIPS_MAX.load();
    if u32::from(vip) >= limit {
        return;
    }
    if let Some(counters) = VIP_COUNTS.get_ptr_mut(set * limit + u32::from(vip)) {
        // SAFETY: this CPU's copy of a map element, and nothing else on this CPU holds it.
        change(unsafe { &mut *counters });
    }
}

/// Changes the counters of a member.
#[inline(always)]
pub fn member(set: u32, member: u32, change: impl FnOnce(&mut MemberCounters)) {
    let limit = MEMBERS_MAX.load();
    if member >= limit {
        return;
    }
    if let Some(counters) = MEMBER_COUNTS.get_ptr_mut(set * limit + member) {
        // SAFETY: as above.
        change(unsafe { &mut *counters });
    }
}

/// Counts a hard event of a slot: one that is never right, from this source.
#[inline(always)]
pub fn hard_event(slot: u32, source: &Address) {
    note_hard_event(slot, hash::address(TAG_KEY.load(), source));
}

/// [`hard_event`], the source by its hash.
///
/// A global function of numbers, so that the verifier checks it once and not for every state that
/// a packet can end in.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn note_hard_event(slot: u32, source: u64) -> u32 {
    let Some(events) = HARD_EVENTS.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: aligned words of a map element, changed atomically.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*events).events, 1);
        atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(
            &raw mut (*events).sources,
            1 << (source & 63),
        );
    }
    1
}
