//! Which backend an entry of the flow table, a server id or the lookup table names, and whether it may
//! have packets.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::flow::ORPHAN;
use lb_common::packet::{Packet, Role};
use lb_common::slot::{CHUNK_ENTRIES, VipEntry, member_state, on_dead, vip_flag};
use lb_common::wire::UDP_LEN;
use lb_common::{hash, quic, scheme};

use crate::maps::{FLEET_KEY, MEMBERS, TABLES};
use crate::packet::XdpFrame;

/// Positions of the table that are tried for a backend that takes flows. With half of them down (the
/// most that health may take out) one flow in 65,536 finds none; with 4 it would be one in 16.
const TRIES: u64 = 16;

/// The entry is followed.
pub const STANDS: u32 = 1;
/// The flow is reset.
pub const RESETS: u32 = 2;

/// Whether an entry is followed: iff its backend is in that VIP's pool in the slot that decides, and
/// up, or its pool keeps the flows of those that are down. `shape` is that slot, whether the packet
/// is a segment, the policy, the pool. An orphan ([`ORPHAN`]) has no backend any more.
///
/// A global function of numbers, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn standing(member: u32, shape: u32) -> u32 {
    let (policy, is_segment) = ((shape >> 8) as u8, shape & 1 << 4 != 0);
    let resets = policy == on_dead::RESET && is_segment;
    if member == ORPHAN {
        return if resets { RESETS } else { 0 };
    }
    let Some(member) = MEMBERS.get(member).filter(|_| member != 0) else {
        return 0;
    };
    let here = u32::from(member.slots) >> (shape & 3) & 1 != 0;
    if !here || u32::from(member.pool) != shape >> 16 {
        return 0;
    }
    if member.state != member_state::DOWN || policy == on_dead::KEEP {
        STANDS
    } else if resets {
        RESETS
    } else {
        0
    }
}

/// The backend at the flow's entry of the lookup table, or at a further one if it takes no flows; 0
/// if there is none.
#[inline(always)]
pub fn look_up(vip: &VipEntry, packet: &Packet) -> u32 {
    let key = scheme::placed(&packet.flow, vip.flags, vip.port);
    let hash = hash::flow(FLEET_KEY.load(), &key);
    try_places(hash, vip.table_start, vip.table_size, vip.member_base)
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

/// What a datagram for a QUIC VIP says.
#[inline(always)]
pub fn quic_look(ctx: &XdpContext, packet: &Packet, vip: &VipEntry) -> quic::Seen {
    if !vip.has(vip_flag::QUIC) || packet.role != Role::Datagram {
        return quic::Seen::NONE;
    }
    let end = packet.ip_offset.wrapping_add(packet.ip_length);
    let shape = u32::from(packet.payload_offset) << 16 | u32::from(end);
    quic::Seen(look_at(ctx.ctx, shape, vip.quic_bytes.into()))
}

/// [`quic_look`], as a global function.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn look_at(ctx: *mut xdp_md, shape: u32, id_bytes: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let offset = (shape >> 16) as usize + UDP_LEN;
    let end = shape as usize & 0xffff;
    quic::look(&XdpFrame::new(&ctx), offset, end, id_bytes as u8).0
}

/// Member id of the pool's backend with this server id, if it can have packets; 0 if there is none. The
/// index, the pool's first member, and the shape of [`standing`].
///
/// A global function of numbers, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn server_of(id: u32, start: u32, lines: u32, base: u32, shape: u32) -> u32 {
    if lines == 0 {
        return 0;
    }
    let Some(line) = TABLES.get(start.wrapping_add(quic::line(id, lines))) else {
        return 0;
    };
    let number = u32::from(quic::find(line, id));
    let member = base.wrapping_add(number);
    if number != 0 && standing(member, shape) == STANDS {
        member
    } else {
        0
    }
}
