//! Is the new configuration worse? Counters in, verdict out: pure functions, without I/O or clock.
//!
//! - [`counts`], [`tracker`]: what the kernel counted, as counts since a trial step began.
//! - [`eprocess`], [`blocks`]: the test, and when it is looked at.
//! - [`signals`], [`split`], [`shares`]: what is tested.
//! - [`noninferiority`]: when it is good enough; [`forecast`]: how long that takes.
//! - [`judge`]: all of it together; [`plan`] is what it is told, [`report`] and [`finding`] what it says.
//! - [`rates`], [`proof`]: how much traffic there is, and how long a proof will take, said beforehand.
//! - [`pace`]: how much of it is followed.
//! - [`volume`]: a VIP that falls silent.
//! - [`weights`]: the kernel's breaker, prepared.
//! - [`watching`], [`burn`]: between changes, events only.
//!
//! docs/EVIDENCE.md has the method and what was measured.

pub mod blocks;
pub mod burn;
pub mod counts;
mod delta;
pub mod eprocess;
mod examine;
pub mod finding;
pub mod forecast;
pub mod judge;
pub mod noninferiority;
mod number;
pub mod pace;
pub mod plan;
pub mod proof;
pub mod rates;
pub mod report;
mod residue;
pub mod shares;
pub mod signals;
#[cfg(test)]
mod simulation;
pub mod split;
mod strata;
mod suspects;
#[cfg(test)]
mod tests;
pub mod tracker;
pub mod volume;
pub mod watching;
pub mod weights;
