//! The balancer's BPF programs: `lb`, attached to interfaces, and `guard`, which is never attached
//! and only called. Entry points only; the stages are one module each.
#![allow(
    missing_docs,
    reason = "the xdp macro drops the documentation of its function"
)]
#![allow(
    internal_features,
    reason = "BPF has compare-exchange, which core's AtomicU64 does not offer there"
)]
#![allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    reason = "stages must end up in one program; widths are bounded where bits are packed; the xdp macro \
              passes contexts by value"
)]
#![feature(core_intrinsics)]
#![no_std]
#![no_main]

mod backends;
mod breaker;
mod control;
mod count;
mod deadman;
mod fast;
mod flows;
mod forward;
mod guard;
mod gue;
mod icmp;
mod maps;
mod packet;
mod pick;
mod probe;
mod reset;
mod rewrite;
mod room;
mod samples;
mod tracks;
mod vips;
mod walk;

use aya_ebpf::{macros::xdp, programs::XdpContext};

/// The load balancer.
#[xdp(frags)]
pub fn lb(ctx: XdpContext) -> u32 {
    forward::run(&ctx)
}

/// The guard: takes one command in the packet data of a test run.
#[xdp]
pub fn guard(ctx: XdpContext) -> u32 {
    guard::run(&ctx)
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
