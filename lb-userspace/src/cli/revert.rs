//! `lbguard revert [GEN]`: goes back. On the pinned maps alone: no agent, no file, no network.

use lb_common::control::{Cause, ControlRecord, NO_SLOT, control_flag};
use lb_common::guard::{Op, Refusal};
use serde_json::json;

use super::args::RevertArgs;
use super::{CliError, Context, apply, node, out};
use crate::agent::wire::Apply;
use crate::change::store::Store;
use crate::exit::ExitCode;
use crate::kernel::KernelError;
use crate::kernel::guard::Guard;
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::paths::Paths;

/// Ends the trial, else returns to the last known good generation; an older one is applied anew.
pub fn run(context: &Context, args: &RevertArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let pins = Pins::new(paths.pin_dir());
    let guard = Guard::open(&pins.program("guard")).map_err(not_loaded)?;
    if let Some(generation) = args.generation {
        let maps = Maps::open(&pins).map_err(CliError::internal)?;
        let record = maps.record().map_err(CliError::internal)?;
        if let Some(record) = record
            && let Some(done) = to_generation(context, &paths, &guard, &record, generation)?
        {
            return Ok(done);
        }
    }
    go_back(context, &guard, 0)
}

fn not_loaded(error: KernelError) -> CliError {
    CliError::internal(error).way_out("nothing of lbguard runs in this kernel, so nothing forwards")
}

/// `revert GEN`: `None` if the plain way back leads there.
fn to_generation(
    context: &Context,
    paths: &Paths,
    guard: &Guard,
    record: &ControlRecord,
    generation: u64,
) -> Result<Option<ExitCode>, CliError> {
    let on_trial = record.flags & control_flag::TRIAL != 0;
    if generation == record.active_generation {
        if on_trial {
            return Ok(None);
        }
        out::note(&format!("generation {generation} forwards already"));
        return Ok(Some(ExitCode::Done));
    }
    if !on_trial && record.lkg != NO_SLOT && generation == record.lkg_generation {
        return go_back(context, guard, record.active_generation).map(Some);
    }
    if on_trial {
        return Err(CliError::refused("a change is on trial")
            .way_out("`lbguard revert` without a number ends it; then name the generation again"));
    }
    let stored = Store::at(paths.generations())
        .load(generation)
        .map_err(|error| {
            CliError::refused(format!("generation {generation} cannot be read: {error}"))
                .way_out("`lbguard history` lists what there is")
        })?;
    out::note(&format!(
        "generation {generation} is older than the last known good one: it is applied as a new change"
    ));
    let request = Apply {
        file: format!("generation {generation}"),
        why: format!("revert to generation {generation}"),
        share_ppm: None,
        confirm_within_ms: None,
        force_unsafe: false,
        plan: None,
    };
    apply::ask(
        context,
        paths,
        &request,
        stored.services.into_bytes(),
        false,
    )
    .map(Some)
}

fn go_back(context: &Context, guard: &Guard, meant: u64) -> Result<ExitCode, CliError> {
    let uid = u64::from(nix::unistd::Uid::effective().as_raw());
    let args = [uid, Cause::Revert as u64, 0, meant];
    match guard.call(Op::Revert, 0, &args, &[]) {
        Ok([left, forwards, ..]) => {
            if context.json {
                out::json_line(&json!({"left": left, "forwards": forwards}))?;
            } else {
                out::print(&format!(
                    "gone back from generation {left}: generation {forwards} forwards\n"
                ))?;
            }
            Ok(ExitCode::Done)
        }
        Err(KernelError::Refused(refused)) if refused.refusal == Refusal::NoLkg => {
            Err(CliError::refused(refused)
                .way_out("`lbguard history` lists generations; `lbguard revert GEN` applies one"))
        }
        Err(KernelError::Refused(refused)) => Err(CliError::refused(refused)),
        Err(error) => Err(CliError::internal(error)),
    }
}
