//! lbguard.

pub mod agent;
pub mod change;
pub mod check;
pub mod cli;
pub mod config;
pub mod decap;
pub mod doctor;
pub mod evidence;
pub mod exit;
mod explain;
pub mod health;
pub mod kernel;
pub mod lab;
pub mod lookup;
pub mod net;
pub mod paths;
pub mod plan;
pub mod simulate;
pub mod sys;
