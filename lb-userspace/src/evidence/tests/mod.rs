//! Against known values, brute force, and each other.

mod judging;
mod known;
mod laws;
mod tracking;
