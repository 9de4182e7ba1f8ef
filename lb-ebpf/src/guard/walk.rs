//! `bpf_loop` from Rust: loops that are verified once, however often they turn.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_loop;
use lb_common::guard::Refusal;
use lb_common::slot::SlotHeader;

use super::begin::no_pool;
use super::{Call, Detail, Outcome, Shadow};

/// A callback: gets the turn and the state; returns 0 to go on, 1 to stop.
pub type Turn<T> = extern "C" fn(u32, *mut T) -> i64;

/// Turns at most; the kernel's limit is 8 M.
const MAX_TURNS: u32 = 1 << 20;

/// Calls `turn` for 0 to `turns - 1`.
#[inline(always)]
pub fn walk<T>(turns: u32, turn: Turn<T>, state: &mut T) -> Result<(), Refusal> {
    if turns > MAX_TURNS {
        return Err(Refusal::OutOfRange);
    }
    // SAFETY: the callback has the signature that the kernel calls, and gets the state back that is
    // passed here, which outlives the call.
    let done = unsafe {
        bpf_loop(
            turns,
            turn as *mut c_void,
            core::ptr::from_mut(state).cast(),
            0,
        )
    };
    if done < 0 {
        Err(Refusal::Kernel)
    } else {
        Ok(())
    }
}

/// Records of a payload, taken one by one: verified once, however many there are.
///
/// 32 bytes and no more: of a function's stack Linux 6.1 counts whole 32 bytes, and takes 512 for a
/// chain of calls.
pub struct Records {
    /// The program's context, to read from the packet.
    pub ctx: *mut xdp_md,
    header: *mut SlotHeader,
    slot: u32,
    /// First number that the command names.
    pub first: u32,
    /// Number of the record that was refused, or the last one.
    pub number: u32,
    /// Code of the refusal, 0 if none.
    pub refusal: u32,
}

impl Records {
    /// Takes `count` records of the payload by `turn`.
    #[inline(always)]
    pub fn take(
        call: &Call<'_>,
        shadow: Shadow,
        first: u32,
        count: u32,
        turn: Turn<Self>,
        detail: &mut Detail,
    ) -> Outcome {
        let mut records = Self {
            ctx: call.ctx.ctx,
            header: shadow.header,
            slot: shadow.slot,
            first,
            number: 0,
            refusal: 0,
        };
        walk(count, turn, &mut records)?;
        detail[0] = u64::from(records.number);
        match Refusal::from_code(records.refusal) {
            None | Some(Refusal::Done) => Ok(()),
            // The only thing that a record can lack is its pool.
            Some(Refusal::Incomplete) => Err(no_pool(detail)),
            Some(refusal) => Err(refusal),
        }
    }

    /// SHADOW.
    #[inline(always)]
    pub const fn shadow(&self) -> Shadow {
        Shadow {
            slot: self.slot,
            header: self.header,
        }
    }

    /// Notes the outcome of a record; what the callback returns.
    #[inline(always)]
    pub fn note(&mut self, number: u32, outcome: Outcome) -> i64 {
        self.number = number;
        match outcome {
            Ok(()) => 0,
            Err(refusal) => {
                self.refusal = refusal as u32;
                1
            }
        }
    }
}
