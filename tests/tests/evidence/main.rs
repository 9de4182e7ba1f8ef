//! Changes judged on live traffic: real clients, real servers, the real agent. Wrong ones are put back
//! by themselves, in about a second; good ones commit; what cannot be told is never a pass.
//!
//! Short versions run with the other tests; `cargo xtask soak evidence` sets `LB_EVIDENCE_RUNS`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

mod good;
mod low;
mod scene;
mod seed;
mod watching;
