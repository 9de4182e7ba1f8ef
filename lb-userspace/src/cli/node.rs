//! agent.toml as the read-outs need it: only to find the state directory.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{CliError, Context, out};
use crate::config::{FleetSeed, LoadError, NodeConfig, Prefix4, Prefix6, Tables, XdpMode};
use crate::exit::ExitCode;
use crate::paths::{Overrides, Paths};

impl From<&NodeConfig> for Overrides {
    fn from(node: &NodeConfig) -> Self {
        Self {
            config_dir: None,
            state_dir: node.state_dir.clone(),
            run_dir: node.run_dir.clone(),
            pin_dir: node.pin_dir.clone(),
            socket: node.socket.clone(),
        }
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        let code = match error {
            LoadError::Findings(..) => ExitCode::Refused,
            LoadError::Missing { .. } | LoadError::Unreadable { .. } => ExitCode::Internal,
        };
        Self::new(code, error)
    }
}

/// The paths as agent.toml has them. A read-out must work on a host whose
/// agent.toml is missing or wrong: the latter is said, and not followed.
///
/// # Errors
///
/// A relative path in agent.toml.
pub fn paths(context: &Context) -> Result<Paths, CliError> {
    match NodeConfig::load(&context.paths.agent_toml()) {
        Ok(node) => context.with_node(&Overrides::from(&node)),
        Err(LoadError::Missing { .. }) => Ok(context.paths.clone()),
        Err(error) => {
            out::note(&format!(
                "warning: paths in agent.toml are not followed: {error}"
            ));
            Ok(context.paths.clone())
        }
    }
}

/// The paths as an agent.toml has them that has been read already.
///
/// # Errors
///
/// A relative path in it.
pub fn paths_of(context: &Context, node: Option<&NodeConfig>) -> Result<Paths, CliError> {
    match node {
        Some(node) => context.with_node(&Overrides::from(node)),
        None => Ok(context.paths.clone()),
    }
}

/// The node to check a file for: agent.toml's, or on a host without one (an
/// editor's, a build server) a stand-in, which is said on standard error.
///
/// # Errors
///
/// An agent.toml that can't be read or has errors.
pub fn to_check_for(context: &Context) -> Result<NodeConfig, CliError> {
    let path = context.paths.agent_toml();
    match NodeConfig::load(&path) {
        Err(LoadError::Missing { .. }) => {
            out::note(&format!(
                "note: no {}: checked for default table sizes and for a host that has an outer \
                 source of both families",
                path.display()
            ));
            Ok(stand_in())
        }
        other => Ok(other?),
    }
}

fn stand_in() -> NodeConfig {
    NodeConfig {
        interfaces: vec!["any".to_owned()],
        xdp_mode: XdpMode::Auto,
        fleet_seed: FleetSeed::from_text("none"),
        // Documentation addresses (RFC 5737, RFC 3849): only their presence counts.
        encap_source_v4: Some(Prefix4 {
            address: Ipv4Addr::new(192, 0, 2, 1),
            len: 32,
        }),
        encap_source_v6: Some(Prefix6 {
            address: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            len: 128,
        }),
        gateways: Vec::new(),
        tables: Tables::default(),
        state_dir: None,
        run_dir: None,
        pin_dir: None,
        socket: None,
        metrics_address: None,
    }
}
