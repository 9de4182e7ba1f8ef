//! What the kernel programs and the agent of lbguard share: types stored in maps, and logic that
//! runs on both sides. No I/O, no clock, no allocation.
#![no_std]
// Reasons: hot-path functions must end up in one BPF program; widths are chosen and masked with
// care where bits are packed, and asserted or tested beside it.
#![allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    clippy::cast_lossless,
    clippy::similar_names
)]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod breaker;
pub mod brief;
pub mod checks;
pub mod checksum;
pub mod clock;
pub mod control;
pub mod counter;
pub mod decap;
pub mod encap;
pub mod evidence;
pub mod flow;
pub mod flow_table;
pub mod guard;
pub mod gue;
pub mod hash;
pub mod invariant;
pub mod maglev;
pub mod pace;
pub mod packet;
pub mod parse;
#[cfg(feature = "user")]
mod pod;
pub mod policy;
pub mod probe;
pub mod quic;
pub mod reset;
pub mod room;
pub mod sample;
pub mod scheme;
pub mod slot;
pub mod track;
pub mod track_table;
pub mod tunnel_error;
pub mod wire;

/// Number of the layout of maps and programs, part of the path of the pins. Raise it with every
/// change of a type in [`slot`], [`control`], [`counter`], [`flow`] or of a map's name.
pub const ABI: u32 = 5;

/// Bits of a member id.
pub const MEMBER_BITS: u32 = 18;
/// Slots there are.
pub const SLOTS: usize = 3;
/// Sets of counters: one a slot, and one for test runs.
pub const COUNTER_SETS: usize = SLOTS + 1;
/// Number of the counter set of test runs.
pub const TEST_SET: u32 = SLOTS as u32;
