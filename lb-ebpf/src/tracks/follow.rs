//! A followed flow's packets after its SYN, and how following it ends.

use lb_common::evidence::{End, bin, latency_bucket};
use lb_common::flow::Birth;
use lb_common::packet::Packet;
use lb_common::track::{Segment, Step, Track};
use lb_common::wire::{Frame, TcpStart};

use super::counts::{bump, count, count_member};
use super::{NS_PER_MS, key, line, place_of, set_key};
use crate::control::{self, View, now};
use crate::maps::TRACKS;
use crate::packet::XdpFrame;

/// Takes a segment into account.
#[inline(always)]
pub fn segment(
    ctx: &aya_ebpf::programs::XdpContext,
    view: &View,
    packet: &Packet,
    place: u32,
    hash: u64,
) {
    let Some(tcp) = XdpFrame::new(ctx).read::<TcpStart>(packet.payload_offset.into()) else {
        return;
    };
    let ip_header = packet.payload_offset.wrapping_sub(packet.ip_offset);
    let (numbers, shape) = told(&tcp, packet.ip_length, ip_header);
    let shape = shape | u64::from(view.stage as u8);
    let place = u64::from(view.within_ms) << 32 | u64::from(place);
    follow_track(place, hash, numbers, shape, view.time());
}

/// What is read of a segment, for [`follow_track`] and [`follow_segment`]: the numbers; payload, IP
/// length and flags, above a byte that is left free.
#[inline(always)]
pub fn told(tcp: &TcpStart, ip_length: u16, ip_header: u16) -> (u64, u64) {
    let headers = ip_header.wrapping_add(u16::from(tcp.data_offset >> 4) << 2);
    let payload = ip_length.saturating_sub(headers);
    let numbers = u64::from(tcp.sequence.get()) << 32 | u64::from(tcp.acknowledgement.get());
    let shape = u64::from(payload) << 32 | u64::from(ip_length) << 16 | u64::from(tcp.flags) << 8;
    (numbers, shape)
}

/// Takes a segment of a followed flow, as [`told`]; the free byte is the trial's step. `place` has the
/// time in which a handshake has to be complete, in ms, in the upper half.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn follow_track(place: u64, hash: u64, numbers: u64, shape: u64, now: u64) -> u32 {
    let (place, within_ms) = (place as u32, (place >> 32) as u32);
    let Some(track) = TRACKS.get_ptr_mut(place.wrapping_sub(1)) else {
        return 0;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &mut *track };
    if track.key != key(hash) {
        return 0;
    }
    advance(place, track, numbers, shape, now, within_ms);
    1
}

#[inline(always)]
fn advance(place: u32, track: &mut Track, numbers: u64, shape: u64, now: u64, within_ms: u32) {
    let segment = Segment {
        seq: (numbers >> 32) as u32,
        ack: numbers as u32,
        payload: (shape >> 32) as u16,
        ip_length: (shape >> 16) as u16,
        flags: (shape >> 8) as u8,
    };
    match track.segment(&segment, now) {
        Step::Nothing => {}
        Step::Completed => completed(track, now, u64::from(within_ms) * NS_PER_MS),
        Step::Ended(end) => ended(place.wrapping_sub(1), track, end, shape as u8),
    }
}

/// What the short way goes by for a flow of an arm, or one that is watched, in one word: boot-clock
/// time, in ns but for its lowest byte, which has the slot that decides, plus 1, and whether the flow
/// is followed.
#[derive(Clone, Copy)]
pub struct Decided(pub u64);

impl Decided {
    const FOLLOWED: u64 = 1 << 7;
    const TIME: u64 = !0xff;

    /// The slot that decides; `None`: the long way does.
    #[inline(always)]
    pub const fn slot(self) -> Option<u32> {
        match self.0 as u32 & 3 {
            0 => None,
            slot => Some(slot - 1),
        }
    }

    /// Whether the flow may have a record.
    #[inline(always)]
    pub const fn is_followed(self) -> bool {
        self.0 & Self::FOLLOWED != 0
    }
}

/// What the short way goes by, see [`Decided`]: a global function of numbers, which are the birth of
/// the flow's entry, and the slot that is committed as far as the caller knows.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn decided(birth: u32, active: u32) -> u64 {
    let (birth, now) = (Birth(birth), now());
    let Some(view) = control::view_at(|| now) else {
        return 0;
    };
    let watched = birth.0 == Birth::WATCHED.0;
    let (slot, followed) = if watched {
        (view.active, view.follows() && !view.evidence)
    } else if view.change != 0 && birth.change() == view.change {
        let new = birth.is_new_in(view.change);
        (if new { view.shadow } else { view.active }, view.evidence)
    } else {
        return 0;
    };
    if view.active != active || slot > 2 {
        return 0;
    }
    let followed = if followed { Decided::FOLLOWED } else { 0 };
    now & Decided::TIME | followed | u64::from(slot + 1)
}

/// Takes a segment of a flow that may be followed, as [`told`]: a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn follow_segment(hash: u64, numbers: u64, shape: u64, decided: u64) -> u32 {
    let now = decided & Decided::TIME;
    let Some(view) = control::view_at(|| now) else {
        return 0;
    };
    let place = place_of(line(hash), key(hash));
    let Some(track) = TRACKS.get_ptr_mut(place.wrapping_sub(1)) else {
        return 0;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &mut *track };
    if u32::from(track.change) != view.change || track.is_retried() {
        return 0;
    }
    let shape = shape | u64::from(view.stage as u8);
    advance(place, track, numbers, shape, now, view.within_ms);
    1
}

/// Counts a QUIC connection as complete, unless this is still its first flight.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn answered(place: u32, hash: u64, tag: u32, begins: u32, within_ms: u32) -> u32 {
    let Some(track) = TRACKS.get_ptr_mut(place.wrapping_sub(1)) else {
        return 0;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &mut *track };
    if track.key != key(hash) || (begins != 0 && track.first_ack == tag) {
        return 0;
    }
    completed(track, now(), u64::from(within_ms) * NS_PER_MS);
    track.key = 0;
    set_key(place.wrapping_sub(1), 0);
    1
}

#[inline(always)]
fn completed(track: &Track, now: u64, within_ns: u64) {
    let took = now.saturating_sub(track.syn_ns);
    let in_time = took <= within_ns;
    count(track.arm.into(), track.vip, |counts| {
        if in_time {
            bump(&raw mut counts.completed, bin(track.syn_ns));
        }
        bump(&raw mut counts.latency, latency_bucket(took) & 15);
    });
    if in_time {
        count_member(track.arm.into(), track.member, |counts| {
            counts.completed += 1;
        });
    }
}

/// Counts how a flow was, and gives its place back. Flows of an earlier step are not counted: the
/// arms had other shares then.
#[inline(always)]
fn ended(number: u32, track: &mut Track, end: End, stage: u8) {
    track.key = 0;
    set_key(number, 0);
    if track.stage != stage || track.is_retried() {
        return;
    }
    let summary = track.summary();
    count(track.arm.into(), track.vip, |counts| {
        bump(&raw mut counts.end, end as usize);
        bump(&raw mut counts.response, summary.response);
        bump(&raw mut counts.wait, summary.wait);
        bump(&raw mut counts.resent, summary.resent as usize);
    });
    if matches!(end, End::Reset | End::Empty) {
        count_member(track.arm.into(), track.member, |counts| counts.early += 1);
    }
}

/// Looks at a record from the timer: ends a flow that has been followed for long enough, and forgets a
/// handshake that was never completed, and what another trial has left.
#[inline(always)]
pub fn look_at(number: u32, now: u64, change: u8, stage: u8) {
    let Some(track) = TRACKS.get_ptr_mut(number) else {
        return;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &mut *track };
    if track.key == 0 {
        return;
    }
    let ours = track.change == change;
    if ours && track.is_due(now) {
        ended(number, track, End::Alive, stage);
    } else if !ours || (track.is_half_open() && !track.is_tried(now)) {
        track.key = 0;
        set_key(number, 0);
    }
}
