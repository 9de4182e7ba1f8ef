//! What the operator wrote, as checked types.
//!
//! Three files, three types: `services.toml` is a [`Config`] (the only one that a change
//! carries), `agent.toml` a [`NodeConfig`] and `policy.toml` a [`Policy`]. This module says what
//! a configuration *is* and how text becomes it; whether it is a good idea is [`crate::check`]'s
//! business.
//!
//! A [`Config`] is always sorted and free of formatting, so that equal configurations have equal
//! digests, whatever order or spelling the files had.

mod digest;
mod model;
mod node;
mod policy;

pub use digest::{CanonicalError, Digest, DigestError};
pub use model::{
    Backend, BackendState, Config, Forward, Health, HealthKind, Identity, OnDead, Pool, Protocol,
    Vip, VipFlag,
};
pub use node::{FleetSeed, Gateway, Mac, NodeConfig, Prefix4, Prefix6, Tables, XdpMode};
pub use policy::Policy;
