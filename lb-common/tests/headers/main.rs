//! The parser and the outer headers against etherparse, which shares no code with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

mod outer;
#[path = "../../../tests/packets.rs"]
#[allow(
    dead_code,
    reason = "shared with the end-to-end tests, which use the rest"
)]
mod packets;
mod parse_errors;
mod parse_frames;
mod parse_ip;
mod parse_laws;
mod parse_transport;
mod seen;
