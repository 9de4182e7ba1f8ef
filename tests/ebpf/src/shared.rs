//! What the programs of the benchmarks and whoever drives them agree on; both sides include this file.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words of a frame that are written anew for each packet: the headers of both families lie in them.
pub const HEADER_WORDS: usize = 12;
/// Of these, the ones that an IPv4 frame has.
pub const HEADER_WORDS_V4: usize = 8;
/// Flow numbers from here on are of flows that begin during a mix.
pub const YOUNG: u32 = 1 << 30;
/// How many flows after one of its packets a young flow's next one comes.
pub const LAG: u32 = 64;

/// The packets that are made, of one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Traffic {
    /// Start of the frame of flow 0 with sender's port 0, its checksums right.
    pub plain: [u64; HEADER_WORDS],
    /// The same as a SYN: of flows that begin during a mix.
    pub syn: [u64; HEADER_WORDS],
    /// And as a FIN, which ends them.
    pub fin: [u64; HEADER_WORDS],
    /// Bytes of a frame.
    pub length: u32,
    /// 1 if it is IPv6.
    pub is_v6: u32,
    /// Where the checksum of TCP or UDP lies.
    pub checksum_at: u32,
    /// Flows, a power of two, less one.
    pub mask: u32,
    /// The step from flow to flow, odd; 1 = in order.
    pub stride: u32,
    /// Packets made.
    pub next: u32,
    /// VIPs, a power of two, less one: a flow's goes by its number.
    pub vip_mask: u32,
    /// A mix has one SYN in this many packets; 0 = no mix.
    pub every: u32,
    /// And so many packets of flows that have begun lately, the last of which is their FIN.
    pub more: u32,
    /// Packets since the last SYN.
    pub phase: u32,
    /// The number of the next flow that begins.
    pub young: u32,
    /// Number of the first flow: no bit of [`Traffic::mask`].
    pub first: u32,
}

/// Key of the floors' VIPs, as bytes are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct VipKey {
    /// Address.
    pub address: [u8; 4],
    /// Port.
    pub port: [u8; 2],
    /// Protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// What a sink tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Seen {
    /// IP in IP.
    Tunnel = 0,
    /// TCP or UDP as it is.
    Plain = 1,
    /// What was not sent by a benchmark: goes on to the stack.
    Other = 2,
}

/// Kinds of [`Seen`].
pub const SEEN_KINDS: usize = 3;

/// Entries of the floors' lookup table.
pub const RING: u32 = 65_537;
/// Places of the floors' backends.
pub const REALS: u32 = 4_096;
/// Flows that the floors' table of flows holds; the loader may make it smaller.
pub const FLOWS: usize = 4_000_000;

/// Where the floors send: source and destination MAC address of a frame.
pub const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
/// Next hop.
pub const HOP: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// Source of the floors' outer header.
pub const SOURCE: [u8; 4] = [172, 16, 0, 1];
