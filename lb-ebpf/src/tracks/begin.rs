//! How following a flow begins: its SYN, or its first QUIC packet.

use lb_common::brief::Brief;
use lb_common::evidence::NEW;
use lb_common::evidence::bin;
use lb_common::flow::{Birth, Entry};
use lb_common::packet::{Packet, Role};
use lb_common::slot::VipEntry;
use lb_common::track::Whose;
use lb_common::track_table::key;

use super::counts::{bump, count, count_member};
use super::places::{self, take};
use super::{Found, follow, seek_track};
use crate::control::{self, View, lately};
use crate::pick::Choice;
use crate::vips;

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

/// What the short way goes by for a SYN of a judged trial, in one word: the number of its record plus 1, or
/// 0 if none is free, below what is decided.
#[derive(Clone, Copy)]
pub struct Begun(pub u64);

impl Begun {
    /// No SYN of a judged trial.
    pub const NONE: Self = Self(0);
    const SOME: u64 = 1 << 32;
    const NEW: u64 = 1 << 33;
    const AGAIN: u64 = 1 << 34;

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

    /// What is remembered of where the flow was born, if the flow itself is.
    #[inline(always)]
    pub const fn birth(self, change: u32) -> Birth {
        if self.is_some() {
            Birth::in_arm(change, false)
        } else {
            Birth::SETTLED
        }
    }
}

/// Which arm a SYN belongs to under a [`Brief`], see [`Begun`]; 0 if the long way decides. A global
/// function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn decided_syn(hash: u64, brief: u64) -> u64 {
    let brief = Brief(brief);
    let Some(split) = control::split(brief) else {
        return 0;
    };
    let found = Found(seek_syn(hash, brief.change(), brief.stage().into()));
    let arm = if found.is_retried() {
        Begun::AGAIN
    } else if found.has_place() && View::draws(hash, split.salt, split.share) {
        Begun::NEW
    } else {
        0
    };
    Begun::SOME | arm | u64::from(found.place())
}

/// Begins the record of a flow whose SYN has been sent: what [`decided_syn`] said, just before and of the
/// same flow; its backend and VIP; the [`Brief`]. Without a free record it is counted as not followed.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begin_syn(hash: u64, begun: u64, whose: u64, brief: u64) -> u32 {
    let (begun, brief) = (Begun(begun), Brief(brief));
    let place = begun.0 as u32;
    if place == 0 {
        count(0, whose as u16, |counts| counts.untracked += 1);
        return 0;
    }
    let marks = marks(begun.is_new(), brief.change(), brief.stage().into());
    begin_track(place.into(), hash, whose, marks)
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
        Role::Syn => {
            let arm = u32::from(choice.new);
            let vip = compared(view, packet, vip.vip, arm);
            if place == 0 {
                count(0, vip, |counts| counts.untracked += 1);
                return;
            }
            let whose = u64::from(choice.member_id) << 32 | u64::from(vip);
            let marks = marks(choice.new, view.change, view.stage);
            begin_track(place.into(), choice.hash, whose, marks);
        }
        Role::Segment | Role::Reset if place != 0 => {
            follow::segment(ctx, view, packet, place, choice.hash);
        }
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
        let marks = marks(choice.new, view.change, view.stage);
        let tagged = u64::from(packet.quic.number()) << 32 | u64::from(place);
        begin_track(tagged, choice.hash, whose, marks);
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
    let now = lately();
    let whose = Whose {
        member,
        vip,
        arm: arm as u8,
        change: (marks >> 8) as u8,
        stage: (marks >> 16) as u8,
    };
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
