//! What is counted of followed flows, by arm and VIP, and by arm and backend.

use lb_common::evidence::{BINS, Evidence, IcmpError, LATENCIES, MemberEvidence, NEW};
use lb_common::hash;
use lb_common::packet::Packet;

use super::{Found, places, seek_track};
use crate::control::View;
use crate::count as counters;
use crate::maps::{EVIDENCE, MEMBER_EVIDENCE, MEMBERS_MAX, TAG_KEY, VIPS_MAX};

/// Changes the evidence about a VIP in an arm.
#[inline(always)]
pub fn count(arm: u32, vip: u16, change: impl FnOnce(&mut Evidence)) {
    let limit = VIPS_MAX.load();
    if u32::from(vip) >= limit {
        return;
    }
    if let Some(counts) = EVIDENCE.get_ptr_mut((arm & NEW) * limit + u32::from(vip)) {
        // SAFETY: this CPU's copy of a map element, and nothing else on this CPU holds it.
        change(unsafe { &mut *counts });
    }
}

/// Changes the evidence about a backend in an arm.
#[inline(always)]
pub fn count_member(arm: u32, member: u32, change: impl FnOnce(&mut MemberEvidence)) {
    let limit = MEMBERS_MAX.load();
    if member >= limit {
        return;
    }
    if let Some(counts) = MEMBER_EVIDENCE.get_ptr_mut((arm & NEW) * limit + member) {
        // SAFETY: as above.
        change(unsafe { &mut *counts });
    }
}

/// Adds one to a place of counters.
#[inline(always)]
pub fn bump<const N: usize>(counts: *mut [u32; N], place: usize) {
    if place < N {
        // SAFETY: `place` is within the counters, which are this CPU's copy of a map element.
        unsafe {
            let count = counts.cast::<u32>().add(place);
            *count = (*count).wrapping_add(1);
        }
    }
}

/// Counts a packet of a VIP that had nowhere to go (S8, S9): a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn count_hard(arm: u32, vip: u32) -> u32 {
    count(arm, vip as u16, |counts| counts.hard += 1);
    1
}

/// Counts an ICMP error about a followed flow. That a backend does not know the tunnel's protocol, or
/// that nothing listens where it leads, is never right.
#[inline(always)]
pub fn note_error(view: &View, packet: &Packet) {
    let hash = hash::flow(TAG_KEY.load(), &packet.flow);
    let of = view.change | view.stage << 8;
    let new = error_of_track(hash, of, packet.error as u32) != 0;
    let never_right = matches!(packet.error, IcmpError::Protocol | IcmpError::Port);
    if never_right {
        let slot = if new { view.shadow } else { view.active };
        counters::hard_event(slot, &packet.flow.source);
    }
}

/// [`note_error`], as a global function of numbers; 1 if the flow is the new arm's.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn error_of_track(hash: u64, of: u32, error: u32) -> u32 {
    let found = Found(seek_track(hash, of & 0xff));
    let Some(track) = places::record(found.place()) else {
        return 0;
    };
    if u32::from(track.stage) == of >> 8 {
        count(track.arm.into(), track.vip, |counts| {
            bump(&raw mut counts.icmp, error as usize);
        });
        count_member(track.arm.into(), track.member, |counts| counts.icmp += 1);
    }
    u32::from(found.is_new())
}

const _: () = assert!(BINS.is_power_of_two() && LATENCIES < 16);
