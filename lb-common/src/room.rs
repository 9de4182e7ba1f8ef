//! What is counted of the flow table's room.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Shared by all CPUs; a cache line of its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowRoom {
    /// Entries, about: counted by the last complete sweep, plus what has come since.
    pub entries: u64,
    /// Lines that somebody has taken on to move, since the last change of the table's size.
    pub claimed: u64,
    /// Lines that are moved.
    pub moved: u64,
    /// Times that the table grew or shrank.
    pub changes: u64,
    /// Entries that the sweep under way has counted.
    pub counting: u64,
    /// Entries of dead backends that sweeps have taken out.
    pub purged: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// Of one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowLocal {
    /// New flows remembered.
    pub added: u64,
    /// Of these, those that took another one's place, for want of room.
    pub evicted: u64,
    /// New flows not remembered because of a flood.
    pub refused: u64,
    /// Seconds in which flows were refused.
    pub floods: u64,
    /// Jiffies at which the second under way ends.
    pub second_ends: u64,
    /// New flows in it, in whole batches.
    pub in_second: u64,
    /// Jiffies until which unknown flows are refused; 0 = none are.
    pub flooded_until: u64,
    /// Zero.
    pub reserved: u64,
}

impl FlowLocal {
    /// The sums, as over CPUs; of what is no count nothing.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            added: self.added.wrapping_add(other.added),
            evicted: self.evicted.wrapping_add(other.evicted),
            refused: self.refused.wrapping_add(other.refused),
            floods: self.floods.wrapping_add(other.floods),
            second_ends: 0,
            in_second: 0,
            flooded_until: if self.flooded_until > other.flooded_until {
                self.flooded_until
            } else {
                other.flooded_until
            },
            reserved: 0,
        }
    }
}

const _: () = assert!(size_of::<FlowRoom>() == 64);
const _: () = assert!(size_of::<FlowLocal>() == 64);
