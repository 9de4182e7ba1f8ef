//! The control word and the records it points at: which slot decides, and what may still change.
//!
//! [`Control::word`] numbers the current [`ControlRecord`]; the record lies at that number modulo
//! [`RECORDS`]. Records are written whole and then published by one store of the word, so a packet
//! reads one consistent state and a reader can tell that its record was reused meanwhile: the
//! record's own number would differ.

use crate::clock::Ticks;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Records in the ring.
pub const RECORDS: usize = 64;
/// Between changes one of 2^this new flows is followed at least, if any is.
pub const MOST_SAMPLING: u32 = 15;
/// Step number of flows that are followed between changes: no trial has it.
pub const WATCH_STAGE: u32 = 0xff;
/// The share that sends every new flow to SHADOW.
pub const SHARE_ALL: u32 = 1 << 16;
/// "No slot", in the slot fields of [`ControlRecord`].
pub const NO_SLOT: u8 = 0xff;

/// The one element of the control map.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Number of the current record; 0 before the guard's `Start`.
    pub word: u64,
    /// Age counter of the flow table, kept by the timer.
    pub age: u32,
    /// 1 while the guard or the timer changes something. Taken by exchange, never waited for.
    pub lock: u32,
    /// Jiffies after which the timer counts as dead and the packet path starts it again.
    pub stale_after: u64,
    /// What the short way goes by, see [`crate::brief::Brief`].
    pub brief: u64,
    /// Which part of the flow table is in use, see [`crate::flow_table::Shape`].
    pub shape: u64,
    /// The time of flows that are followed.
    pub clock: Ticks,
    /// [`ControlRecord::trial_due_ns`], published after `brief`.
    pub trial_due_ns: u64,
    // The first cache line ends here; packets read no more.
    /// Boot-clock ns of the timer's last tick.
    pub ticked_ns: u64,
    /// Jiffies in 0.3 s.
    pub patience: u64,
    /// Ticks of the timer.
    pub ticks: u64,
    /// Times that the packet path or the guard started the timer again.
    pub restarts: u64,
    /// Boot-clock ns of the first `Start`.
    pub started_ns: u64,
    /// Sweeps of the flow table that are complete.
    pub sweeps: u32,
    /// Bucket that the next sweep command begins with.
    pub sweep_place: u32,
    /// First 8 bytes of the SHA-256 of the BPF object whose programs are pinned; 0 = unknown.
    pub object: u64,
    /// Zero.
    pub reserved: [u64; 1],
}

/// Bits of [`ControlRecord::flags`].
pub mod control_flag {
    /// SHADOW is on trial.
    pub const TRIAL: u32 = 1;
    /// Forward flips are refused (K9).
    pub const FROZEN: u32 = 2;
    /// Flows of the trial are followed and counted.
    pub const EVIDENCE: u32 = 8;
    /// The breaker has ended a trial, and nobody has acknowledged it yet (K8).
    pub const LATCHED: u32 = 4;
    /// Between changes, some new flows are followed and counted.
    pub const WATCH: u32 = 16;
}

/// Why the last trial or generation ended, [`ControlRecord::cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cause {
    /// Nothing has ended yet.
    None = 0,
    /// Confirmed and committed.
    Confirmed = 1,
    /// Not confirmed before the deadline.
    Deadline = 2,
    /// The agent did not renew its lease.
    Lease = 3,
    /// Somebody asked for it.
    Revert = 4,
    /// The agent's own judgement.
    Agent = 5,
    /// The kernel's breaker.
    Breaker = 6,
}

impl Cause {
    /// From [`ControlRecord::cause`].
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Confirmed,
            2 => Self::Deadline,
            3 => Self::Lease,
            4 => Self::Revert,
            5 => Self::Agent,
            6 => Self::Breaker,
            _ => Self::None,
        }
    }

    /// One word, as in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Confirmed => "confirmed",
            Self::Deadline => "deadline",
            Self::Lease => "lease",
            Self::Revert => "revert",
            Self::Agent => "agent",
            Self::Breaker => "breaker",
        }
    }
}

/// What the packet path goes by, and what the guard remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControlRecord {
    /// Number of this record; differs from the control word iff it has been reused.
    pub number: u64,
    /// Committed slot.
    pub active: u8,
    /// Last known good slot, or [`NO_SLOT`].
    pub lkg: u8,
    /// Slot being prepared or on trial, or [`NO_SLOT`].
    pub shadow: u8,
    /// Short id of the change on trial, 1 to [`crate::flow::MAX_CHANGE`].
    pub change: u8,
    /// See [`control_flag`].
    pub flags: u32,
    /// New arm's share of new flows, of [`SHARE_ALL`].
    pub share: u32,
    /// See [`Cause`].
    pub cause: u32,
    /// Salt of the arms.
    pub salt: u64,
    /// Boot-clock ns at which the lease runs out; 0 = not armed.
    pub lease_ns: u64,
    /// Boot-clock ns of the confirm deadline; 0 = not armed.
    pub deadline_ns: u64,
    /// Generation in ACTIVE.
    pub active_generation: u64,
    // The first 64 bytes are all that the packet path reads.
    /// Generation in LKG; 0 if none.
    pub lkg_generation: u64,
    /// Generation in SHADOW; 0 if none.
    pub shadow_generation: u64,
    /// Highest generation ever sealed.
    pub highest_generation: u64,
    /// Session of the agent whose commands are taken.
    pub session: u64,
    /// Boot-clock ns of the last end of a trial, commit or revert.
    pub ended_ns: u64,
    /// Generation that the last end was about.
    pub ended_generation: u64,
    /// User id that asked for the last end, or `u32::MAX` for the kernel.
    pub ended_by: u32,
    /// 1 = the trial's plan names VIPs that are removed: packets for them are no surprise.
    pub removes: u32,
    /// Step of the trial, from 0 on; each has a share of its own.
    pub stage: u32,
    /// Time in which a handshake has to be complete, ms.
    pub within_ms: u16,
    /// How many of a VIP's new flows the trial follows, see [`crate::pace`].
    pub pace: u16,
    /// Number of the VIP that the breaker's sums were about, plus 1; 0 = hard events.
    pub tripped_vip: u32,
    /// With [`control_flag::WATCH`]: one of 2^n new flows is followed, in the upper half; time in
    /// which a handshake has to be complete, ms, in the lower.
    pub watch: u32,
}

impl ControlRecord {
    /// Whether SHADOW gets new flows at boot-clock time `now`: on trial, and no deadman is due.
    #[inline(always)]
    pub const fn trial_lives(&self, now: u64) -> bool {
        self.flags & control_flag::TRIAL != 0 && matches!(self.overdue(now), Cause::None)
    }

    /// The deadman that is due at `now`, or [`Cause::None`].
    #[inline(always)]
    pub const fn overdue(&self, now: u64) -> Cause {
        if self.deadline_ns != 0 && now >= self.deadline_ns {
            Cause::Deadline
        } else if self.lease_ns != 0 && now >= self.lease_ns {
            Cause::Lease
        } else {
            Cause::None
        }
    }

    /// When the first deadman of a trial is due, `u64::MAX` if none is set; 0 with no trial on.
    #[inline(always)]
    pub const fn trial_due_ns(&self) -> u64 {
        if self.flags & control_flag::TRIAL == 0 {
            return 0;
        }
        // 0 stands for none, and wraps to the highest number.
        let deadline = self.deadline_ns.wrapping_sub(1);
        let lease = self.lease_ns.wrapping_sub(1);
        let first = if deadline < lease { deadline } else { lease };
        first.saturating_add(1)
    }

    /// This record with one of 2^`sampling` new flows followed between changes. Lasts over trials,
    /// commits and reverts.
    #[must_use]
    #[inline(always)]
    pub const fn watching(mut self, sampling: u32, within_ms: u32) -> Self {
        self.flags |= control_flag::WATCH;
        self.watch = sampling << 16 | within_ms & 0xffff;
        self
    }

    /// This record with nothing followed between changes.
    #[must_use]
    #[inline(always)]
    pub const fn unwatched(mut self) -> Self {
        self.flags &= !control_flag::WATCH;
        self.watch = 0;
        self
    }

    /// Bits of a flow's hash that are 0 if it is followed between changes.
    #[inline(always)]
    pub const fn watch_mask(&self) -> u32 {
        (1 << (self.watch >> 16 & MOST_SAMPLING)) - 1
    }

    /// Time in which a watched handshake has to be complete, ms.
    #[inline(always)]
    pub const fn watch_within_ms(&self) -> u32 {
        self.watch & 0xffff
    }

    /// This record with its trial ended: w = 0, SHADOW's generation no longer on trial.
    #[must_use]
    #[inline(always)]
    pub const fn trial_over(mut self, cause: Cause, by: u32, now: u64) -> Self {
        self.flags &= !(control_flag::TRIAL | control_flag::EVIDENCE);
        self.share = 0;
        self.lease_ns = 0;
        self.deadline_ns = 0;
        self.cause = cause as u32;
        self.ended_by = by;
        self.ended_ns = now;
        self.ended_generation = self.shadow_generation;
        self
    }

    /// This record with SHADOW committed: the flip.
    #[must_use]
    #[inline(always)]
    pub const fn flipped(self, by: u32, now: u64) -> Self {
        let mut next = self.trial_over(Cause::Confirmed, by, now);
        // Generation 0 forwards nothing: nobody wants to go back there.
        next.lkg = if self.active_generation == 0 {
            NO_SLOT
        } else {
            self.active
        };
        next.lkg_generation = self.active_generation;
        next.active = self.shadow;
        next.active_generation = self.shadow_generation;
        next.shadow = NO_SLOT;
        next.shadow_generation = 0;
        next.change = 0;
        next
    }

    /// This record gone back from a commit: ACTIVE = LKG, and what was ACTIVE is no longer used.
    #[must_use]
    #[inline(always)]
    pub const fn gone_back(self, by: u32, now: u64) -> Self {
        let mut next = self.trial_over(Cause::Revert, by, now);
        next.ended_generation = self.active_generation;
        next.active = self.lkg;
        next.active_generation = self.lkg_generation;
        next.lkg = NO_SLOT;
        next.lkg_generation = 0;
        next
    }
}

/// Place of record `number` in the ring.
#[inline(always)]
pub const fn place(number: u64) -> u32 {
    (number % RECORDS as u64) as u32
}

const _: () = assert!(size_of::<Control>() == 128);
const _: () = assert!(core::mem::offset_of!(Control, ticked_ns) == 64);
const _: () = assert!(size_of::<ControlRecord>() == 128);
const _: () = assert!(core::mem::offset_of!(ControlRecord, active_generation) == 48);

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
