//! A laboratory in network namespaces: a client, a router, the balancer, backends and bystanders,
//! on one machine and without touching its own network. The demo, the drills and the end-to-end
//! tests share it.
//!
//! ```text
//!  client ---- router ==== segment (bridge, MTU 1600) ==== balancer (lb0)
//!  198.51.100.2..           10.0.1.1     |    |    |        10.0.1.2
//!                                     web-1 web-2 other-1
//!                                     10.0.1.11 ..    10.0.1.240 ..
//!                                        |
//!                                     router-2 (10.0.1.3) ==== far-1 (10.0.2.11) ..
//!                                                           \=== balancer (lb1, 10.0.2.2), if asked for
//! ```
//!
//! Every host has an IPv6 address of the same shape (`fd00:1::11` for `10.0.1.11`). The router
//! sends [`VIP_PREFIX_V4`] and [`VIP_PREFIX_V6`] to the balancer; answers go from the backends to
//! the router and not through the balancer (DSR). A backend holds the VIPs on `lo`, does not
//! answer ARP for them, and takes the balancer's tunnelled packets by the `decap` program.
//!
//! What it promises: names are unique to a lab, so that several run at once; dropping a [`Lab`]
//! or interrupting the process removes all of it; what a killed process left is removed by the
//! next lab ([`sweep`]). Waiting is always for a condition with a deadline ([`until`]).
//!
//! It needs root, and the programs `ip`, `ethtool`, `nginx`, `tcpdump`.

mod address;
mod build;
mod capture;
mod cleanup;
mod connections;
mod error;
mod files;
mod host;
mod http;
mod id;
mod instance;
mod network;
mod nginx;
mod process;
mod servers;
mod topology;
mod worker;

pub use address::{
    BALANCER_V4, BALANCER_V6, CLIENT_ADDRESSES, ENCAP_SOURCE_V4, ENCAP_SOURCE_V6, FIRST_CLIENT,
    ROUTER_V4, ROUTER_V6, VIP_PREFIX_V4, VIP_PREFIX_V6, VIP_V4, VIP_V6, client_address,
    client_addresses,
};
pub use build::{Builder, Lab};
pub use capture::Capture;
pub use cleanup::sweep;
pub use connections::{Break, ConnectionOptions, Connections};
pub use error::{LabError, until};
pub use host::{Host, Role};
pub use http::{HttpLoop, HttpOptions, Outcome, Request};
pub use instance::{Instance, binary};
pub use process::Process;
pub use servers::Server;
