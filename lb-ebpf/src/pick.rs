//! Which backend a packet goes to, and which slot says so.

use lb_common::hash;
use lb_common::counter::Reason;
use lb_common::packet::{Packet, Role};
use lb_common::slot::{CHUNK_ENTRIES, Member, VipEntry, member_state};

use crate::control::View;
use crate::flows::{self, Found};
use crate::maps::{FLEET_KEY, MEMBERS, TABLES, TAG_KEY};
use crate::vips;

/// Positions of the table that are tried for a backend that takes flows.
const TRIES: u64 = 4;

/// A backend and how it was found.
pub struct Choice {
    /// Slot that decided.
    pub slot: u32,
    /// The VIP in that slot.
    pub vip: &'static VipEntry,
    /// Member id.
    pub member_id: u32,
    /// The member.
    pub member: &'static Member,
    /// Whether the flow table was followed.
    pub followed: bool,
    /// Whether the flow was remembered.
    pub remembered: bool,
    /// Hash of the flow, for entropy.
    pub hash: u64,
}

/// A packet that gets no backend: why, and whose it would have been.
pub struct Miss {
    /// Why.
    pub reason: Reason,
    /// Slot that decided.
    pub slot: u32,
    /// VIP in that slot, if any.
    pub vip: Option<&'static VipEntry>,
}

/// The VIP, the slot that decides, and whether that is the new arm.
struct Arm {
    slot: u32,
    vip: &'static VipEntry,
    new: bool,
}

/// Chooses the backend of a packet.
#[inline(always)]
pub fn pick(view: &View, packet: &Packet, flows: bool) -> Result<Choice, Miss> {
    let destination = &packet.flow.destination;
    if !vips::may_have(view.active, destination)
        && !(view.trial && vips::may_have(view.shadow, destination))
    {
        return Err(Miss { reason: Reason::NotVip, slot: view.active, vip: None });
    }
    let hash = hash::flow(TAG_KEY.load(), &packet.flow);
    let reads = flows && packet.role != Role::Syn;
    if !view.trial {
        let Some(vip) = vips::of_flow(view.active, &packet.flow) else {
            return Err(Miss { reason: Reason::NotVip, slot: view.active, vip: None });
        };
        let found = if reads { flows::find(hash) } else { None };
        return choose(view, packet, flows, hash, &Arm { slot: view.active, vip, new: false }, found);
    }
    let found = if reads { flows::find(hash) } else { None };
    let arm = arm(view, packet, hash, found)?;
    choose(view, packet, flows, hash, &arm, found)
}

/// During a trial: a flow stays in the arm it began in; a TCP SYN or a UDP packet without an entry
/// may enter the new one; other TCP belongs to control.
#[inline(always)]
fn arm(view: &View, packet: &Packet, hash: u64, found: Option<Found>) -> Result<Arm, Miss> {
    let new = match found {
        Some(found) => found.entry.change() == view.change,
        None => matches!(packet.role, Role::Syn | Role::Datagram) && view.takes(hash),
    };
    let slot = if new { view.shadow } else { view.active };
    if let Some(vip) = vips::of_flow(slot, &packet.flow) {
        return Ok(Arm { slot, vip, new });
    }
    if new {
        let reason = if vips::of_flow(view.active, &packet.flow).is_some() {
            Reason::Tombstone
        } else {
            Reason::NotVip
        };
        return Err(Miss { reason, slot, vip: None });
    }
    // A VIP that only SHADOW has sends all its flows there.
    match vips::of_flow(view.shadow, &packet.flow) {
        Some(vip) => Ok(Arm { slot: view.shadow, vip, new: true }),
        None => Err(Miss { reason: Reason::NotVip, slot, vip: None }),
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
    found: Option<Found>,
) -> Result<Choice, Miss> {
    if let Some(found) = found {
        if let Some(member) = MEMBERS.get(found.entry.member()) {
            if follows(member, arm) {
                found.touch(view.age);
                return Ok(Choice {
                    slot: arm.slot,
                    vip: arm.vip,
                    member_id: found.entry.member(),
                    member,
                    followed: true,
                    remembered: false,
                    hash,
                });
            }
        }
    }
    let Some((member_id, member)) = look_up(arm.vip, packet) else {
        return Err(Miss { reason: Reason::NoBackend, slot: arm.slot, vip: Some(arm.vip) });
    };
    let remembered =
        flows && matches!(packet.role, Role::Syn | Role::Segment | Role::Datagram);
    if remembered {
        flows::insert(hash, member_id, view.age, if arm.new { view.change } else { 0 });
    }
    Ok(Choice {
        slot: arm.slot,
        vip: arm.vip,
        member_id,
        member,
        followed: false,
        remembered,
        hash,
    })
}

/// An entry is followed iff its backend is in that VIP's pool in the slot that decides.
#[inline(always)]
fn follows(member: &Member, arm: &Arm) -> bool {
    u32::from(member.slots) & (1 << arm.slot) != 0
        && member.pool == arm.vip.pool
        && member.state != member_state::DOWN
}

/// The backend at the flow's entry of the lookup table, or at a further one if it takes no flows.
#[inline(always)]
fn look_up(vip: &VipEntry, packet: &Packet) -> Option<(u32, &'static Member)> {
    let mut hash = hash::flow(FLEET_KEY.load(), &packet.flow);
    for _ in 0..TRIES {
        let entry = hash::entry(hash, vip.table_size);
        let chunk = TABLES.get(vip.table_start + entry / CHUNK_ENTRIES as u32)?;
        let number = chunk[entry as usize & (CHUNK_ENTRIES - 1)];
        if number != 0 {
            let id = vip.member_base + u32::from(number);
            let member = MEMBERS.get(id)?;
            if member.state == member_state::UP {
                return Some((id, member));
            }
        }
        hash = hash::finish(hash.wrapping_add(1));
    }
    None
}
