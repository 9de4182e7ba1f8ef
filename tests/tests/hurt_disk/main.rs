//! The state directory on a hurt disk: full, read-only, gone, or with a journal that somebody has
//! altered. Forwarding goes on, changes are refused or put back, and the operator is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

mod altered;
mod ext4;
mod scene;
mod writing;
