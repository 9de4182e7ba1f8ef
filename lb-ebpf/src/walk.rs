//! `bpf_loop` from Rust: loops that are verified once, however often they turn.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use lb_common::guard::Refusal;

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
