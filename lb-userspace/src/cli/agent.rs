//! `lbguard agent`: the daemon, in the foreground.

use tracing_subscriber::EnvFilter;

use super::args::AgentArgs;
use super::{CliError, Context};
use crate::agent::{self, Setup};
use crate::config::{NodeConfig, Policy};
use crate::exit::ExitCode;
use crate::paths::Overrides;

/// Runs the agent until a signal ends it.
pub fn run(context: &Context, _args: &AgentArgs) -> Result<ExitCode, CliError> {
    let filter = EnvFilter::try_from_env("LBGUARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(context.colour)
        .with_target(false)
        .try_init();
    let node = NodeConfig::load(&context.paths.agent_toml())?;
    let paths = context.with_node(&Overrides::from(&node))?;
    let policy = Policy::load(&paths.policy_toml())?;
    agent::run(Setup {
        paths,
        node,
        policy,
    })?;
    Ok(ExitCode::Done)
}
