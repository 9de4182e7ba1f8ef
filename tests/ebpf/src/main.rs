//! BPF programs of the benchmarks, none of which ships: packets that are new each run, floors to compare
//! with, and a sink. Like the balancer they all carry `xdp.frags`: the kernel lets no program call
//! another's tail that differs in it.
#![allow(
    missing_docs,
    reason = "the xdp macro drops the documentation of its function"
)]
#![allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::needless_pass_by_value,
    reason = "all of it must end up in one program each; widths are bounded; the xdp macro passes contexts by \
              value"
)]
#![no_std]
#![no_main]

mod floor;
mod fresh;
mod shared;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{PerCpuArray, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

use crate::shared::{SEEN_KINDS, Seen};

/// The program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// Packets that came to a sink, by [`Seen`].
#[btf_map]
static SEEN: PerCpuArray<u64, SEEN_KINDS> = PerCpuArray::new();

/// Makes the buffer of a test run the next packet, and goes on with the program under test.
#[xdp(frags)]
pub fn shim(ctx: XdpContext) -> u32 {
    if fresh::next_packet(&ctx).is_some() {
        // SAFETY: nothing in this program has to be dropped.
        unsafe { TARGET.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

/// Makes the next packet and sends it out by the interface that the run names.
#[xdp(frags)]
pub fn make(ctx: XdpContext) -> u32 {
    match fresh::next_packet(&ctx) {
        Some(()) => XDP_TX,
        None => XDP_ABORTED,
    }
}

/// Counts what comes back, and drops it.
#[xdp(frags)]
pub fn sink(ctx: XdpContext) -> u32 {
    let seen = floor::kind(&ctx);
    if let Some(count) = SEEN.get_ptr_mut(seen as u32) {
        // SAFETY: this CPU's own element, which no other program has at the same time.
        unsafe { *count += 1 };
    }
    // Neighbour discovery and the like is not ours.
    match seen {
        Seen::Other => XDP_PASS,
        _ => XDP_DROP,
    }
}

/// The least that a program can do: what loop, shim and network cost.
#[xdp(frags)]
pub fn tx(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// A balancer that remembers nothing: parse, VIP, hash, lookup table, outer header, one counter.
#[xdp(frags)]
pub fn stateless(ctx: XdpContext) -> u32 {
    floor::balance(&ctx, false)
}

/// The same with an LRU hash of flows.
#[xdp(frags)]
pub fn stateful(ctx: XdpContext) -> u32 {
    floor::balance(&ctx, true)
}

/// The kernel lets GPL-compatible programs alone call most helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
