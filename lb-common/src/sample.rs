//! Samples of packets that did not get through: the first bytes of each, in a ring that user space
//! reads.
//!
//! A plain array instead of the kernel's ring buffer: that one's reader has to write its position,
//! and no map of ours can be written from outside.

use crate::counter::{Reason, Verdict};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Samples that are kept, a power of two.
pub const SAMPLES: u32 = 1024;
/// Bytes that are kept of a packet: Ethernet, two IPv6 headers, TCP with options.
pub const SAMPLE_BYTES: usize = 160;
/// Samples that one CPU takes in [`SAMPLE_JIFFIES`]: a flood of drops costs one load each.
pub const SAMPLES_PER_CPU: u64 = 64;
/// Jiffies after which a CPU may take as many again, a power of two: 0.26 to 2.6 s.
pub const SAMPLE_JIFFIES: u64 = 256;

/// A packet, as it was when it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sample {
    /// Counts up from 1; 0 while the place is written.
    pub number: u64,
    /// Boot-clock ns.
    pub at_ns: u64,
    /// Bytes of the frame, of which [`SAMPLE_BYTES`] are kept at most.
    pub length: u32,
    /// See [`crate::counter::Reason`].
    pub reason: u16,
    /// Slot that decided.
    pub slot: u8,
    /// Zero.
    pub reserved: [u8; 9],
    /// The frame's first bytes.
    pub bytes: [u8; SAMPLE_BYTES],
}

impl Sample {
    /// What was kept of the frame.
    pub fn kept(&self) -> &[u8] {
        let kept = (self.length as usize).min(SAMPLE_BYTES);
        self.bytes.get(..kept).unwrap_or_default()
    }
}

/// Whether a packet that ended so is kept: it was dropped, answered because it does not fit, or for a
/// VIP that the new arm lacks.
#[inline(always)]
pub const fn is_sampled(reason: Reason) -> bool {
    matches!(reason.verdict(), Verdict::Drop)
        || matches!(reason, Reason::TooBig | Reason::Tombstone)
}

/// Place of a sample in the ring.
#[inline(always)]
pub const fn place(number: u64) -> u32 {
    number as u32 & (SAMPLES - 1)
}

const _: () = assert!(SAMPLES.is_power_of_two() && SAMPLE_JIFFIES.is_power_of_two());
const _: () = assert!(size_of::<Sample>() == 192);
