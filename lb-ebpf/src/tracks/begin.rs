//! How following a flow begins: its SYN, or its first QUIC packet.

use lb_common::evidence::NEW;
use lb_common::evidence::bin;
use lb_common::flow::Birth;
use lb_common::packet::{Packet, Role};
use lb_common::slot::VipEntry;
use lb_common::track::{KEYS, Track, Whose};

use super::counts::{bump, count, count_member};
use super::{Found, follow, key, line, place_of, set_key};
use crate::control::{self, View, now};
use crate::maps::{TRACKS, VIEWS};
use crate::pick::Choice;
use crate::vips;

/// A SYN's place: a free one, or none; or that it came before. A global function of numbers.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn seek_syn(hash: u64, change: u32, stage: u32) -> u64 {
    let line = line(hash);
    let own = place_of(line, key(hash));
    if let Some(track) = TRACKS.get_ptr_mut(own.wrapping_sub(1)) {
        // SAFETY: a map element. Packets of one flow come by one queue; should two CPUs write one
        // record at once, its flow is counted wrongly and nothing else happens.
        let track = unsafe { &mut *track };
        if u32::from(track.change) == change && track.is_tried(now()) {
            if track.retry() && u32::from(track.stage) == stage {
                count(track.arm.into(), track.vip, |counts| counts.retried += 1);
            }
            return Found::RETRIED;
        }
        return u64::from(own);
    }
    match place_of(line, 0) {
        0 => u64::from(stale_place(line, now())),
        free => u64::from(free),
    }
}

/// What the short way goes by for a SYN of a judged trial, in one word: the number of its record plus 1
/// (0 = none is free), the slot that decides plus 1, SHADOW, its arm, and whether it came before.
#[derive(Clone, Copy)]
pub struct Begun(pub u64);

impl Begun {
    const SLOT: u32 = 32;
    const SHADOW: u32 = 36;
    const NEW: u64 = 1 << 40;
    const AGAIN: u64 = 1 << 41;

    /// The slot that decides; `None`: the long way does.
    #[inline(always)]
    pub const fn slot(self) -> Option<u32> {
        match (self.0 >> Self::SLOT) as u32 & 3 {
            0 => None,
            slot => Some(slot - 1),
        }
    }

    /// The slot on trial.
    #[inline(always)]
    pub const fn shadow(self) -> u32 {
        (self.0 >> Self::SHADOW) as u32 & 3
    }

    /// Whether the flow is the new arm's.
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 & Self::NEW != 0
    }

    /// Whether it counts as a flow of the trial: it is one's SYN, and its first.
    #[inline(always)]
    pub const fn is_counted(self) -> bool {
        self.0 != 0 && self.0 & Self::AGAIN == 0
    }

    /// What is remembered of where the flow was born, if the flow itself is.
    #[inline(always)]
    pub const fn birth(self, change: u32) -> Birth {
        if self.0 == 0 {
            Birth::SETTLED
        } else {
            Birth::in_arm(change, false)
        }
    }
}

/// See [`Begun`]; 0 if the long way decides. A global function of numbers: the flow's hash and the slot
/// that is committed as far as the caller knows. Keeps the view for [`begin_syn`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn decided_syn(hash: u64, active: u32) -> u64 {
    let Some(kept) = VIEWS.get_ptr_mut(0) else {
        return 0;
    };
    let Some(view) = control::view_at(now) else {
        return 0;
    };
    if !view.evidence || view.active != active || view.shadow > 2 {
        return 0;
    }
    // SAFETY: this CPU's copy of a map element, and nothing else on this CPU holds it.
    unsafe { kept.write(view) };
    let found = Found(seek_syn(hash, view.change, view.stage));
    let new = found.has_place() && View::draws(hash, view.salt, view.share);
    let (slot, arm) = if found.is_retried() {
        (view.active, Begun::AGAIN)
    } else if new {
        (view.shadow, Begun::NEW)
    } else {
        (view.active, 0)
    };
    u64::from(found.place())
        | arm
        | u64::from(slot + 1) << Begun::SLOT
        | u64::from(view.shadow) << Begun::SHADOW
}

/// Begins the record of a flow whose SYN has been sent: what [`decided_syn`] said, just before and of the
/// same flow; its backend and VIP. Without a free record it is counted as not followed.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begin_syn(hash: u64, begun: u64, whose: u64) -> u32 {
    let Some(view) = VIEWS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `decided_syn`.
    let view = unsafe { &*view };
    let place = begun as u32;
    if place == 0 {
        count(0, whose as u16, |counts| counts.untracked += 1);
        return 0;
    }
    let arm = u32::from(Begun(begun).is_new());
    let marks = arm | view.change << 8 | view.stage << 16;
    begin_track(place.into(), hash, whose, marks, view.time())
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
            begin_track(place.into(), choice.hash, whose, marks, view.time());
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
        let marks = arm | view.change << 8 | view.stage << 16;
        let tagged = u64::from(packet.quic.number()) << 32 | u64::from(place);
        begin_track(tagged, choice.hash, whose, marks, view.time());
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

/// Begins a flow's record; `place` has the tag of its first packet in the upper half.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn begin_track(place: u64, hash: u64, whose: u64, marks: u32, now: u64) -> u32 {
    let (place, tag) = (place as u32, (place >> 32) as u32);
    let Some(track) = TRACKS.get_ptr_mut(place.wrapping_sub(1)) else {
        return 0;
    };
    let (arm, vip, member) = (marks & 0xff, whose as u16, (whose >> 32) as u32);
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
