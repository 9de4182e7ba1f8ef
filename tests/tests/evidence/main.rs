//! Changes judged on live traffic: real clients, real servers, the real agent. Wrong ones are put back
//! by themselves, in about a second; good ones commit; what cannot be told is never a pass.
//!
//! Short versions run with the other tests, the full counts by `cargo xtask soak evidence`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

mod alarms;
mod applied;
mod broken;
mod busy;
mod carved;
mod faults;
mod figures;
mod gate;
mod good;
mod killed;
mod low;
mod run;
mod scene;
mod seed;
mod seen;
mod soak;
mod split;
mod table;
mod watching;
mod weights;
