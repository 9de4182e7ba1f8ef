//! What every change is held to, kept in the kernel: limits, and the state of the velocity limit.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The one element of the policy map. Written by the guard alone, and never while a change is on
/// trial: a change cannot alter what it is held to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Policy {
    /// SHA-256 of the limits' canonical form.
    pub digest: [u8; 32],
    /// K4: share of a VIP's table up to which a change is R1, ppm.
    pub r1_ppm: u32,
    /// K4: share up to which it is R2, ppm.
    pub r2_ppm: u32,
    /// K7: longest lease and confirm deadline, ms.
    pub max_deadline_ms: u32,
    /// K6: trials that may begin at once.
    pub flips: u32,
    /// K6: time after which one more may begin, ms; 0 = no limit.
    pub flip_every_ms: u32,
    /// K10: largest share of a pool's backends that health may take out, ppm; one always.
    pub ejected_ppm: u32,
    /// K8: hard events in the new arm, from as many sources, that end a trial; 0 = off.
    pub hard_events: u32,
    /// Zero.
    pub reserved: u32,
    /// K6: boot-clock ns up to which trials are spent; the guard's own.
    pub spent_ns: u64,
}

/// Hard events of a slot since its trial began: never right, whatever the traffic is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct HardEvents {
    /// Events.
    pub events: u64,
    /// One bit of 64 for each source seen, by its hash.
    pub sources: u64,
}

const _: () = assert!(size_of::<Policy>() == 72);
const _: () = assert!(size_of::<HardEvents>() == 16);
