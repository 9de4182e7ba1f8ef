//! Flows that a trial follows: their records, found by the flow's hash, and what is counted of them.
//!
//! Only SYNs of a trial come here, and packets of flows that began in it. What the packet path
//! calls are global functions of numbers, so that the verifier checks each once.

use lb_common::evidence::{
    BINS, End, Evidence, IcmpError, LATENCIES, MemberEvidence, NEW, bin, latency_bucket,
};
use lb_common::hash;
use lb_common::packet::{Packet, Role};
use lb_common::slot::VipEntry;
use lb_common::track::{KEYS, Segment, Step, TRACKS as PLACES, Track, Whose};
use lb_common::wire::{Frame, TcpStart};

use crate::control::{View, now};
use crate::count as counters;
use crate::maps::{EVIDENCE, MEMBER_EVIDENCE, MEMBERS_MAX, TAG_KEY, TRACK_KEYS, TRACKS, VIPS_MAX};
use crate::packet::XdpFrame;
use crate::pick::Choice;
use crate::vips;

const NS_PER_MS: u64 = 1_000_000;

/// What is known of a packet's flow, in one word.
///
/// ```text
/// 57   40      34      33        32        31      0
/// | member | never | retried | new arm | place + 1 |
/// ```
#[derive(Clone, Copy)]
pub struct Found(pub u64);

impl Found {
    /// No record, and no room for one.
    pub const NONE: Self = Self(0);
    /// Nothing is remembered of the flow, so it is not followed.
    pub const NEVER: Self = Self(1 << 34);
    const NEW_ARM: u64 = 1 << 32;
    /// Its beginning came again.
    pub const RETRIED: u64 = 1 << 33;
    const MEMBER_SHIFT: u32 = 40;

    /// Whether there is a record, or a place for one.
    #[inline(always)]
    pub const fn has_place(self) -> bool {
        self.0 as u32 != 0
    }

    /// Whether the flow is the new arm's.
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 & Self::NEW_ARM != 0
    }

    /// Whether this is a SYN that came before.
    #[inline(always)]
    pub const fn is_retried(self) -> bool {
        self.0 & Self::RETRIED != 0
    }

    /// Whether it can't be followed.
    #[inline(always)]
    pub const fn is_never(self) -> bool {
        self.0 == Self::NEVER.0
    }

    /// All ones, or 0 if this is a SYN that came before.
    #[inline(always)]
    pub const fn unless_retried(self) -> u64 {
        (self.0 >> 33 & 1).wrapping_sub(1)
    }

    /// Member id of its backend; 0 if it has none yet.
    #[inline(always)]
    pub const fn member(self) -> u32 {
        (self.0 >> Self::MEMBER_SHIFT) as u32
    }

    #[inline(always)]
    const fn place(self) -> u32 {
        self.0 as u32
    }
}

/// A record has no hash 0.
#[inline(always)]
const fn key(hash: u64) -> u64 {
    hash | 1
}

/// The line that a flow's key is in.
#[inline(always)]
const fn line(hash: u64) -> u32 {
    (hash >> 32) as u32 & (PLACES / KEYS - 1)
}

/// Number of the record that a key has, plus 1; 0 if there is none.
#[inline(always)]
fn place_of(line: u32, key: u64) -> u32 {
    let Some(keys) = TRACK_KEYS.get_ptr_mut(line) else {
        return 0;
    };
    for index in 0..KEYS {
        // SAFETY: a line has KEYS words; other CPUs write whole words.
        if unsafe { keys.cast::<u64>().add(index as usize).read_volatile() } == key {
            return line * KEYS + index + 1;
        }
    }
    0
}

/// Counts a packet of a VIP that had nowhere to go (S8, S9): a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn count_hard(arm: u32, vip: u32) -> u32 {
    count(arm, vip as u16, |counts| counts.hard += 1);
    1
}

/// Gives a record away, or takes it back with key 0.
#[inline(always)]
fn set_key(number: u32, key: u64) {
    let Some(keys) = TRACK_KEYS.get_ptr_mut(number / KEYS) else {
        return;
    };
    let index = (number & (KEYS - 1)) as usize;
    // SAFETY: `index` is within the line.
    unsafe { keys.cast::<u64>().add(index).write_volatile(key) };
}

/// The record of a flow of this change: a global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_track(hash: u64, change: u32) -> u64 {
    let place = place_of(line(hash), key(hash));
    let Some(track) = TRACKS.get(place.wrapping_sub(1)) else {
        return 0;
    };
    if u32::from(track.change) != change || track.is_retried() {
        return 0;
    }
    let new = if u32::from(track.arm) == NEW {
        Found::NEW_ARM
    } else {
        0
    };
    u64::from(place) | new | u64::from(track.member) << Found::MEMBER_SHIFT
}

/// A SYN's place: a free one, or none; or that it came before. A global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_syn(hash: u64, change: u32, stage: u32) -> u64 {
    let (now, line) = (now(), line(hash));
    let own = place_of(line, key(hash));
    if let Some(track) = TRACKS.get_ptr_mut(own.wrapping_sub(1)) {
        // SAFETY: a map element. Packets of one flow come by one queue; should two CPUs write one
        // record at once, its flow is counted wrongly and nothing else happens.
        let track = unsafe { &mut *track };
        if u32::from(track.change) == change && track.is_tried(now) {
            if track.retry() && u32::from(track.stage) == stage {
                count(track.arm.into(), track.vip, |counts| counts.retried += 1);
            }
            return Found::RETRIED;
        }
        return u64::from(own);
    }
    match place_of(line, 0) {
        0 => u64::from(stale_place(line, now)),
        free => u64::from(free),
    }
}

/// Number of a record in a full line that nobody needs any more, plus 1; 0 if there is none.
#[inline(always)]
fn stale_place(line: u32, now: u64) -> u32 {
    for index in 0..KEYS {
        let number = line * KEYS + index;
        if TRACKS.get(number).is_some_and(|track| track.is_free(now)) {
            return number + 1;
        }
    }
    0
}

/// Takes a packet of a trial into account, before it is rewritten.
#[inline(always)]
pub fn note(
    ctx: &aya_ebpf::programs::XdpContext,
    view: &View,
    packet: &Packet,
    vip: &VipEntry,
    choice: &Choice,
) {
    let place = choice.track.place();
    match packet.role {
        // Of a client whose flows are one, only the first is drawn.
        Role::Syn if choice.track.is_retried() || choice.followed => {}
        Role::Syn => {
            let arm = u32::from(choice.new);
            let vip = compared(view, packet, vip.vip, arm);
            if place == 0 {
                count(0, vip, |counts| counts.untracked += 1);
                return;
            }
            let whose = u64::from(choice.member_id) << 32 | u64::from(vip);
            let marks = arm | view.change << 8 | view.stage << 16;
            begin_track(place, choice.hash, whose, marks, 0);
        }
        Role::Segment | Role::Reset if place != 0 => segment(ctx, view, packet, place, choice.hash),
        Role::Datagram if packet.quic.is_quic() => datagram(view, packet, vip, choice, place),
        _ => {}
    }
}

/// The VIP for which a flow counts: SHADOW's, in both arms, so that the flows of a port that was
/// carved out of a port-0 VIP are compared with those of the same port; of what SHADOW lacks,
/// the arm's own.
#[inline(always)]
pub fn compared(view: &View, packet: &Packet, own: u16, arm: u32) -> u16 {
    if arm == NEW || !view.evidence {
        return own;
    }
    match vips::number_of_flow(view.shadow, &packet.flow) {
        0 => own,
        number => number.wrapping_sub(1) as u16,
    }
}

/// A datagram of a QUIC connection (S17): it begins with an Initial, and its client was answered when
/// the next comes with a connection id of the server's choice.
#[inline(always)]
fn datagram(view: &View, packet: &Packet, vip: &VipEntry, choice: &Choice, place: u32) {
    let begins = packet.quic.begins();
    if begins && !choice.followed && !choice.track.is_retried() {
        let arm = u32::from(choice.new);
        let vip = compared(view, packet, vip.vip, arm);
        if place == 0 {
            if view.evidence {
                count(0, vip, |counts| counts.untracked += 1);
            }
            return;
        }
        let whose = u64::from(choice.member_id) << 32 | u64::from(vip);
        let marks = arm | view.change << 8 | view.stage << 16;
        begin_track(place, choice.hash, whose, marks, packet.quic.number());
    } else if place != 0 && choice.followed {
        let tag = if begins { packet.quic.number() } else { 0 };
        answered(place, choice.hash, tag, u32::from(begins), view.within_ms);
    }
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

/// How long an Initial that comes again may be one of several that a client begins with, ns.
const FIRST_FLIGHT_NS: u64 = 200_000_000;

/// Whether an Initial is one that the client sends again, for want of an answer: a global function of
/// numbers. The first time that is noted and counted.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begins_again(found: u64, tag: u32, stage: u32) -> u32 {
    let Some(track) = TRACKS.get_ptr_mut(Found(found).place().wrapping_sub(1)) else {
        return 0;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &mut *track };
    let late = now().saturating_sub(track.syn_ns) > FIRST_FLIGHT_NS;
    if track.first_ack != tag || !late || !track.is_half_open() {
        return 0;
    }
    if track.retry() && u32::from(track.stage) == stage {
        count(track.arm.into(), track.vip, |counts| counts.retried += 1);
    }
    1
}

/// Begins a flow's record.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begin_track(place: u32, hash: u64, whose: u64, marks: u32, tag: u32) -> u32 {
    let Some(track) = TRACKS.get_ptr_mut(place.wrapping_sub(1)) else {
        return 0;
    };
    let (arm, vip, member) = (marks & 0xff, whose as u16, (whose >> 32) as u32);
    let now = now();
    let whose = Whose {
        member,
        vip,
        arm: arm as u8,
        change: (marks >> 8) as u8,
        stage: (marks >> 16) as u8,
    };
    // SAFETY: as in `seek_syn`.
    unsafe {
        track.write(Track::new(key(hash), now, whose));
        (*track).first_ack = tag;
    }
    set_key(place.wrapping_sub(1), key(hash));
    count(arm, vip, |counts| {
        counts.flows += 1;
        bump(&raw mut counts.started, bin(now));
    });
    count_member(arm, member, |counts| counts.started += 1);
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
    let Some(track) = TRACKS.get_ptr_mut(found.place().wrapping_sub(1)) else {
        return 0;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &*track };
    if u32::from(track.stage) == of >> 8 {
        count(track.arm.into(), track.vip, |counts| {
            bump(&raw mut counts.icmp, error as usize);
        });
        count_member(track.arm.into(), track.member, |counts| counts.icmp += 1);
    }
    u32::from(found.is_new())
}

#[inline(always)]
fn segment(
    ctx: &aya_ebpf::programs::XdpContext,
    view: &View,
    packet: &Packet,
    place: u32,
    hash: u64,
) {
    let Some(tcp) = XdpFrame::new(ctx).read::<TcpStart>(packet.payload_offset.into()) else {
        return;
    };
    let headers = packet
        .payload_offset
        .wrapping_sub(packet.ip_offset)
        .wrapping_add(u16::from(tcp.data_offset >> 4) << 2);
    let payload = packet.ip_length.saturating_sub(headers);
    let numbers = u64::from(tcp.sequence.get()) << 32 | u64::from(tcp.acknowledgement.get());
    let shape = u64::from(payload) << 32
        | u64::from(packet.ip_length) << 16
        | u64::from(tcp.flags) << 8
        | u64::from(view.stage as u8);
    follow_track(place, hash, numbers, shape, view.within_ms);
}

/// Takes a segment of a followed flow: sequence and acknowledgement numbers; payload, IP length,
/// flags and the trial's step.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn follow_track(
    place: u32,
    hash: u64,
    numbers: u64,
    shape: u64,
    within_ms: u32,
) -> u32 {
    let Some(track) = TRACKS.get_ptr_mut(place.wrapping_sub(1)) else {
        return 0;
    };
    // SAFETY: as in `seek_syn`.
    let track = unsafe { &mut *track };
    if track.key != key(hash) {
        return 0;
    }
    let segment = Segment {
        seq: (numbers >> 32) as u32,
        ack: numbers as u32,
        payload: (shape >> 32) as u16,
        ip_length: (shape >> 16) as u16,
        flags: (shape >> 8) as u8,
    };
    let now = now();
    match track.segment(&segment, now) {
        Step::Nothing => {}
        Step::Completed => completed(track, now, u64::from(within_ms) * NS_PER_MS),
        Step::Ended(end) => ended(place.wrapping_sub(1), track, end, shape as u8),
    }
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
pub fn ended(number: u32, track: &mut Track, end: End, stage: u8) {
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

/// Adds one to a place of counters.
#[inline(always)]
fn bump<const N: usize>(counts: *mut [u32; N], place: usize) {
    if place < N {
        // SAFETY: `place` is within the counters, which are this CPU's copy of a map element.
        unsafe {
            let count = counts.cast::<u32>().add(place);
            *count = (*count).wrapping_add(1);
        }
    }
}

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

#[inline(always)]
fn count_member(arm: u32, member: u32, change: impl FnOnce(&mut MemberEvidence)) {
    let limit = MEMBERS_MAX.load();
    if member >= limit {
        return;
    }
    if let Some(counts) = MEMBER_EVIDENCE.get_ptr_mut((arm & NEW) * limit + member) {
        // SAFETY: as above.
        change(unsafe { &mut *counts });
    }
}

const _: () = assert!(BINS.is_power_of_two() && LATENCIES < 16 && PLACES.is_power_of_two());
