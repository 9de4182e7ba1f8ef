//! Health: whether backends answer, asked by the way that their clients' packets take.
//!
//! - [`machine`]: one backend: failures in a row take it down, successes in a row bring it back;
//! - [`board`]: a pool: who is held back, slow start, and that a pool is never emptied (fail open);
//! - [`probe`]: one check on the wire: TCP, HTTP, HTTPS, UDP, DNS;
//! - [`runner`]: the tasks that check, and what follows from it in the kernel.
//!
//! Machine and board know no socket, no kernel and no clock: outcomes and `now` in, wishes out.
//!
//! A check is sent to the VIP, and the BPF program `check` puts it on the way that the pool's packets
//! go, so that a backend without the VIP, without decap or behind a short MTU fails it.

pub mod board;
pub mod machine;
pub mod probe;
pub mod runner;

pub use board::{BackendSpec, Board, Line, PoolSpec, Set, Told, What};
pub use machine::{Machine, Turn, Verdict};
pub use probe::Probe;
pub use runner::{Checks, Runner};
