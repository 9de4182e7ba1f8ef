//! What the benchmarks share: traffic, programs side by side, checks of what they make of a packet, figures.
//!
//! A figure is given only for a program whose packets are byte by byte what they should be ([`check`]);
//! programs are timed in turn, round by round, so that all of them have the same noise.

pub mod balancer;
pub mod check;
pub mod live;
pub mod programs;
pub mod report;
pub mod rig;
#[path = "../ebpf/src/shared.rs"]
#[allow(missing_docs, reason = "documented where it is")]
pub mod shared;
pub mod timing;
pub mod trials;
pub mod workload;
