//! How following a flow begins: its SYN, or its first QUIC packet.

use lb_common::brief::Brief;
use lb_common::evidence::NEW;
use lb_common::evidence::bin;
use lb_common::flow::{Birth, Entry};
use lb_common::pace::Counted;
use lb_common::packet::{Packet, Role};
use lb_common::slot::{VipEntry, vip_flag};
use lb_common::track::Whose;
use lb_common::track_table::key;

use super::counts::{bump, count, count_member};
use super::places::{self, take};
use super::{Found, follow, pace, seek_track};
use crate::control::{self, View, lately};
use crate::pick::Choice;
use crate::{flows, vips};

/// A SYN's place: a free one, or none; or that it came before. A global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_syn(hash: u64, change: u32, stage: u32) -> u64 {
    let own = places::find(hash);
    let Some(track) = places::record(own) else {
        return places::room(hash).into();
    };
    if u32::from(track.change) == change && track.is_tried(lately()) {
        if track.retry() && u32::from(track.stage) == stage {
            count(track.arm.into(), track.vip, |counts| counts.retried += 1);
        }
        return Found::RETRIED;
    }
    own.into()
}

/// What becomes of a flow that begins in a judged trial: its place, if it is followed; or it is passed over, and
/// of the new arm or not; or its SYN came before. `marks` is as of [`marks_of`].
///
/// A repeated SYN is known whether its flow's pace is used up or not, but counted only if not: in both arms
/// alike, since control's are mostly left alone ([`is_left_alone`]) then.
///
/// A global function of numbers, which can be asked again: nothing is used up here.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sampled(hash: u64, counted: u32, paced: u32, marks: u32) -> u64 {
    let (change, stage) = (marks & 0xff, marks >> 16);
    let counted = Counted(counted);
    let passes_over = pace::passes_over(counted, paced != 0);
    if counted.is_moved() {
        let counts = if passes_over { NO_STAGE } else { stage };
        let found = seek_syn(hash, change, counts);
        if !passes_over || Found(found).is_retried() {
            return found;
        }
    }
    if marks & ENTERS == 0 {
        return Found::PASSED_OVER.0;
    }
    // What enters the new arm without a record has an entry at once.
    if came_before(hash, change) {
        Found::RETRIED
    } else {
        Found::PASSED_OVER.0 | Found::NEW_ARM
    }
}

/// A step that no flow was born in.
const NO_STAGE: u32 = 0x100;
/// Of the marks of [`sampled`]: a flow that is passed over enters the new arm.
const ENTERS: u32 = 1 << 8;

/// The change, its step, and whether the flow enters the new arm if it is passed over, for [`sampled`].
#[inline(always)]
const fn marks_of(change: u32, stage: u32, enters: bool) -> u32 {
    change | stage << 16 | if enters { ENTERS } else { 0 }
}

/// Whether the SYN of a flow without a record came before, within half a minute: it went to the new arm. Looked
/// for where an entry mostly lies.
#[inline(always)]
fn came_before(hash: u64, change: u32) -> bool {
    let entry = flows::at_home(hash);
    let idle = entry.idle(control::age());
    entry.birth().is_new_in(change) && idle <= 1
}

/// Whether a flow that is drawn for the new arm enters it even if it is passed over: not in a trial's first
/// step. A change that is wrong mostly ends there, and meets no more flows than it takes to see that.
#[inline(always)]
pub const fn enters(stage: u32, drawn: bool) -> bool {
    stage != 0 && drawn
}

/// Whether a flow that begins is control's and not followed, whatever may be found about it: nothing has to
/// be looked for.
#[inline(always)]
pub fn is_left_alone(counted: Counted, paced: bool, enters: bool) -> bool {
    !enters && pace::passes_over(counted, paced)
}

/// [`sampled`] for the long way: of a flow with this entry. A global function of numbers.
///
/// Of a client whose flows are one only the first is a draw, so only that is followed; and what is known of him
/// stays to be found. He has no entry of his SYN's own, by which it would be known when it comes again: so if
/// he is passed over, he is control's.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sampled_long(hash: u64, entry: u64, salt: u64, split: u64, shape: u32) -> u64 {
    let (counted, share) = (Counted(split as u32), (split >> 32) as u32);
    let (change, stage) = (shape & 0xf, shape >> 4 & 0xff);
    let (is_syn, paced) = (shape >> 12 & 0xf == Role::Syn as u32, shape & 1 << 16 != 0);
    let of_client = shape >> 24 & vip_flag::CLIENT_AFFINITY as u32 != 0;
    let drawn = is_syn && !of_client && View::draws(hash, salt, share);
    let enters = enters(stage, drawn);
    if !of_client && is_left_alone(counted, paced, enters) {
        return Found::PASSED_OVER.0;
    }
    let marks = marks_of(change, stage, enters);
    let found = sampled(hash, counted.0, paced.into(), marks);
    if Entry(entry).is_empty() || Found(found).is_retried() {
        found
    } else {
        Found::NONE.0
    }
}

/// What becomes of a flow that begins in a judged trial, for the long way: its VIP's flags, its entry.
#[inline(always)]
pub fn sample(view: &View, packet: &Packet, hash: u64, entry: Entry, vip: &VipEntry) -> Found {
    let counted = vips::counted(view.shadow, &packet.flow, vip.vip);
    let split = u64::from(counted.0) | u64::from(view.share) << 32;
    let shape = view.change
        | (view.stage & 0xff) << 4
        | (packet.role as u32) << 12
        | view.pace.min(1) << 16
        | u32::from(vip.flags) << 24;
    Found(sampled_long(hash, entry.0, view.salt, split, shape))
}

/// What the short way goes by for a SYN of a judged trial, in one word: the number of its record plus 1, or
/// 0 if none is free or the flow is passed over, below what is decided; the pace above.
#[derive(Clone, Copy)]
pub struct Begun(pub u64);

impl Begun {
    /// No SYN of a judged trial.
    pub const NONE: Self = Self(0);
    /// Control's, and not followed.
    pub const LEFT_ALONE: Self = Self(Self::SOME | Self::PASSED_OVER);
    const SOME: u64 = 1 << 32;
    const NEW: u64 = 1 << 33;
    const AGAIN: u64 = 1 << 34;
    const PASSED_OVER: u64 = 1 << 35;
    const PACE: u32 = 36;

    /// Whether there is anything that the short way could go by.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 & Self::SOME != 0
    }

    /// Whether the flow is the new arm's.
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 & Self::NEW != 0
    }

    /// Whether it counts as a flow of the trial: it is one's SYN, and its first.
    #[inline(always)]
    pub const fn is_counted(self) -> bool {
        self.0 & (Self::SOME | Self::AGAIN) == Self::SOME
    }

    /// Whether the flow is not remembered yet, so that its SYN may come again and go to control.
    #[inline(always)]
    pub const fn stays_free(self) -> bool {
        self.0 & (Self::NEW | Self::PASSED_OVER) == Self::NEW
    }

    /// What is remembered of where the flow was born, if the flow itself is.
    #[inline(always)]
    pub const fn birth(self, change: u32) -> Birth {
        let apart = self.is_new() || self.0 & Self::PASSED_OVER == 0;
        if self.is_some() && apart {
            Birth::in_arm(change, self.is_new())
        } else {
            Birth::SETTLED
        }
    }
}

/// Which arm a SYN belongs to under a [`Brief`], see [`Begun`], and [`Counted`]; 0 if the long way decides. A
/// global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn decided_syn(hash: u64, brief: u64, counted: u32) -> u64 {
    let brief = Brief(brief);
    let Some(split) = control::split(brief) else {
        return 0;
    };
    let (change, stage) = (brief.change(), u32::from(brief.stage()));
    let drawn = View::draws(hash, split.salt, split.share);
    let enters = enters(stage, drawn);
    if is_left_alone(Counted(counted), brief.is_paced(), enters) {
        return Begun::LEFT_ALONE.0;
    }
    let marks = marks_of(change, stage, enters);
    let found = Found(sampled(hash, counted, brief.is_paced().into(), marks));
    let new = |new: bool| if new { Begun::NEW } else { 0 };
    let arm = if found.is_retried() {
        Begun::AGAIN
    } else if found.is_passed_over() {
        Begun::PASSED_OVER | new(found.is_new())
    } else {
        new(drawn && found.has_place())
    };
    Begun::SOME | arm | u64::from(found.place()) | u64::from(split.pace) << Begun::PACE
}

/// Begins the record of a flow whose SYN has been sent: what [`decided_syn`] said, just before and of the
/// same flow; its backend and VIP; the [`Brief`]. Without a record it is counted as not followed.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begin_syn(hash: u64, begun: u64, whose: u64, brief: u64) -> u32 {
    let (begun, brief) = (Begun(begun), Brief(brief));
    let place = begun.0 as u32;
    if place == 0 {
        let passed_over = begun.0 & Begun::PASSED_OVER != 0;
        not_followed(passed_over, begun.is_new().into(), whose as u16);
        return 0;
    }
    let pace = (begun.0 >> Begun::PACE) as u16;
    let marks = marks(begun.is_new(), brief.change(), brief.stage().into());
    begin_track(place.into(), hash, whose | u64::from(pace) << PACE, marks)
}

/// Where a pace is in what [`begin_track`] takes of whose a record is.
const PACE: u32 = 16;

/// Counts a new flow that is not followed: that it was passed over, or that there was no room, so that it
/// went to control.
#[inline(always)]
fn not_followed(passed_over: bool, arm: u32, vip: u16) {
    if passed_over {
        count(arm, vip, |counts| counts.passed_over += 1);
    } else {
        count(0, vip, |counts| counts.untracked += 1);
    }
}

/// Arm, change and step, as [`begin_track`] takes them.
#[inline(always)]
const fn marks(new: bool, change: u32, stage: u32) -> u32 {
    new as u32 | change << 8 | stage << 16
}

/// The entry that a flow of the new arm shall have in the flow table by its record; 0 if it has none. Its
/// SYN left no entry, so that it could come again and go to control.
///
/// A global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn entry_by_record(hash: u64, change: u32, age: u32) -> u64 {
    let found = Found(seek_track(hash, change));
    if found.is_new() {
        Entry::new(hash, found.member(), age, Birth::in_arm(change, true)).0
    } else {
        0
    }
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
        Role::Syn => begin(view, packet, vip, choice, 0),
        Role::Segment | Role::Reset if place != 0 => {
            follow::segment(ctx, view, packet, place, choice.hash);
        }
        Role::Datagram if packet.quic.is_quic() => datagram(view, packet, vip, choice),
        _ => {}
    }
}

/// Begins the record of a flow, or counts it as not followed. `tag` is that of its first packet.
#[inline(always)]
fn begin(view: &View, packet: &Packet, vip: &VipEntry, choice: &Choice, tag: u32) {
    let (arm, place) = (u32::from(choice.new), choice.track.place());
    let vip = compared(view, packet, vip.vip, arm);
    if place == 0 {
        not_followed(choice.track.is_passed_over(), arm, vip);
        return;
    }
    let pace = u64::from(view.pace as u16) << PACE;
    let whose = u64::from(choice.member_id) << 32 | pace | u64::from(vip);
    let marks = marks(choice.new, view.change, view.stage);
    begin_track(
        u64::from(tag) << 32 | u64::from(place),
        choice.hash,
        whose,
        marks,
    );
}

/// The VIP for which a flow counts: SHADOW's, in both arms, so that the flows of a port that was
/// carved out of a port-0 VIP are compared with those of the same port; of what SHADOW lacks,
/// the arm's own.
#[inline(always)]
pub fn compared(view: &View, packet: &Packet, own: u16, arm: u32) -> u16 {
    if arm == NEW || !view.evidence {
        return own;
    }
    vips::counted(view.shadow, &packet.flow, own).vip()
}

/// A datagram of a QUIC connection (S17): it begins with an Initial, and its client was answered when
/// the next comes with a connection id of the server's choice.
#[inline(always)]
fn datagram(view: &View, packet: &Packet, vip: &VipEntry, choice: &Choice) {
    let place = choice.track.place();
    let begins = packet.quic.begins();
    if begins && !choice.followed && !choice.track.is_retried() {
        if place != 0 || view.evidence {
            begin(view, packet, vip, choice, packet.quic.number());
        }
    } else if place != 0 && choice.followed {
        let tag = if begins { packet.quic.number() } else { 0 };
        follow::answered(place, choice.hash, tag, u32::from(begins), view.within_ms);
    }
}

/// How long an Initial that comes again may be one of several that a client begins with, ns.
const FIRST_FLIGHT_NS: u64 = 200_000_000;

/// Whether an Initial is one that the client sends again, for want of an answer: a global function of
/// numbers. The first time that is noted and counted.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begins_again(found: u64, tag: u32, stage: u32) -> u32 {
    let Some(track) = places::record(Found(found).place()) else {
        return 0;
    };
    let late = lately().saturating_sub(track.syn_ns) > FIRST_FLIGHT_NS;
    if track.first_ack != tag || !late || !track.is_half_open() {
        return 0;
    }
    if track.retry() && u32::from(track.stage) == stage {
        count(track.arm.into(), track.vip, |counts| counts.retried += 1);
    }
    1
}

/// Begins a flow's record; `place` has the tag of its first packet in the upper half.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begin_track(place: u64, hash: u64, whose: u64, marks: u32) -> u32 {
    let (place, tag) = (place as u32, (place >> 32) as u32);
    let (arm, vip, member) = (marks & 0xff, whose as u16, (whose >> 32) as u32);
    let pace = (whose >> PACE) as u16;
    let now = lately();
    let whose = Whose {
        member,
        vip,
        arm: arm as u8,
        change: (marks >> 8) as u8,
        stage: (marks >> 16) as u8,
    };
    pace::use_up(vip, pace);
    take(place, hash);
    let Some(track) = places::record(place) else {
        return 0;
    };
    track.begin(key(hash), now, whose);
    track.first_ack = tag;
    count(arm, vip, |counts| {
        counts.flows += 1;
        bump(&raw mut counts.started, bin(now));
    });
    count_member(arm, member, |counts| counts.started += 1);
    1
}
