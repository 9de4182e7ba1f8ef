//! What the flow table knows of a packet's flow, under its VIP's flags; and what is noted there.

use lb_common::flow::{Birth, Entry};
use lb_common::packet::{Packet, Role};
use lb_common::slot::{VipEntry, vip_flag};
use lb_common::{hash, scheme};

use super::Arm;
use crate::control::View;
use crate::flows;
use crate::maps::TAG_KEY;

/// What the flow table knows of a packet's flow.
pub struct Known {
    /// Hash that it is remembered by.
    pub hash: u64,
    /// Its entry, or the empty one.
    pub entry: Entry,
    /// Whether the flow table is used at all.
    pub flows: bool,
    /// The VIP whose flags say what is remembered.
    pub vip: &'static VipEntry,
}

impl Known {
    /// Whether the flow is remembered.
    #[inline(always)]
    pub fn remembers(&self) -> bool {
        self.flows && !self.vip.has(vip_flag::STATELESS)
    }
}

/// What a VIP's flags and its pool's idle timeout make of what was found.
#[inline(always)]
pub fn recall(view: &View, packet: &Packet, known: &mut Known) {
    let vip = known.vip;
    let client = hash::flow(TAG_KEY.load(), &scheme::client(&packet.flow, vip.port));
    let flags = u32::from(vip.flags) | u32::from(vip.formerly) << 8;
    let shape = flags
        | u32::from(vip.idle) << 16
        | (view.age & 0x3f) << 24
        | u32::from(packet.role == Role::Syn) << 30
        | u32::from(known.flows) << 31;
    let own = known.hash;
    let entry = Entry(recollect(own, client, known.entry.0, shape));
    let of_client = if entry.is_empty() {
        vip.has(vip_flag::CLIENT_AFFINITY)
    } else {
        !entry.matches(own)
    };
    known.entry = entry;
    if of_client {
        known.hash = client;
    }
}

/// The entry that a flow goes by, under the VIP's flags: `own` and `client` are the hashes of the
/// flow and of its client, `entry` is what was found under the first.
///
/// A global function of numbers, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn recollect(own: u64, client: u64, entry: u64, shape: u32) -> u64 {
    let (flags, formerly, idle) = (shape as u8, (shape >> 8) as u8, shape >> 16 & 0xff);
    let (age, is_syn, flows) = (
        shape >> 24 & 0x3f,
        shape & 1 << 30 != 0,
        shape & 1 << 31 != 0,
    );
    if flags & vip_flag::STATELESS != 0 || !flows {
        return 0;
    }
    let mut entry = Entry(entry);
    if flags & vip_flag::CLIENT_AFFINITY != 0 {
        if is_syn {
            // The client's now, whatever was remembered of an earlier connection from this port.
            flows::forget(own);
        }
        // A connection from before the VIP had the flag has an entry of its own.
        if entry.is_empty() {
            entry = flows::find(client);
        }
    } else if formerly & vip_flag::CLIENT_AFFINITY != 0 && entry.is_empty() && !is_syn {
        // One from when it had the flag goes where its client went.
        entry = flows::find(client);
    }
    if idle != 0 && entry.idle(age) > idle {
        return 0;
    }
    entry.0
}

/// Notes in the flow table where a flow goes; whether it was written down anew.
#[inline(always)]
pub fn note(
    view: &View,
    packet: &Packet,
    hash: u64,
    arm: &Arm,
    known: &Known,
    (member_id, followed): (u32, bool),
) -> bool {
    // Reading stays reading: a flow's age is written once per step.
    if followed && known.entry.age() == view.age && !known.entry.is_empty() {
        return false;
    }
    let shape = packet.role as u32
        | view.change << 4
        | u32::from(known.vip.flags) << 8
        | u32::from(followed) << 24
        | u32::from(arm.new) << 25
        | u32::from(view.evidence) << 26
        | u32::from(arm.track.has_place()) << 27
        | u32::from(known.remembers()) << 28
        | u32::from(arm.track.is_passed_over()) << 29;
    // What was found is noted where it was found; what is new under what the VIP's flags say.
    let of_client = known.vip.has(vip_flag::CLIENT_AFFINITY);
    let hash = if of_client || (followed && !known.entry.is_empty()) {
        known.hash
    } else {
        hash
    };
    let meant = keep(known.entry.0, shape);
    match meant & 3 {
        TOUCH => {
            flows::touch(hash, known.entry, view.age);
            false
        }
        FORGET => {
            flows::forget(hash);
            false
        }
        INSERT => flows::insert(hash, member_id, view.age, meant >> 2) && !followed,
        _ => false,
    }
}

/// What [`keep`] says; an entry's birth is above [`INSERT`].
const TOUCH: u32 = 1;
const FORGET: u32 = 2;
const INSERT: u32 = 3;

/// What [`note`] shall do with a flow's entry, as a global function of numbers, so that the verifier
/// checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn keep(entry: u64, shape: u32) -> u32 {
    let is = |bit: u32| shape >> bit & 1 != 0;
    let role = |role: Role| shape & 0xf == role as u32;
    let (change, flags) = (shape >> 4 & 0xf, (shape >> 8) as u8);
    let (followed, new, evidence, has_place, remembers) = (is(24), is(25), is(26), is(27), is(28));
    let passed_over = is(29);
    if followed && !Entry(entry).is_empty() {
        return TOUCH;
    }
    if !remembers {
        return 0;
    }
    // While a change is unproven, a SYN that comes again must be free to go to control. A client's
    // other flows must find the first one's backend, so that is remembered at once; and so is what has
    // no record to be found by.
    let of_client = flags & vip_flag::CLIENT_AFFINITY != 0;
    if role(Role::Syn) && evidence && new && !of_client && !passed_over {
        // An earlier connection from the same port may be remembered still.
        return FORGET;
    }
    // The first packet after a handshake pins a followed flow to where its SYN went.
    let begins = (role(Role::Syn) || role(Role::Datagram)) && !followed;
    if !begins && !role(Role::Segment) {
        return 0;
    }
    // Only with evidence is control's part of a trial told from the rest.
    let birth = if new || (evidence && !passed_over) {
        Birth::in_arm(change, new)
    } else if has_place {
        Birth::WATCHED
    } else {
        Birth::SETTLED
    };
    INSERT | birth.0 << 2
}
