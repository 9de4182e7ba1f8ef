//! Which backend a packet goes to, and which slot says so.

use lb_common::counter::Reason;
use lb_common::flow::{Birth, Entry};
use lb_common::hash;
use lb_common::packet::{Packet, Role};
use lb_common::slot::{CHUNK_ENTRIES, Member, VipEntry, member_state};

use crate::control::View;
use crate::flows;
use crate::maps::{FLEET_KEY, MEMBERS, TABLES, TAG_KEY};
use crate::tracks::{self, Found};
use crate::vips;

/// Positions of the table that are tried for a backend that takes flows. With half of them down (the
/// most that health may take out) one flow in 65,536 finds none; with 4 it would be one in 16.
const TRIES: u64 = 16;

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
pub fn pick(view: &View, packet: &Packet, flows: bool) -> Choice {
    let destination = &packet.flow.destination;
    let known = vips::may_have(view.active, destination)
        || (view.trial && vips::may_have(view.shadow, destination));
    if !known {
        return Choice::none(Reason::NotVip, view.active);
    }
    let hash = hash::flow(TAG_KEY.load(), &packet.flow);
    let found = if flows && packet.role != Role::Syn {
        flows::find(hash)
    } else {
        Entry(0)
    };
    let track = if view.follows() && flows {
        track(view, packet, hash, found)
    } else {
        Found::NONE
    };
    let arm = if view.trial {
        arm(view, packet, hash, found, track)
    } else {
        let vip = vips::of_flow(view.active, &packet.flow);
        Arm {
            reason: Reason::NotVip,
            slot: view.active,
            vip,
            new: false,
            track,
        }
    };
    match arm.vip {
        None => Choice::none(arm.reason, arm.slot),
        Some(vip) => choose(view, packet, flows, hash, &arm, vip, found),
    }
}

/// During a trial: a flow stays in the arm it began in; a TCP SYN or a UDP packet without an entry
/// may enter the new one; other TCP belongs to control.
#[inline(always)]
fn arm(view: &View, packet: &Packet, hash: u64, found: Entry, track: Found) -> Arm {
    let new = if !found.is_empty() {
        found.birth().is_new_in(view.change)
    } else if packet.role == Role::Syn && view.evidence {
        track.has_place() && view.takes(hash)
    } else if matches!(packet.role, Role::Syn | Role::Datagram) {
        view.takes(hash)
    } else {
        track.is_new()
    };
    let (own, other) = if new {
        (view.shadow, view.active)
    } else {
        (view.active, view.shadow)
    };
    let vip = vips::of_flow(own, &packet.flow);
    if vip.is_some() {
        return Arm {
            reason: Reason::Forwarded,
            slot: own,
            vip,
            new,
            track,
        };
    }
    let theirs = vips::of_flow(other, &packet.flow);
    if new {
        let reason = if theirs.is_some() {
            Reason::Tombstone
        } else {
            Reason::NotVip
        };
        return Arm {
            reason,
            slot: own,
            vip: None,
            new,
            track,
        };
    }
    // A VIP that only SHADOW has sends all its flows there.
    Arm {
        reason: Reason::NotVip,
        slot: other,
        vip: theirs,
        new: true,
        track,
    }
}

/// The record of a flow that is followed. Flows from before the trial have none, and their entries
/// say so; between changes only entries of followed flows say that they are.
#[inline(always)]
fn track(view: &View, packet: &Packet, hash: u64, found: Entry) -> Found {
    let followed = if view.evidence {
        found.is_empty() || found.birth().change() == view.change
    } else {
        found.birth() == Birth::WATCHED
    };
    match packet.role {
        Role::Syn if view.samples(hash) => tracks::syn(hash, view),
        Role::Segment | Role::Reset if followed => tracks::find(hash, view.change),
        _ => Found::NONE,
    }
}

/// Follows the flow table where it still holds, else asks the lookup table.
#[inline(always)]
fn choose(
    view: &View,
    packet: &Packet,
    flows: bool,
    hash: u64,
    arm: &Arm,
    vip: &'static VipEntry,
    found: Entry,
) -> Choice {
    let chosen = Choice {
        reason: Reason::Forwarded,
        vip: Some(vip),
        hash,
        new: arm.new,
        track: arm.track,
        ..Choice::none(Reason::Forwarded, arm.slot)
    };
    let member_id = if found.is_empty() {
        arm.track.member()
    } else {
        found.member()
    };
    if member_id != 0
        && let Some(member) = MEMBERS.get(member_id)
        && follows(member, arm.slot, vip)
    {
        if !found.is_empty() {
            flows::touch(hash, found, view.age);
        } else if packet.role == Role::Segment {
            // The first packet after the handshake pins the flow to where the SYN went.
            flows::insert(hash, member_id, view.age, birth(view, arm).0);
        }
        return Choice {
            member_id,
            member: Some(member),
            followed: true,
            ..chosen
        };
    }
    let (member_id, member) = look_up(vip, packet);
    if member.is_none() {
        return Choice {
            reason: Reason::NoBackend,
            ..chosen
        };
    }
    // While a change is unproven, a SYN that comes again must be free to go to control.
    let unpinned = packet.role == Role::Syn && view.evidence && arm.new;
    let remembered =
        flows && !unpinned && matches!(packet.role, Role::Syn | Role::Segment | Role::Datagram);
    if remembered {
        flows::insert(hash, member_id, view.age, birth(view, arm).0);
    } else if unpinned && flows {
        // An earlier connection from the same port may be remembered still.
        flows::forget(hash);
    }
    Choice {
        member_id,
        member,
        remembered,
        ..chosen
    }
}

/// Where a new flow is born. Only with evidence is control's part of a trial told from the rest.
#[inline(always)]
fn birth(view: &View, arm: &Arm) -> Birth {
    if arm.new || view.evidence {
        Birth::in_arm(view.change, arm.new)
    } else if arm.track.has_place() {
        Birth::WATCHED
    } else {
        Birth::SETTLED
    }
}

/// An entry is followed iff its backend is in that VIP's pool in the slot that decides.
#[inline(always)]
fn follows(member: &Member, slot: u32, vip: &VipEntry) -> bool {
    u32::from(member.slots) & (1 << slot) != 0
        && member.pool == vip.pool
        && member.state != member_state::DOWN
}

/// The backend at the flow's entry of the lookup table, or at a further one if it takes no flows.
#[inline(always)]
fn look_up(vip: &VipEntry, packet: &Packet) -> (u32, Option<&'static Member>) {
    let hash = hash::flow(FLEET_KEY.load(), &packet.flow);
    match try_places(hash, vip.table_start, vip.table_size, vip.member_base) {
        0 => (0, None),
        id => (id, MEMBERS.get(id)),
    }
}

/// Member id of the first backend that takes the flow; else of one that is slow to start, else of
/// one that drains; 0 if all of the places tried are down.
///
/// A global function of numbers, so that the verifier walks its loop once. Inlined, it was walked
/// in every state that a packet can be in when it comes here, and how many those are is left to
/// the compiler: of two checkouts of the same source one was accepted and the other was beyond the
/// verifier's limit.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn try_places(hash: u64, start: u32, size: u32, base: u32) -> u32 {
    let (mut hash, mut spare) = (hash, 0);
    for _ in 0..TRIES {
        let entry = hash::entry(hash, size);
        let Some(chunk) = TABLES.get(start.wrapping_add(entry / CHUNK_ENTRIES as u32)) else {
            return 0;
        };
        let number = chunk[entry as usize & (CHUNK_ENTRIES - 1)];
        if number != 0 {
            let id = base.wrapping_add(u32::from(number));
            if let Some(member) = MEMBERS.get(id) {
                if member.takes(hash) {
                    return id;
                }
                if member.spare() && (spare == 0 || member.state == member_state::UP) {
                    spare = id;
                }
            }
        }
        hash = hash::finish(hash.wrapping_add(1));
    }
    spare
}
