//! What the operator wrote, as checked types.
//!
//! Three files, three types: `services.toml` is a [`Config`] (the only one that a change
//! carries), `agent.toml` a [`NodeConfig`] and `policy.toml` a [`Policy`]. This module says what
//! a configuration *is* and how text becomes typed values, sections in their lines; whether they
//! fit together is [`crate::check`]'s business, and the only way from text to a [`Config`].
//!
//! A [`Config`] is always sorted and free of formatting, so that equal configurations have equal
//! digests, whatever order or spelling the files had.

mod digest;
mod finding;
mod load;
mod model;
mod node;
mod node_file;
mod policy;
mod policy_file;
mod rules;
mod section;
mod services;
mod source;
mod value;

#[cfg(test)]
mod tests;

pub use digest::{CanonicalError, Digest, DigestError};
pub use finding::{Finding, Log, MAX_FINDINGS, Rule, Severity, TextLog, quoted};
pub use load::LoadError;
pub use model::{
    Backend, BackendState, Config, Forward, Health, HealthKind, Identity, OnDead, Pool, Protocol,
    Vip, VipFlag,
};
pub use node::{FleetSeed, Gateway, Mac, MacError, NodeConfig, Prefix4, Prefix6, Tables, XdpMode};
pub use node_file::MINIMAL_AGENT;
pub use policy::{EvidencePolicy, Policy};
pub use rules::{FORM_RULES, UNREADABLE};
pub use section::{Lines, closest};
pub use services::{DEFAULT_TABLE_SIZE, Draft, DraftPool, read_services};
pub use source::{MAX_BYTES, Source, read_bounded};
pub use value::{MAX_NAME, name_problem};
