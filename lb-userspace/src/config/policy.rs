//! `policy.toml`: what a change may do and how long things may take. Never part of a change.

use std::time::Duration;

/// Checked content of `policy.toml`; [`Policy::default`] when there is no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A trial ends when the agent has not renewed it for this long.
    pub lease: Duration,
    /// Deadline of a bake, unless `apply --confirm-within` names another.
    pub confirm_within: Duration,
    /// The longest that `apply --confirm-within` may ask for.
    pub confirm_within_max: Duration,
    /// Class R1 up to this share of one VIP's table moved, in percent.
    pub r1_moved: u8,
    /// Class R2 up to this share, in percent; beyond is R3.
    pub r2_moved: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3),
            confirm_within: Duration::from_mins(2),
            confirm_within_max: Duration::from_hours(1),
            r1_moved: 10,
            r2_moved: 34,
        }
    }
}
