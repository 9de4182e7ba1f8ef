//! `lbguard simulate`: captured packets through the real XDP program, off the network.
//!
//! The program and its maps are a copy of their own, sized to the input, attached nowhere; whatever
//! runs on the host is neither read nor disturbed. Answers of the program (echo replies, "packet
//! too big") are rate limited in operation; here a packet that hits the limit is run again when it
//! has passed, so that the outcome does not depend on how fast the machine is.

pub mod pcap;
mod run;

pub use run::{MTU, OWN_MAC, Outcome, Simulation};
