//! lbguard.

pub mod change;
pub mod check;
pub mod cli;
pub mod config;
pub mod exit;
pub mod kernel;
pub mod lookup;
pub mod paths;
pub mod sys;
