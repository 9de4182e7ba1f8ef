//! Test runs of the load balancer: which slot shall decide, and what it decided.
//!
//! The metadata area before a packet (`xdp_md.data_meta`) carries a [`Probe`]. It is honoured only
//! with the random token drawn at load, which no network interface can produce, and its counters
//! go to a set of their own. The program writes its decision back into it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Probe::flags`].
pub mod probe_flag {
    /// [`super::Probe::slot`] decides, instead of the control word.
    pub const OVERRIDE_SLOT: u8 = 1;
    /// Flows are neither looked up nor remembered.
    pub const NO_FLOWS: u8 = 2;
}

/// What a test run asks and learns. 32 bytes: the most that older kernels allow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Probe {
    /// Must be the token drawn at load.
    pub token: u64,
    /// Slot that shall decide.
    pub slot: u8,
    /// See [`probe_flag`].
    pub flags: u8,
    /// Answer: see [`crate::counter::Reason`].
    pub reason: u16,
    /// Answer: VIP number plus 1; 0 = no VIP.
    pub vip: u32,
    /// Answer: member id; 0 = none.
    pub member: u32,
    /// Answer: slot that decided.
    pub decided_by: u8,
    /// Answer: 1 if an entry of the flow table was followed.
    pub followed: u8,
    /// Zero.
    pub reserved: u16,
    /// Zero.
    pub reserved_too: u64,
}

const _: () = assert!(size_of::<Probe>() == 32);
