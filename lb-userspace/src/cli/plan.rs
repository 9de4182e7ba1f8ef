//! `lbguard plan FILE`: what would change and how much of it moves. Touches nothing.

use std::time::Duration;

use serde_json::json;

use super::args::PlanArgs;
use super::past::Past;
use super::{CliError, Context, client, node, out};
use crate::check::{check_file, render_findings};
use crate::config::{Config, FleetSeed, NodeConfig, Policy};
use crate::evidence::noninferiority::Margin;
use crate::evidence::{self, proof};
use crate::exit::ExitCode;
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::plan::{Plan, render};

/// Compares the file with what forwards now.
pub fn run(context: &Context, args: &PlanArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let node = NodeConfig::load(&paths.agent_toml())?;
    let policy = Policy::load(&paths.policy_toml())?;
    let report = check_file(&args.file, &node);
    if !context.json {
        out::print(&render_findings(&report.findings, report.omitted))?;
    }
    let Some(config) = &report.config else {
        return Err(
            CliError::refused(format!("{}: refused", args.file.display()))
                .way_out("`lbguard check` shows every finding"),
        );
    };
    let maps = Maps::open(&Pins::new(paths.pin_dir())).ok();
    let (base, committed) = committed(context, maps.as_ref())?;
    // What is loaded keeps its seed, whatever agent.toml says by now.
    let loaded = maps.and_then(|maps| maps.node().ok());
    let seed = loaded.map_or(node.fleet_seed, |loaded| {
        FleetSeed::loaded(loaded.fleet_key)
    });
    let plan = Plan::of(&committed, config, base, seed, &policy)
        .map_err(|error| CliError::internal(format!("a lookup table cannot be filled: {error}")))?;
    let touched = plan.touched(config);
    // Without an agent nobody knows how much traffic there is.
    let seen = client::runtime()?
        .block_on(client::traffic(&paths.socket()))
        .unwrap_or_default();
    let proofs = if policy.evidence.enabled {
        proof::expected(
            &touched,
            &seen,
            margin(),
            &steps(&policy),
            policy.evidence.follow,
        )
    } else {
        Vec::new()
    };
    if context.json {
        out::json_line(&json!({
            "plan": plan, "digest": plan.digest(), "refused": report.refused(), "proofs": proofs,
        }))?;
    } else {
        out::print(&render::text(&plan))?;
        out::print(&super::render::lines(&proofs))?;
    }
    Ok(if report.refused() {
        ExitCode::Refused
    } else {
        ExitCode::Done
    })
}

/// What a pass rules out.
fn margin() -> Margin {
    evidence::plan::Plan::new(Vec::new(), Vec::new()).margin()
}

/// The steps that a change would have without options.
fn steps(policy: &Policy) -> Vec<(u32, Duration)> {
    let (canary, last) = policy.evidence.shares(None);
    let canary = canary
        .into_iter()
        .map(|share| (share, policy.evidence.step_within));
    canary.chain([(last, policy.confirm_within)]).collect()
}

/// What forwards: by the pins, else by the journal.
fn committed(context: &Context, maps: Option<&Maps>) -> Result<(u64, Config), CliError> {
    let past = Past::read(context)?;
    let active = maps
        .and_then(|maps| maps.record().ok().flatten())
        .map(|record| record.active_generation);
    let base = active.or(past.ledger.committed).unwrap_or(0);
    if base == 0 {
        return Ok((
            0,
            Config {
                vips: Vec::new(),
                pools: Vec::new(),
            },
        ));
    }
    let stored = past.store.load(base)?;
    let config = Config::from_canonical_json(&stored.canonical).map_err(|error| {
        CliError::internal(format!("generation {base} on disk cannot be read: {error}"))
    })?;
    Ok((base, config))
}
