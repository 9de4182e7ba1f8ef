//! Where a packet of the short way goes: by which slot, to which backend, and what a trial has to do
//! with it.

use lb_common::brief::Brief;
use lb_common::flow::Entry;
use lb_common::flow_table::Shape;
use lb_common::hash;
use lb_common::pace::Counted;
use lb_common::packet::FlowKey;
use lb_common::slot::{Member, VipEntry, member_state};

use super::{Part, Plain};
use crate::control::{self, jiffies};
use crate::maps::{CONTROL, FLEET_KEY, MEMBERS};
use crate::tracks::{self, Begun};
use crate::{backends, maps, vips};

/// The committed state of this moment, as far as it takes no clock to know.
#[derive(Clone, Copy)]
pub struct Now {
    /// The current record, in short.
    pub brief: Brief,
    /// Which part of the flow table is in use.
    pub shape: Shape,
    /// Age counter of the flow table.
    pub age: u32,
}

/// The state of this moment; `None` if the guard has not started, or its timer is silent.
#[inline(always)]
pub fn now() -> Option<Now> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: the element lives as long as the program; each field is one aligned word, read once.
    let (stale_after, now) = unsafe {
        (
            (&raw const (*control).stale_after).read_volatile(),
            Now {
                brief: Brief((&raw const (*control).brief).read_volatile()),
                shape: Shape((&raw const (*control).shape).read_volatile()),
                age: (&raw const (*control).age).read_volatile(),
            },
        )
    };
    (now.brief.is_started() && jiffies() <= stale_after).then_some(now)
}

/// Where a packet goes, and what a trial has to do with it.
pub struct Course {
    /// Slot that decides.
    pub slot: u32,
    /// The VIP in that slot.
    pub vip: &'static VipEntry,
    /// Member id.
    pub id: u32,
    /// The backend.
    pub member: &'static Member,
    /// Whether the flow may have a record.
    pub followed: bool,
    /// Of a SYN of the trial.
    pub begun: Begun,
    /// The VIP for which it counts.
    pub counted: Counted,
}

/// The course of a packet; `vip` is ACTIVE's, `known` what is remembered of its flow.
#[inline(always)]
pub fn course(
    now: &Now,
    packet: &Plain,
    vip: &'static VipEntry,
    hash: u64,
    address: u64,
    known: Entry,
) -> Option<Course> {
    let active = now.brief.active();
    let (mut slot, mut followed, mut begun) = (active, false, Begun::NONE);
    let mut counted = Counted::alone(vip.vip);
    let mut vip = vip;
    if packet.part == Part::Begins {
        if now.brief.examines(hash) {
            if !now.brief.is_judged() {
                return None;
            }
            let shadow = now.brief.shadow();
            let there = self::vip(shadow, &packet.flow, address);
            counted = match there {
                Some(there) => Counted::by(there),
                None => vips::counted(shadow, &packet.flow, vip.vip),
            };
            let enters = tracks::enters(now.brief.stage().into(), true);
            begun = if tracks::is_left_alone(counted, now.brief.is_paced(), enters) {
                Begun::LEFT_ALONE
            } else {
                Begun(tracks::decided_syn(hash, now.brief.0, counted.0))
            };
            if !begun.is_some() {
                return None;
            }
            if begun.is_new() {
                (slot, vip) = (shadow, there?);
            }
        }
    } else if !now.brief.settles(known.birth()) {
        let lives = !now.brief.on_trial() || control::outlives();
        let side = now.brief.side(known.birth(), lives)?;
        (slot, followed) = (side.slot, side.followed);
        if slot != active {
            vip = self::vip(slot, &packet.flow, address)?;
        }
    }
    let id = if packet.part == Part::Begins {
        let place = hash::flow(FLEET_KEY.load(), &packet.flow);
        backends::try_places(place, vip.table_start, vip.table_size, vip.member_base)
    } else {
        known.member()
    };
    let member = MEMBERS.get(id)?;
    (id != 0 && takes(member, slot, vip)).then_some(Course {
        slot,
        vip,
        id,
        member,
        followed,
        begun,
        counted,
    })
}

/// The VIP of a flow, if it is where it is looked for first and has no flags; `address` is the hash of
/// the flow's destination.
#[inline(always)]
pub fn vip(slot: u32, flow: &FlowKey, address: u64) -> Option<&'static VipEntry> {
    let place = hash::of_port(address, flow.destination_port, flow.protocol);
    let entry = maps::vip(slot, place as u32)?;
    let same = entry.is_plain_vip(&flow.destination, flow.destination_port, flow.protocol);
    same.then_some(entry)
}

/// Whether a backend is in that VIP's pool in the slot that decides, and up.
#[inline(always)]
fn takes(member: &Member, slot: u32, vip: &VipEntry) -> bool {
    u32::from(member.slots) & (1 << slot) != 0
        && member.pool == vip.pool
        && member.state != member_state::DOWN
}
