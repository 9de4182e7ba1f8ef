//! Samples of packets that did not get through. Nothing of it is on the way of one that does.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use lb_common::counter::Reason;
use lb_common::sample::{SAMPLE_BYTES, SAMPLE_JIFFIES, SAMPLES_PER_CPU, Sample, is_sampled, place};

use crate::control::{jiffies, now};
use crate::maps::{SAMPLE_ALLOWANCES, SAMPLED, SAMPLES};

/// What a CPU has taken lately.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SampleAllowance {
    /// Number of the span of time.
    span: u64,
    /// Samples taken in it.
    taken: u64,
}

/// Keeps a packet's first bytes if it did not get through.
#[inline(always)]
pub fn note(ctx: &XdpContext, reason: Reason, slot: u32) {
    if is_sampled(reason) {
        sample(ctx.ctx, reason as u32, slot);
    }
}

/// [`note`], as a global function, so that the verifier checks it once. The result means nothing.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sample(ctx: *mut xdp_md, reason: u32, slot: u32) -> u32 {
    if !allowed() {
        return 0;
    }
    let Some(sampled) = SAMPLED.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: an aligned word of a map element, changed atomically; the result is used, so SeqCst.
    let number = 1 + unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(sampled, 1) };
    let Some(kept) = SAMPLES.get_ptr_mut(place(number)) else {
        return 0;
    };
    // SAFETY: the context is the program's own. The place is this number's until the ring has come
    // round, and readers see by the number whether it is whole.
    unsafe {
        (&raw mut (*kept).number).write_volatile(0);
        let length = bpf_xdp_get_buff_len(ctx);
        (*kept).length = length as u32;
        (*kept).at_ns = now();
        (*kept).reason = reason as u16;
        (*kept).slot = slot as u8;
        load(ctx, kept, length);
        (&raw mut (*kept).number).write_volatile(number);
    }
    1
}

/// Copies the start of the packet.
///
/// # Safety
/// The context of the program that runs, and an element of the map of samples.
#[inline(always)]
unsafe fn load(ctx: *mut xdp_md, kept: *mut Sample, length: u64) {
    // One less, read anew and made one more: older verifiers do not conclude from "not 0" that it is 1 at least.
    let less = length.min(SAMPLE_BYTES as u64).wrapping_sub(1);
    // SAFETY: a local.
    let less = unsafe { (&raw const less).read_volatile() };
    if less >= SAMPLE_BYTES as u64 {
        return;
    }
    let wanted = less + 1;
    // SAFETY: `wanted` bytes fit into the sample, and the packet has as many.
    unsafe {
        bpf_xdp_load_bytes(ctx, 0, (&raw mut (*kept).bytes).cast(), wanted as u32);
    }
}

/// Takes one of this CPU's samples.
#[inline(always)]
fn allowed() -> bool {
    let Some(allowance) = SAMPLE_ALLOWANCES.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's copy of a map element.
    let allowance = unsafe { &mut *allowance };
    let span = jiffies() / SAMPLE_JIFFIES;
    if allowance.span != span {
        allowance.span = span;
        allowance.taken = 0;
    }
    if allowance.taken >= SAMPLES_PER_CPU {
        return false;
    }
    allowance.taken += 1;
    true
}
