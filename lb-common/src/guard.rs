//! The guard's language: one command a call, in the data of a `BPF_PROG_TEST_RUN`.
//!
//! A command is a [`Command`] of 64 bytes and a payload of fixed-size records. The guard writes a
//! [`Reply`] over the command and leaves the payload alone. A call does at most one table's worth
//! of work, so that it never holds the CPU for longer than a fraction of a millisecond; progress is
//! kept in the slot's header.

use crate::breaker::Breaker;
use crate::slot::{Chunk, Member, NAME_LEN, Name, NextHop, PoolEntry, VipEntry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of every command.
pub const MAGIC: u32 = 0x6c62_6764;
/// Bytes of a command before its payload.
pub const COMMAND_LEN: usize = 64;
/// Most bytes of a command with its payload: a test run's linear data is one page.
pub const MAX_LEN: usize = 3_328;
/// Most [`MemberPut`]s or [`VipPut`]s in one command.
pub const PUTS: usize = 16;
/// Most elements of a lookup table in one command.
pub const CHUNKS: usize = 48;
/// Most places cleared by one [`Op::Clear`].
pub const CLEARS: u32 = 4_096;
/// Buckets of the flow table swept by one [`Op::Sweep`].
pub const SWEEPS: u32 = 4_096;
/// Most next hops in one command.
pub const HOPS: usize = 16;

macro_rules! codes {
    ($(#[doc = $outer:literal])+ $type:ident { $($(#[doc = $doc:literal])+ $name:ident = $number:literal,)+ }) => {
        $(#[doc = $outer])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $type {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl $type {
            /// Every code.
            pub const ALL: &'static [$type] = &[$($type::$name),+];

            /// From its number.
            #[inline(always)]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($number => Some(Self::$name),)+ _ => None }
            }

            /// Its name as in this source.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

codes! {
    /// What a command asks. Arguments are [`Command::args`], in order.
    Op {
        /// Makes generation 0 (an empty sealed slot) if there is none, starts the timer, and takes
        /// `session` as the one agent. Argument: jiffies in 0.3 s. Payload: the
        /// [`Node`](crate::slot::Node), kept from the first call.
        Start = 1,
        /// Takes a free slot as SHADOW. Arguments: generation. Payload: [`BeginPut`].
        Begin = 2,
        /// Clears the next [`CLEARS`] places of SHADOW. Reply: places left.
        Clear = 3,
        /// Writes a pool. Argument: pool number. Payload: [`PoolPut`].
        PutPool = 4,
        /// Adds members to SHADOW. Argument: how many. Payload: [`MemberPut`]s.
        PutMembers = 5,
        /// Opens a free lookup table. Arguments: table, first element, entries, pool.
        OpenTable = 6,
        /// Writes elements. Arguments: table, first element within it, how many. Payload: elements.
        WriteTable = 7,
        /// Seals a table. Argument: table. Reply: checksum.
        SealTable = 8,
        /// Writes VIPs into SHADOW. Argument: how many. Payload: [`VipPut`]s.
        PutVips = 9,
        /// Walks a pool of SHADOW (K3). Argument: pool number.
        SealPool = 10,
        /// Compares a VIP of SHADOW with ACTIVE's (K4). Argument: its place. Reply: ppm moved.
        SealVip = 11,
        /// Seals SHADOW: all walked, removed VIPs counted, class computed. Arguments: VIPs, pools
        /// and members that were meant to be there. Reply: class, ppm moved, added, removed.
        Seal = 12,
        /// Puts SHADOW on trial. Arguments: share, salt, lease in ms (0 = none), deadline in ms,
        /// short change id with [`trial_flag`]s. `base` must be ACTIVE's generation. Payload: none, or
        /// a [`TrialPut`] if the trial's flows are to be followed.
        Trial = 13,
        /// Renews the lease of a trial. Argument: ms.
        Lease = 14,
        /// Commits the trial: the flip. Arguments: user id; 1 = it restores, see
        /// [`trial_flag::RESTORES`].
        Confirm = 15,
        /// Ends the trial, or goes back to LKG if there is none. Arguments: user id, cause,
        /// 1 = only a trial, never a committed generation, the generation that is meant (0 = any).
        /// Reply: the generation that ended, the one that forwards now.
        Revert = 16,
        /// Gives up SHADOW, not on trial.
        Abandon = 17,
        /// Writes next hops. Arguments: first, how many. Payload: [`NextHop`]s.
        PutNextHops = 18,
        /// Holds a member back, or lets it go. Arguments: member, state, next hop, cause, parts of 256
        /// of new flows withheld. With a [`hold`](crate::slot::hold) as cause, `UP` lets go of it and
        /// any other state holds; the next hop counts with cause `NEXT_HOP` and the withheld part with
        /// `HEALTH`. With cause 0 state and next hop are set, whatever held it before.
        SetMember = 19,
        /// Reads the clock. Reply: boot-clock ns, jiffies.
        Clock = 20,
        /// Forgets flows whose member no slot has, or is down in a pool that does not keep the flows of such, in
        /// the next [`SWEEPS`] buckets; with no trial on, also which change a flow was born in. Reply: sweeps
        /// that are complete, buckets left.
        Sweep = 21,
        /// Frees the number of a member that no slot has had for a whole sweep. Argument: member.
        FreeMember = 22,
        /// Sets the limits, with no trial on. Payload: a [`Policy`](crate::policy::Policy).
        SetPolicy = 23,
        /// K9: 1 refuses forward flips, 0 allows them again. Freezing needs no session.
        Freeze = 24,
        /// K8: clears the latch. Argument: 0; with 1 it is set (an agent restores it at a restart).
        Ack = 25,
        /// Moves a trial whose flows are followed to a higher share, or draws a new salt for the same
        /// one. Arguments: share, salt, deadline in ms (not with the same share). Payload:
        /// [`TrialPut`].
        Step = 26,
        /// Has some new flows followed between changes, with no trial on. Arguments: 0 = none,
        /// n for one of 2^n, time in which a handshake has to be complete in ms.
        Watch = 27,
        /// Takes a pool over from ACTIVE as it is there, sealed: record, tables and backends. VIPs of the
        /// families that it serves there may use it. Argument: pool number. Reply: its backends.
        KeepPool = 28,
    }
}

codes! {
    /// Why the guard refused, [`Reply::status`]. Details are [`Reply::detail`], in order.
    Refusal {
        /// Not refused.
        Done = 0,
        /// No command, or one of another length than it claims.
        Malformed = 1,
        /// The guard, the timer or another caller is at work: try again.
        Busy = 2,
        /// `Start` has not been called.
        NotStarted = 3,
        /// The command comes from an agent that another one has replaced.
        Session = 4,
        /// K2: ACTIVE is not the generation this change was made from. Details: ACTIVE's, the base.
        StaleBase = 5,
        /// A generation number that is not above every one before. Details: the highest, given.
        OldGeneration = 6,
        /// K5: no slot is free of ACTIVE, LKG and trial.
        NoSlot = 7,
        /// The slot was used a moment ago: try again. Detail: ms to wait.
        GracePeriod = 8,
        /// There is no SHADOW, or not in the state that this needs. Detail: its state.
        SlotState = 9,
        /// A number is outside its map, or not where it belongs. Detail: the number.
        OutOfRange = 10,
        /// K2/K5: that member, table or place is in use and is not written. Detail: its number.
        InUse = 11,
        /// K3: an entry of a table names no backend. Details: pool, entries so.
        Hole = 12,
        /// K3: an entry names a backend that the slot's pool has not. Details: pool, number.
        BadEntry = 13,
        /// K3: fewer backends than the pool's minimum. Details: pool, have, need.
        TooFewBackends = 14,
        /// K3: a backend has more than its cap. Details: pool, number, ppm, cap.
        AboveCap = 15,
        /// K3: a backend that is up has no resolved next hop. Details: pool, number.
        NextHopMissing = 16,
        /// K3: address families or forwarding modes do not fit. Details: pool, number.
        Family = 17,
        /// K3: something announced is missing or not walked. Details: what (1 VIPs, 2 pools,
        /// 3 members, 4 tables, 5 cleared places, 6 addresses), have, want.
        Incomplete = 18,
        /// K4: the class needs deadline and lease. Detail: class.
        NeedsDeadmen = 19,
        /// Deadline or lease is 0 or too long. Details: given, longest, in ms.
        BadDeadline = 20,
        /// There is no trial. Detail: cause of the last end.
        NoTrial = 21,
        /// K7: the deadline or the lease has passed. Detail: cause.
        TooLate = 22,
        /// K9: frozen.
        Frozen = 23,
        /// There is no last known good generation to go back to.
        NoLkg = 24,
        /// The share is 0 or above all.
        BadShare = 25,
        /// A table overlaps one in use. Details: that table.
        Overlap = 26,
        /// A trial is on: end it first.
        TrialOn = 27,
        /// The kernel failed to do its part: a helper's errno. Details: errno.
        Kernel = 28,
        /// The generation that was to be ended is not there. Details: the one that is, the one
        /// that would take over.
        OtherGeneration = 29,
        /// The flow table has not been swept since the member left. Details: member, sweeps done,
        /// sweeps needed.
        Unswept = 30,
        /// K6: too many trials in too short a time. Detail: ms to wait.
        Velocity = 31,
        /// K8: the breaker has tripped and nobody has acknowledged it.
        Latched = 32,
        /// K10: health would take too much of a pool out. Details: member, backends down, backends,
        /// share allowed in ppm.
        TooManyDown = 33,
        /// No policy has been set.
        NoPolicy = 34,
        /// K3: two VIPs of the slot have one number, and would share counters and name. Detail: the
        /// number.
        SharedNumber = 35,
        /// The trial's flows are not followed, so it has no steps.
        NoEvidence = 36,
        /// K4: a trial has had all the steps that it may have. Detail: how many.
        TooManySteps = 37,
        /// K10: draining it would leave too few of the pool. Details: member, backends that take no
        /// new flows already, backends, the pool's minimum, share allowed in ppm.
        TooFewLeft = 38,
    }
}

/// Bits of [`Op::Trial`]'s change argument, above the short id.
pub mod trial_flag {
    /// The plan names removed VIPs: packets for them are no surprise.
    pub const REMOVES: u64 = 1 << 32;
    /// What was committed before a reboot is loaded again. From generation 0, and only from there,
    /// freeze, latch and velocity let it pass: they hold from before the first flip on.
    pub const RESTORES: u64 = 1 << 33;
}

/// A command, in host byte order.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C, packed)]
pub struct Command {
    /// [`MAGIC`].
    pub magic: u32,
    /// See [`Op`].
    pub op: u32,
    /// The agent's session; 0 = a caller without one, who may only go back or read the clock.
    pub session: u64,
    /// Generation that the change is made from.
    pub base: u64,
    /// Arguments of the op.
    pub args: [u64; 5],
}

/// The answer, over the command.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C, packed)]
pub struct Reply {
    /// [`MAGIC`] complemented, so that a guard that did not run cannot look like one that agreed.
    pub magic: u32,
    /// See [`Refusal`].
    pub status: u32,
    /// Results, or details of a refusal.
    pub detail: [u64; 7],
}

/// Steps that a trial may have. Each may have a deadline of its own, so this bounds its life.
pub const STEPS: u32 = 8;

/// Payload of [`Op::Trial`] and [`Op::Step`]: how the trial's flows are judged in the kernel.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TrialPut {
    /// The breaker's weights for this share; all 0 = off.
    pub breaker: Breaker,
    /// Time in which a handshake has to be complete, ms, 1 to [`LONGEST_HANDSHAKE_MS`].
    pub within_ms: u32,
    /// How many of a VIP's new flows are followed, see [`crate::pace`]; of 16 bits.
    pub pace: u32,
}

/// A handshake's time at most: bins of handshakes come round after 4.3 s.
pub const LONGEST_HANDSHAKE_MS: u32 = 2_000;

/// Payload of [`Op::Begin`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BeginPut {
    /// SHA-256 of the configuration's canonical form.
    pub digest: [u8; 32],
}

/// Payload of [`Op::PutPool`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PoolPut {
    /// The pool; `sealed`, `generation` and the comparison are set by the guard.
    pub entry: PoolEntry,
    /// Its name.
    pub name: Name,
}

/// One record of [`Op::PutMembers`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemberPut {
    /// Member id.
    pub id: u32,
    /// 1 = drain in this slot.
    pub drain: u32,
    /// The member; `slots` and `drains` are set by the guard.
    pub member: Member,
    /// Its name.
    pub name: Name,
}

/// One record of [`Op::PutVips`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VipPut {
    /// Place in the VIP table of the slot.
    pub place: u32,
    /// Zero.
    pub reserved: u32,
    /// The entry; `table_*`, `member_base`, `forward` and `sealed_ppm` are set by the guard from
    /// the pool.
    pub entry: VipEntry,
    /// Its name.
    pub name: Name,
}

const _: () = assert!(size_of::<Command>() == COMMAND_LEN);
const _: () = assert!(size_of::<Reply>() == COMMAND_LEN);
const _: () = assert!(size_of::<MemberPut>() == 8 + 64 + NAME_LEN);
const _: () = assert!(size_of::<VipPut>() == 8 + 64 + NAME_LEN);
const _: () = assert!(COMMAND_LEN + PUTS * size_of::<MemberPut>() <= MAX_LEN);
const _: () = assert!(COMMAND_LEN + CHUNKS * size_of::<Chunk>() <= MAX_LEN);
const _: () = assert!(COMMAND_LEN + HOPS * size_of::<NextHop>() <= MAX_LEN);
