//! What the end-to-end tests share.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "support of tests: a test that cannot be set up fails by panicking"
)]

pub mod bench;
pub mod bpf;
pub mod bpffs;
pub mod bpftool;
pub mod certificate;
pub mod child;
pub mod draft;
pub mod expect;
pub mod flood;
pub mod fuzzing;
pub mod kept;
pub mod loaded;
pub mod measure;
pub mod model;
pub mod packets;
pub mod resent;
pub mod rows;
pub mod seeded;
pub mod segments;
pub mod services;
pub mod steering;
