//! Health checks against real servers, by the way that their clients' packets take.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

mod dies;
mod keeps;
mod kinds;
mod modes;
mod newcomers;
mod path;
mod purges;
mod scene;
