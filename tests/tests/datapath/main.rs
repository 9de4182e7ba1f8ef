//! The real XDP program, packet by packet: every branch of parsing, choosing, encap and ICMP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::many_single_char_names,
    clippy::too_many_lines,
    reason = "all of it is tests, and a table of cases is as long as it is"
)]

mod counters;
mod dead;
mod defects;
mod evidence;
mod flags;
mod flows;
mod forwarded;
mod gue;
mod icmp;
mod judged;
mod links;
mod paced;
mod passed;
mod purge;
mod quic;
mod room;
mod short;
mod states;
mod trials;
mod watching;
mod world;
