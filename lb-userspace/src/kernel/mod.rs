//! Everything that talks to the kernel: loading, pinning, the guard, reading back, test runs.
//!
//! aya is named in this module alone.

pub mod attach;
pub mod checks;
mod counters;
pub mod error;
pub mod flows;
pub mod guard;
pub mod image;
pub mod inspect;
mod jiffies;
pub mod kept;
mod link;
pub mod maps;
pub mod numbers;
pub mod object;
pub mod outdated;
pub mod pins;
pub mod probe;
pub mod readout;
pub mod refusal;
pub mod samples;
pub mod server_ids;
pub mod size;
pub mod stage;
mod upgrade;
pub mod verified;

pub use error::KernelError;
