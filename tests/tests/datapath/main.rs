//! The real XDP program, packet by packet: every branch of parsing, choosing, encap and ICMP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

mod counters;
mod defects;
mod flows;
mod forwarded;
mod icmp;
mod passed;
mod trials;
mod world;
