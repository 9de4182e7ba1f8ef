//! lbguard.

pub mod config;
