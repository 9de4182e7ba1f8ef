//! What a slot consists of, as it lies in the maps.
//!
//! A slot is a region of flat maps: its header, its VIP table and its address filter. Pools,
//! members and lookup tables are numbered over all slots: a member belongs to a slot iff the
//! slot's bit is set in it, and an unchanged lookup table is shared by the slots that use it.

use crate::SLOTS;
use crate::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of the address filter of one slot.
pub const FILTER_BITS: u32 = 16_384;
/// 64-bit words of the address filter of one slot.
pub const FILTER_WORDS: u32 = FILTER_BITS / 64;
/// Places of the VIP table that are looked at for one key.
pub const VIP_PROBES: u32 = 8;
/// Entries in one element of a lookup table.
pub const CHUNK_ENTRIES: usize = 32;
/// One element of a lookup table: entries are backend numbers relative to their pool, 0 = none.
pub type Chunk = [u16; CHUNK_ENTRIES];
/// Bytes of a name, padded with zeros.
pub const NAME_LEN: usize = 64;
/// A name as stored in the kernel.
pub type Name = [u8; NAME_LEN];

/// States of [`SlotHeader::state`].
pub mod slot_state {
    /// Free.
    pub const EMPTY: u32 = 0;
    /// Being cleared and written.
    pub const STAGING: u32 = 1;
    /// Sealed: never written again until it is free.
    pub const SEALED: u32 = 2;
}

/// Head of a slot.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotHeader {
    /// Generation in this slot.
    pub generation: u64,
    /// Generation of ACTIVE when this was staged, with which it was compared.
    pub base: u64,
    /// SHA-256 of the configuration's canonical form.
    pub digest: [u8; 32],
    /// Boot-clock ns at which it was sealed.
    pub sealed_ns: u64,
    /// See [`slot_state`].
    pub state: u32,
    /// Places of the VIP table already cleared.
    pub cleared_vips: u32,
    /// Members whose bit for this slot is already cleared.
    pub cleared_members: u32,
    /// VIP entries written (kind [`vip_kind::VIP`]).
    pub vips: u32,
    /// VIP entries compared with ACTIVE.
    pub vips_sealed: u32,
    /// Pools written.
    pub pools: u32,
    /// Pools walked.
    pub pools_sealed: u32,
    /// Members written.
    pub members: u32,
    /// VIPs that this slot has and ACTIVE lacks.
    pub vips_added: u32,
    /// VIPs that ACTIVE has and this slot lacks.
    pub vips_removed: u32,
    /// VIPs of which entries move or properties change.
    pub vips_changed: u32,
    /// VIPs whose forwarding mode changes.
    pub encap_changed: u32,
    /// Largest share of one VIP's table that moves, in parts per million.
    pub moved_ppm: u32,
    /// Class the guard computed at seal: 0 to 3.
    pub class: u32,
}

/// Kinds of [`VipEntry::kind`].
pub mod vip_kind {
    /// No entry.
    pub const EMPTY: u8 = 0;
    /// A VIP.
    pub const VIP: u8 = 1;
    /// An address that some VIP has: for echo requests and fragments.
    pub const ADDRESS: u8 = 2;
}

/// One place of a slot's VIP table: all that choosing a backend needs, in one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct VipEntry {
    /// Address.
    pub address: Address,
    /// Port in network order as loaded, 0 = any; 0 for kind ADDRESS.
    pub port: u16,
    /// IANA protocol number; 0 for kind ADDRESS.
    pub protocol: u8,
    /// See [`vip_kind`].
    pub kind: u8,
    /// Number that follows the VIP's name over generations.
    pub vip: u16,
    /// Number that follows the pool's name over generations.
    pub pool: u16,
    /// First element of the lookup table.
    pub table_start: u32,
    /// Entries of the lookup table.
    pub table_size: u32,
    /// Member id of the pool's backend number 0 (which does not exist).
    pub member_base: u32,
    /// Lookup table id.
    pub table: u32,
    /// Seal stamp: parts per million of the table that move against ACTIVE, plus 1; 2 at least if the VIP is
    /// brand-new or gets the flows of one that is gone; 0 = not sealed.
    pub sealed_ppm: u32,
    /// See [`forward_mode`].
    pub forward: u8,
    /// See [`vip_flag`].
    pub flags: u8,
    /// Flags that the VIP had in ACTIVE when the slot was sealed: flows from then may still be
    /// remembered under the key that these give them.
    pub formerly: u8,
    /// Steps of the flow table's age after which a flow counts as forgotten; 0 = never.
    pub idle: u8,
    /// See [`on_dead`].
    pub on_dead: u8,
    /// Bytes of the server id in a QUIC-LB connection id; 0 = ids say themselves how they are made.
    pub quic_bytes: u8,
    /// Largest IP packet towards the backends, outer header included; 0 = the next hop's.
    pub mtu: u16,
    /// First line of the index of QUIC server ids.
    pub ids_start: u32,
    /// Lines of it; 0 = none.
    pub ids_lines: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`VipEntry::flags`].
pub mod vip_flag {
    /// All flows of a client are one, whatever their ports.
    pub const CLIENT_AFFINITY: u8 = 1;
    /// The flow table is neither read nor written.
    pub const STATELESS: u8 = 2;
    /// The entry of the lookup table is chosen by the destination port alone.
    pub const HASH_DPORT: u8 = 4;
    /// Packets follow the server id in their QUIC connection id.
    pub const QUIC: u8 = 8;
}

/// What becomes of the flows of a backend that is down.
pub mod on_dead {
    /// They go to another backend.
    pub const MOVE: u8 = 0;
    /// They stay.
    pub const KEEP: u8 = 1;
    /// TCP clients get a reset; other flows go to another backend.
    pub const RESET: u8 = 2;
}

impl VipEntry {
    /// Whether every flow is remembered by itself, for as long as there is room.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        (self.flags | self.formerly | self.idle) == 0
    }

    /// Whether this is a plain VIP with exactly this key: the same as comparing field by field, in a
    /// third of the instructions.
    #[inline(always)]
    pub fn is_plain_vip(&self, address: &Address, port: u16, protocol: u8) -> bool {
        const MODES: u32 = u32::from_ne_bytes([0, 0xff, 0xff, 0xff]);
        let words: [u64; 8] = zerocopy::transmute!(*self);
        let [key, _numbers]: [u32; 2] = zerocopy::transmute!(words[2]);
        let [_sealed, modes]: [u32; 2] = zerocopy::transmute!(words[5]);
        let wanted: [u64; 2] = zerocopy::transmute!(address.words());
        let [low, high] = port.to_ne_bytes();
        words[0] == wanted[0]
            && words[1] == wanted[1]
            && key == u32::from_ne_bytes([low, high, protocol, vip_kind::VIP])
            && modes & MODES == 0
    }

    /// Whether it has a flag.
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Forwarding modes.
pub mod forward_mode {
    /// By MAC address (direct server return).
    pub const L2: u8 = 1;
    /// IP in IP, outer family as the backend's address.
    pub const IPIP: u8 = 2;
    /// IP in UDP: generic UDP encapsulation, variant 1.
    pub const GUE: u8 = 3;
}

/// A pool in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PoolEntry {
    /// Member id of backend number 0 (which does not exist).
    pub member_base: u32,
    /// Backend numbers are 1 to this.
    pub member_limit: u32,
    /// Lookup table id.
    pub table: u32,
    /// Members in this slot, as announced by the agent and checked at seal.
    pub members: u32,
    /// Backends that must have an entry at least.
    pub min_backends: u32,
    /// Largest share of the table that one backend may have, in parts per million.
    pub max_share_ppm: u32,
    /// Generation of the slot that this entry was written for.
    pub generation: u64,
    /// See [`forward_mode`].
    pub forward: u8,
    /// 1 = IPv4 VIPs use this pool, or used it when it was last walked.
    pub serves_v4: u8,
    /// The same for IPv6 VIPs.
    pub serves_v6: u8,
    /// See [`pool_seal`].
    pub sealed: u8,
    /// Last comparison: table of ACTIVE.
    pub compared_with: u32,
    /// Last comparison: entries that differ.
    pub compared_moved: u32,
    /// See [`on_dead`].
    pub on_dead: u8,
    /// See [`VipEntry::idle`].
    pub idle: u8,
    /// See [`VipEntry::mtu`].
    pub mtu: u16,
    /// Table that indexes QUIC server ids; 0 = none.
    pub ids_table: u32,
    /// See [`VipEntry::quic_bytes`].
    pub quic_bytes: u8,
    /// Zero.
    pub reserved: [u8; 11],
}

/// What is known of a pool, [`PoolEntry::sealed`].
pub mod pool_seal {
    /// Nothing yet: it may be written.
    pub const OPEN: u8 = 0;
    /// Walked and found sane.
    pub const WALKED: u8 = 1;
    /// Taken over from ACTIVE, where it was found sane.
    pub const KEPT: u8 = 2;
}

/// States of a member, [`Member::state`].
pub mod member_state {
    /// Takes flows.
    pub const UP: u8 = 0;
    /// Takes no new flows; those it has stay.
    pub const DRAIN: u8 = 1;
    /// Health or next hop is bad: takes no new flows.
    pub const DOWN: u8 = 2;

    /// The state of a member that is held back by these causes: one that is dead keeps no flows, even
    /// while it drains.
    #[inline(always)]
    pub const fn of(holds: u8) -> u8 {
        if holds & (super::hold::NEXT_HOP | super::hold::HEALTH) != 0 {
            DOWN
        } else if holds & super::hold::OPERATOR != 0 {
            DRAIN
        } else {
            UP
        }
    }

    /// What holds a member back that is to be staged and of which only the state is told: it is down
    /// for want of a next hop.
    #[inline(always)]
    pub const fn held_without_hop(state: u8) -> u8 {
        if state == DOWN {
            super::hold::NEXT_HOP
        } else {
            held(state)
        }
    }

    /// What holds a member back of which only the state is told.
    #[inline(always)]
    pub const fn held(state: u8) -> u8 {
        match state {
            UP => 0,
            DRAIN => super::hold::OPERATOR,
            _ => super::hold::HEALTH,
        }
    }
}

/// What holds a member back, bits of [`Member::holds`]. Each cause has a bit of its own, so that who
/// lets go of one does not undo another's word.
pub mod hold {
    /// It was staged without a next hop.
    pub const NEXT_HOP: u8 = 1;
    /// Its health checks fail.
    pub const HEALTH: u8 = 2;
    /// An operator drains it.
    pub const OPERATOR: u8 = 4;
    /// All of them.
    pub const ALL: u8 = NEXT_HOP | HEALTH | OPERATOR;
}

/// A backend of a pool. Its identity never changes while a slot has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Member {
    /// Address of the backend.
    pub address: Address,
    /// Hash of name, address and mode: what makes it the same backend.
    pub identity: u64,
    /// Weight in each slot that has this member; for read-outs only.
    pub weights: [u32; SLOTS],
    /// Pool.
    pub pool: u16,
    /// Next hop, index into the next-hop table; 0 = none. Overlay: not in the digest.
    pub next_hop: u16,
    /// Bit per slot that has this member.
    pub slots: u8,
    /// Bits per slot in which its configured state is drain.
    pub drains: u8,
    /// See [`member_state`]. Overlay: not in the digest, the same for all slots.
    pub state: u8,
    /// See [`forward_mode`].
    pub forward: u8,
    /// Sweeps of the flow table that were complete when the last slot let go of it.
    pub left_at: u32,
    /// See [`hold`]; `state` follows from it. Overlay.
    pub holds: u8,
    /// Parts of 256 of new flows that it does not take: slow start. Overlay.
    pub withheld: u8,
    /// Zero.
    pub reserved: [u8; 14],
}

impl Member {
    /// Whether it takes the new flow with this hash. The entry is chosen by the high half of the hash,
    /// so the low byte is a draw of its own; a share that grows takes no flow away again.
    #[inline(always)]
    pub const fn takes(&self, hash: u64) -> bool {
        self.state == member_state::UP && (hash & 0xff) as u8 >= self.withheld
    }

    /// Whether it may take a new flow if nobody else does: slow to start, or draining.
    #[inline(always)]
    pub const fn spare(&self) -> bool {
        self.state != member_state::DOWN
    }
}

/// States of [`TableHeader::state`].
pub mod table_state {
    /// Free.
    pub const FREE: u32 = 0;
    /// Being written.
    pub const OPEN: u32 = 1;
    /// Sealed: never written again until it is free.
    pub const SEALED: u32 = 2;
}

/// A lookup table: where it lies and who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TableHeader {
    /// First element.
    pub start: u32,
    /// Elements.
    pub chunks: u32,
    /// Entries.
    pub size: u32,
    /// See [`table_state`].
    pub state: u32,
    /// Largest entry, set at seal.
    pub largest: u32,
    /// Pool whose backend numbers the entries are.
    pub pool: u16,
    /// Bit per slot that uses it.
    pub slots: u16,
    /// Checksum over the entries, set at seal.
    pub checksum: u64,
}

/// Flags of [`NextHop::flags`].
pub mod next_hop_flag {
    /// The MAC address is known.
    pub const RESOLVED: u16 = 1;
}

/// A next hop. Overlay: not in the digest, the same for all slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextHop {
    /// Destination MAC address. With `flags` one 8-byte word, stored at once, so that no packet
    /// goes out with half of a new address.
    pub destination: [u8; 6],
    /// See [`next_hop_flag`].
    pub flags: u16,
    /// Source MAC address: that of the interface. With `mtu` one word.
    pub source: [u8; 6],
    /// Largest IP packet, outer header included.
    pub mtu: u16,
    /// Interface index.
    pub interface: u32,
    /// Boot-clock seconds of the last confirmation, for read-outs.
    pub confirmed_s: u32,
    /// VLAN that frames to it are tagged with (802.1Q), 1 to 4094; 0 = none. What a frame had when it came
    /// does not matter.
    pub vlan: u16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// What the object was loaded with: keys and sizes. Written once, so that whoever comes later, with
/// the pins alone, can read the maps and load a newer object beside them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Node {
    /// Key of the hash that tags flows, places VIPs and chooses arms; drawn at load.
    pub tag_key: u64,
    /// Key of the hash that picks entries: the fleet's seed.
    pub fleet_key: u64,
    /// Token that marks a test run; drawn at load.
    pub probe_token: u64,
    /// Places of a slot's VIP table, a power of two.
    pub vip_places: u32,
    /// VIP numbers.
    pub vips: u32,
    /// Pool numbers.
    pub pools: u32,
    /// Member ids.
    pub members: u32,
    /// Lookup tables.
    pub tables: u32,
    /// Elements of lookup tables.
    pub chunks: u32,
    /// Next hops.
    pub next_hops: u32,
    /// Lines of the flow table, a power of two.
    pub flow_lines: u32,
    /// Outer IPv4 source, network order as loaded.
    pub source_v4: u32,
    /// Bits of it that entropy fills.
    pub source_v4_mask: u32,
    /// Outer IPv6 source, network order as loaded.
    pub source_v6: [u32; 4],
    /// Bits of its last word that entropy fills.
    pub source_v6_mask: u32,
    /// New flows a second and CPU that are remembered when the flow table is full; 0 = all.
    pub flood_rate: u32,
}

const _: () = assert!(size_of::<Node>() == 88);
const _: () = assert!(size_of::<SlotHeader>() == 112);
const _: () = assert!(size_of::<VipEntry>() == 64);
const _: () = assert!(core::mem::offset_of!(VipEntry, port) == 16);
const _: () = assert!(core::mem::offset_of!(VipEntry, kind) == 19);
const _: () = assert!(core::mem::offset_of!(VipEntry, forward) == 44);
const _: () = assert!(core::mem::offset_of!(VipEntry, idle) == 47);
const _: () = assert!(size_of::<PoolEntry>() == 64);
const _: () = assert!(size_of::<Member>() == 64);
const _: () = assert!(size_of::<TableHeader>() == 32);
const _: () = assert!(size_of::<NextHop>() == 32);
const _: () = assert!(size_of::<Chunk>() == 64);

/// Elements that a table of `size` entries takes.
pub const fn chunks(size: u32) -> u32 {
    size.div_ceil(CHUNK_ENTRIES as u32)
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
