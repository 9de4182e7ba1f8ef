//! Who carries a packet to a backend: routes, neighbours and interfaces of this host, and their
//! changes.
//!
//! The data path sends to MAC addresses that it finds in the next-hop table; what is in that table
//! comes from here. [`Watcher`] follows the kernel's own routes and neighbours, [`NextHopTable`]
//! turns what it found into numbers and records. This module writes no BPF map, and is the only one
//! that speaks rtnetlink about routes and neighbours.
//!
//! A network namespace is that of the thread that starts a watcher or asks.

pub mod checks;
mod connection;
mod engine;
mod error;
pub mod links;
mod neighbour;
pub mod next_hop;
pub mod redirects;
mod route;
mod state;
pub mod table;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
pub mod watch;

pub use error::NetError;
pub use links::{Link, XdpMode, XdpProgram};
pub use next_hop::{Resolution, Resolved, Settings, Target, Unresolved, Via};
pub use table::{NextHopTable, Placed, Record, TableFull};
pub use watch::{Changed, Watcher};
