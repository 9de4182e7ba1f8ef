//! `lbguard apply FILE -m WHY`: asks the agent for a change and follows it to its end.
//!
//! If the agent dies meanwhile, it goes on waiting on the pins: the kernel ends the trial by itself.

use std::time::Duration;

use super::args::{ApplyArgs, ConfirmMode};
use super::progress::Follower;
use super::{CliError, Context, client, node, out};
use crate::agent::wire::{Apply, ApplyEvent};
use crate::change::machine::Progress;
use crate::config::read_bounded;
use crate::exit::ExitCode;
use crate::kernel::pins::Pins;

/// How a followed change has ended, or that it goes on.
enum Followed {
    Ended(ExitCode),
    Detached,
    AgentLost(Option<Progress>),
    Interrupted(Option<Progress>),
}

/// Runs the change; exit code 0 only when it is committed.
pub fn run(context: &Context, args: &ApplyArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let bytes = read_bounded(&args.file).map_err(|error| {
        CliError::refused(format!("cannot read {}: {error}", args.file.display()))
            .way_out("name a readable services.toml; nothing was changed")
    })?;
    let request = Apply {
        file: args.file.display().to_string(),
        why: args.why.clone(),
        share_ppm: args.canary.map(super::values::CanaryShare::ppm),
        confirm_within_ms: args
            .confirm_within
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        confirm_auto: args.confirm == ConfirmMode::Auto,
        force_unsafe: args.force_unsafe,
        plan: args.plan.clone(),
    };
    ask(context, &paths, &request, bytes, args.detach)
}

/// Sends a change and follows it; also `revert GEN` goes this way.
pub fn ask(
    context: &Context,
    paths: &crate::paths::Paths,
    request: &Apply,
    bytes: Vec<u8>,
    detach: bool,
) -> Result<ExitCode, CliError> {
    let runtime = client::runtime()?;
    let mut follower = Follower::new(context);
    let followed = runtime.block_on(async {
        let mut events = client::apply(&paths.socket(), request, bytes).await?;
        follow(context, &mut follower, &mut events, detach).await
    });
    follower.finish();
    match followed? {
        Followed::Ended(code) => Ok(code),
        Followed::Detached => {
            out::note("the trial runs; `lbguard confirm` keeps it, `lbguard revert` ends it");
            Ok(ExitCode::Done)
        }
        Followed::Interrupted(last) => Err(interrupted(last.as_ref())),
        Followed::AgentLost(None) => Err(client::no_agent(
            &paths.socket(),
            &"it went away before the change began",
        )),
        Followed::AgentLost(Some(last)) => {
            out::note("the agent is gone; waiting for the kernel to end the trial");
            let pins = Pins::new(paths.pin_dir());
            super::waiting::on_pins(context, &pins, last.generation)
        }
    }
}

/// Ctrl-C ends the watching, never the trial.
fn interrupted(last: Option<&Progress>) -> CliError {
    match last {
        Some(last) if last.deadline_ns.is_some() => CliError::internal(format!(
            "interrupted; the trial of generation {} goes on without this terminal",
            last.generation
        ))
        .way_out("`lbguard confirm` keeps it, `lbguard revert` ends it, else its deadline does"),
        _ => CliError::internal("interrupted before the trial: the agent gives the change up")
            .way_out("`lbguard status` shows whether it does, `lbguard revert` ends a trial"),
    }
}

async fn follow(
    context: &Context,
    follower: &mut Follower,
    events: &mut client::Events,
    detach: bool,
) -> Result<Followed, CliError> {
    let mut last = None;
    let mut redraw = tokio::time::interval(Duration::from_millis(200));
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = redraw.tick() => {
                follower.redraw();
                continue;
            }
            _ = tokio::signal::ctrl_c() => return Ok(Followed::Interrupted(last)),
        };
        let Some(event) = event else {
            return Ok(Followed::AgentLost(last));
        };
        if context.json {
            out::json_line(&event)?;
        } else {
            follower.show(&event)?;
        }
        match event {
            ApplyEvent::NotBegun { message, exit } => {
                return Err(CliError::new(ExitCode::of(exit), message));
            }
            ApplyEvent::Progress(progress) => {
                if let Some(exit) = progress.exit {
                    return Ok(Followed::Ended(ExitCode::of(exit)));
                }
                if detach && progress.deadline_ns.is_some() {
                    return Ok(Followed::Detached);
                }
                last = Some(progress);
            }
            ApplyEvent::Findings { .. }
            | ApplyEvent::Sealed(_)
            | ApplyEvent::Forecast { .. }
            | ApplyEvent::Evidence(_) => {}
        }
    }
}
