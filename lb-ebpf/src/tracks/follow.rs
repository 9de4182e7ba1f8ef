//! A followed flow's packets after its SYN, and how following it ends.

use lb_common::brief::Brief;
use lb_common::evidence::{End, bin, latency_bucket};
use lb_common::packet::Packet;
use lb_common::track::{Segment, Step, Track};
use lb_common::track_table::key;
use lb_common::wire::{Frame, TcpStart};

use super::counts::{bump, count, count_member};
use super::{NS_PER_MS, places};
use crate::control::{View, lately};
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
    follow_track(place, hash, numbers, shape, lately());
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
    let Some(track) = places::record(place) else {
        return 0;
    };
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
        Step::Ended(end) => ended(place, track, end, shape as u8),
    }
}

/// Takes a segment of a flow that may be followed, as [`told`], under a [`Brief`]: a global function of
/// numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn follow_segment(hash: u64, numbers: u64, shape: u64, brief: u64) -> u32 {
    let (brief, place) = (Brief(brief), places::find(hash));
    let Some(track) = places::record(place) else {
        return 0;
    };
    if u32::from(track.change) != brief.change() || track.is_retried() {
        return 0;
    }
    let shape = shape | u64::from(brief.stage());
    advance(place, track, numbers, shape, lately(), brief.within_ms());
    1
}

/// Counts a QUIC connection as complete, unless this is still its first flight.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn answered(place: u32, hash: u64, tag: u32, begins: u32, within_ms: u32) -> u32 {
    let Some(track) = places::record(place) else {
        return 0;
    };
    if track.key != key(hash) || (begins != 0 && track.first_ack == tag) {
        return 0;
    }
    completed(track, lately(), u64::from(within_ms) * NS_PER_MS);
    places::give_back(place, key(hash));
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
fn ended(place: u32, track: &Track, end: End, stage: u8) {
    // Read first: given back, it may be another flow's at once.
    let (summary, arm, vip, member) = (track.summary(), track.arm.into(), track.vip, track.member);
    let counts = track.stage == stage && !track.is_retried();
    if places::give_back(place, track.key) == 0 || !counts {
        return;
    }
    count(arm, vip, |counts| {
        bump(&raw mut counts.end, end as usize);
        bump(&raw mut counts.response, summary.response);
        bump(&raw mut counts.wait, summary.wait);
        bump(&raw mut counts.resent, summary.resent as usize);
    });
    if matches!(end, End::Reset | End::Empty) {
        count_member(arm, member, |counts| counts.early += 1);
    }
}

/// Looks at a record from the timer: ends a flow that has been followed for long enough, and forgets a
/// handshake that was never completed, and what another trial has left.
#[inline(always)]
pub fn look_at(number: u32, now: u64, change: u8, stage: u8) {
    let place = number.wrapping_add(1);
    let Some(track) = places::record(place) else {
        return;
    };
    if track.key == 0 {
        return;
    }
    let ours = track.change == change;
    if ours && track.is_due(now) {
        ended(place, track, End::Alive, stage);
    } else if !ours || (track.is_half_open() && !track.is_tried(now)) {
        places::give_back(place, track.key);
    }
}
