//! Which backend a packet goes to, and which slot says so.

mod known;

use aya_ebpf::programs::XdpContext;
use lb_common::counter::Reason;
use lb_common::flow::{Birth, Entry};
use lb_common::packet::{Packet, Role};
use lb_common::slot::{Member, VipEntry, vip_flag};
use lb_common::{hash, quic, scheme};

use self::known::{Known, note, recall};
use crate::backends;
use crate::control::View;
use crate::flows;
use crate::maps::{MEMBERS, TAG_KEY};
use crate::tracks::{self, Found};
use crate::vips;

/// A backend and how it was found; or why there is none.
pub struct Choice {
    /// [`Reason::Forwarded`] if there is a backend.
    pub reason: Reason,
    /// Slot that decided.
    pub slot: u32,
    /// The VIP in that slot.
    pub vip: Option<&'static VipEntry>,
    /// Member id; 0 without a backend.
    pub member_id: u32,
    /// The member.
    pub member: Option<&'static Member>,
    /// Whether the flow table was followed.
    pub followed: bool,
    /// Whether the flow was remembered.
    pub remembered: bool,
    /// Hash of the flow, for entropy.
    pub hash: u64,
    /// Whether the new arm of a trial has it.
    pub new: bool,
    /// The flow's record, or a place for one, if a trial follows it.
    pub track: Found,
}

impl Choice {
    /// No backend.
    const fn none(reason: Reason, slot: u32) -> Self {
        Self {
            reason,
            slot,
            vip: None,
            member_id: 0,
            member: None,
            followed: false,
            remembered: false,
            hash: 0,
            new: false,
            track: Found::NONE,
        }
    }
}

/// The VIP, the slot that decides, and whether that is the new arm.
struct Arm {
    reason: Reason,
    slot: u32,
    vip: Option<&'static VipEntry>,
    new: bool,
    track: Found,
}

/// Chooses the backend of a packet.
#[inline(always)]
pub fn pick(ctx: &XdpContext, view: &View, packet: &mut Packet, flows: bool) -> Choice {
    let destination = &packet.flow.destination;
    let known = vips::may_have(view.active, destination)
        || (view.trial && vips::may_have(view.shadow, destination));
    if !known {
        return Choice::none(Reason::NotVip, view.active);
    }
    let hash = hash::flow(TAG_KEY.load(), &packet.flow);
    let entry = if flows && packet.role != Role::Syn {
        flows::find(hash)
    } else {
        Entry(0)
    };
    let control = vips::of_flow(view.active, &packet.flow);
    // What remembers a flow is ACTIVE's to say until a trial is committed.
    let first = match control {
        None if view.trial => vips::of_flow(view.shadow, &packet.flow),
        found => found,
    };
    let Some(first) = first else {
        return Choice::none(Reason::NotVip, view.active);
    };
    let mut known = Known {
        hash,
        entry,
        flows,
        vip: first,
    };
    if !first.is_plain() {
        recall(view, packet, &mut known);
        packet.quic = backends::quic_look(ctx, packet, first);
    }
    let track = if !known.remembers() {
        Found::NEVER
    } else if view.follows() {
        track(view, packet, hash, &mut known)
    } else {
        Found::NONE
    };
    let arm = if view.trial {
        arm(view, packet, control.is_some(), &known, track)
    } else {
        Arm {
            reason: Reason::Forwarded,
            slot: view.active,
            vip: control,
            new: false,
            track,
        }
    };
    match arm.vip {
        None => Choice::none(arm.reason, arm.slot),
        Some(vip) => choose(view, packet, hash, &arm, vip, &known),
    }
}

/// During a trial: a flow stays in the arm it began in; a TCP SYN or a UDP packet without an entry
/// may enter the new one; other TCP belongs to control. Where nothing is remembered, each packet is
/// drawn anew, and steadily.
#[inline(always)]
fn arm(view: &View, packet: &Packet, in_control: bool, known: &Known, track: Found) -> Arm {
    let of = |reason, slot, vip, new| Arm {
        reason,
        slot,
        vip,
        new,
        track,
    };
    let first = known.vip;
    // A VIP that only SHADOW has sends all its flows there.
    if !in_control {
        return of(Reason::Forwarded, view.shadow, Some(first), true);
    }
    let stateless = first.has(vip_flag::STATELESS);
    // A QUIC connection that has moved to another address is drawn anew.
    let salt = if stateless || first.has(vip_flag::QUIC) {
        scheme::steady_salt(view.generation, view.change)
    } else {
        view.salt
    };
    let shape = view.share
        | (packet.role as u32) << 20
        | view.change << 24
        | u32::from(view.evidence) << 28
        | u32::from(stateless) << 29;
    let new = draw(known.hash, known.entry.0, track.0, salt, shape) != 0;
    if !new {
        return of(Reason::Forwarded, view.active, Some(first), false);
    }
    let vip = vips::of_flow(view.shadow, &packet.flow);
    of(Reason::Tombstone, view.shadow, vip, true)
}

/// Whether a packet belongs to the new arm: its flow's hash, entry and record, the salt of its draw,
/// and how things are. A global function of numbers, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn draw(hash: u64, entry: u64, track: u64, salt: u64, shape: u32) -> u32 {
    let (entry, track) = (Entry(entry), Found(track));
    let role = |role: Role| shape >> 20 & 0xf == role as u32;
    let is = |bit: u32| shape >> bit & 1 != 0;
    let (evidence, stateless) = (is(28), is(29));
    let drawn = View::draws(hash, salt, shape & 0x1_ffff);
    let new = if track.is_retried() {
        false
    } else if stateless {
        drawn
    } else if !entry.is_empty() {
        entry.birth().is_new_in(shape >> 24 & 0xf)
    } else if role(Role::Syn) && evidence {
        if track.is_passed_over() {
            track.is_new()
        } else {
            drawn && track.has_place()
        }
    } else if role(Role::Syn) || role(Role::Datagram) {
        drawn
    } else {
        track.is_new()
    };
    u32::from(new)
}

/// The record of a flow that is followed. Flows from before the trial have none, and their entries
/// say so; between changes only entries of followed flows say that they are.
#[inline(always)]
fn track(view: &View, packet: &Packet, hash: u64, known: &mut Known) -> Found {
    let found = if view.evidence && begins(packet, known) {
        tracks::sample(view, packet, hash, known.entry, known.vip)
    } else {
        let shape = packet.role as u32
            | view.change << 4
            | (view.stage & 0xff) << 8
            | u32::from(view.evidence) << 16;
        Found(follow(hash, known.entry.0, shape, view.mask, packet.quic.0))
    };
    if view.evidence && !known.vip.is_plain() {
        // A SYN that comes again is free to go to control, and its client with it.
        known.entry.0 &= found.unless_retried();
    }
    found
}

/// Whether a followed flow would begin with this packet.
#[inline(always)]
fn begins(packet: &Packet, known: &Known) -> bool {
    match packet.role {
        Role::Syn => true,
        Role::Datagram => packet.quic.begins() && known.entry.is_empty(),
        _ => false,
    }
}

/// [`track`], as a global function of numbers.
///
/// Of a client whose flows are one only the first is a draw, so only that is followed.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn follow(hash: u64, entry: u64, shape: u32, mask: u32, quic: u64) -> u64 {
    let (entry, quic) = (Entry(entry), quic::Seen(quic));
    let role = |role: Role| shape & 0xf == role as u32;
    let (change, stage, evidence) = (shape >> 4 & 0xf, shape >> 8 & 0xff, shape & 1 << 16 != 0);
    if role(Role::Syn) {
        return if hash as u32 & mask == 0 && entry.is_empty() {
            tracks::seek_syn(hash, change, stage)
        } else {
            0
        };
    }
    let followed = if evidence {
        entry.is_empty() || entry.birth().change() == change
    } else {
        entry.birth() == Birth::WATCHED
    };
    if role(Role::Datagram) && quic.is_quic() {
        if entry.is_empty() && quic.begins() && hash as u32 & mask == 0 {
            return tracks::seek_syn(hash, change, stage);
        }
        if entry.is_empty() || !followed {
            return 0;
        }
        let found = tracks::seek_track(hash, change);
        let again = evidence && quic.begins();
        return if again && tracks::begins_again(found, quic.number(), stage) != 0 {
            Found::RETRIED
        } else {
            found
        };
    }
    if followed && (role(Role::Segment) || role(Role::Reset)) {
        return tracks::seek_track(hash, change);
    }
    0
}

/// Follows the flow table where it still holds, else asks the lookup table.
#[inline(always)]
fn choose(
    view: &View,
    packet: &Packet,
    hash: u64,
    arm: &Arm,
    vip: &'static VipEntry,
    known: &Known,
) -> Choice {
    let chosen = Choice {
        reason: Reason::Forwarded,
        vip: Some(vip),
        hash,
        new: arm.new,
        track: arm.track,
        ..Choice::none(Reason::Forwarded, arm.slot)
    };
    let found = known.entry;
    let remembered = if found.is_empty() {
        arm.track.member()
    } else {
        found.member()
    };
    let is_segment = packet.role == Role::Segment;
    let shape = arm.slot
        | u32::from(is_segment) << 4
        | u32::from(vip.on_dead) << 8
        | u32::from(vip.pool) << 16;
    let named = if packet.quic.has_id() {
        let id = packet.quic.number();
        backends::server_of(id, vip.ids_start, vip.ids_lines, vip.member_base, shape)
    } else {
        0
    };
    let remembered = if named == 0 { remembered } else { named };
    let standing = backends::standing(remembered, shape);
    if standing == backends::RESETS {
        flows::forget(known.hash);
        return Choice {
            reason: Reason::FlowReset,
            ..chosen
        };
    }
    let followed = standing == backends::STANDS;
    let member_id = if followed {
        remembered
    } else {
        backends::look_up(vip, packet)
    };
    let Some(member) = MEMBERS.get(member_id).filter(|_| member_id != 0) else {
        return Choice {
            reason: Reason::NoBackend,
            ..chosen
        };
    };
    let inserted = note(view, packet, hash, arm, known, (member_id, followed));
    Choice {
        reason: if packet.quic.has_id() && named == 0 {
            Reason::QuicUnknown
        } else {
            Reason::Forwarded
        },
        member_id,
        member: Some(member),
        followed,
        remembered: inserted,
        ..chosen
    }
}
