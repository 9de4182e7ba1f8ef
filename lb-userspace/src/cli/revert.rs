//! `lbguard revert [GEN]`: goes back. On the pinned maps alone: no agent, no file, no network.

use std::time::Duration;

use lb_common::control::{Cause, ControlRecord, NO_SLOT, control_flag};
use lb_common::guard::{Op, Refusal};
use serde_json::json;

use super::args::RevertArgs;
use super::{CliError, Context, apply, node, out};
use crate::agent::wire::Apply;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::{Entry, Journal, JournalError, Kind};
use crate::change::store::Store;
use crate::exit::ExitCode;
use crate::kernel::KernelError;
use crate::kernel::guard::Guard;
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::paths::Paths;
use crate::sys::boot_ns;

/// For how long after the end of a trial a plain `revert` is taken to have meant that trial.
const SETTLED: Duration = Duration::from_secs(10);

/// Ends the trial, else returns to the last known good generation; an older one is applied anew.
pub fn run(context: &Context, args: &RevertArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let pins = Pins::new(paths.pin_dir());
    let guard = Guard::open(&pins.program("guard")).map_err(|error| not_loaded(error, &pins))?;
    let maps = Maps::open(&pins).map_err(CliError::internal)?;
    let record = maps.record().map_err(CliError::internal)?;
    let Some(record) = record else {
        return go_back(context, &paths, &guard, Way::WHEREVER);
    };
    if let Some(generation) = args.generation
        && let Some(done) = to_generation(context, &paths, &guard, &record, generation)?
    {
        return Ok(done);
    }
    let way = way_back(&record, boot_ns())?;
    go_back(context, &paths, &guard, way)
}

/// What the guard is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    /// The generation to leave; 0 = whichever it is.
    from: u64,
    /// Leave a commit alone.
    trial_only: bool,
}

impl Way {
    const WHEREVER: Self = Self {
        from: 0,
        trial_only: false,
    };
}

/// The plain `revert`. Asked for twice, or a moment after the deadline, it must not take a good
/// generation away as well.
fn way_back(record: &ControlRecord, now_ns: u64) -> Result<Way, CliError> {
    if record.flags & control_flag::TRIAL != 0 {
        return Ok(Way {
            from: record.shadow_generation,
            trial_only: true,
        });
    }
    if record.lkg == NO_SLOT {
        return Ok(Way::WHEREVER);
    }
    let (active, lkg) = (record.active_generation, record.lkg_generation);
    let cause = Cause::from_code(record.cause);
    let since = Duration::from_nanos(now_ns.saturating_sub(record.ended_ns));
    if !matches!(cause, Cause::None | Cause::Confirmed) && since < SETTLED {
        return Err(CliError::refused(format!(
            "the trial of generation {} ended {} s ago ({}): generation {active} forwards, and \
             nothing was changed now",
            record.ended_generation,
            since.as_secs(),
            cause.as_str()
        ))
        .way_out(format!(
            "`lbguard revert {lkg}` goes back further, from generation {active} to {lkg}"
        )));
    }
    Ok(Way {
        from: active,
        trial_only: false,
    })
}

fn not_loaded(error: KernelError, pins: &Pins) -> CliError {
    let attached = pins.linked();
    let way_out = if attached.is_empty() {
        "nothing of lbguard runs in this kernel, so nothing forwards".to_owned()
    } else {
        format!(
            "what was last in force or on trial forwards on, by {}; `lbguard unload` takes it off",
            attached.join(", ")
        )
    };
    CliError::internal(error).way_out(way_out)
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
        let way = Way {
            from: record.active_generation,
            trial_only: false,
        };
        return go_back(context, paths, guard, way).map(Some);
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
        "generation {generation} is no longer in the kernel: it is applied as a new change"
    ));
    let request = Apply {
        file: format!("generation {generation}"),
        why: format!("revert to generation {generation}"),
        share_ppm: None,
        confirm_within_ms: None,
        confirm_auto: false,
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

fn go_back(
    context: &Context,
    paths: &Paths,
    guard: &Guard,
    way: Way,
) -> Result<ExitCode, CliError> {
    let uid = u64::from(nix::unistd::Uid::effective().as_raw());
    let args = [
        uid,
        Cause::Revert as u64,
        u64::from(way.trial_only),
        way.from,
    ];
    match guard.call(Op::Revert, 0, &args, &[]) {
        Ok([left, forwards, ..]) => {
            if !way.trial_only {
                record_it(paths, left, forwards);
            }
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
        Err(KernelError::Refused(refused)) if refused.refusal == Refusal::NoTrial => Err(
            CliError::refused("the trial ended at this very moment; nothing was changed")
                .way_out("`lbguard status` says what forwards"),
        ),
        Err(KernelError::Refused(refused)) => Err(CliError::refused(refused)),
        Err(error) => Err(CliError::internal(error)),
    }
}

/// Without an agent nobody else writes down that a commit was taken back, and after a reboot the
/// agent would load it again. An agent that runs has the journal locked and writes it itself.
fn record_it(paths: &Paths, left: u64, forwards: u64) {
    if !paths.journal().exists() {
        return;
    }
    let entry = Entry {
        kind: Kind::RolledBack,
        change: None,
        generation: Some(forwards),
        actor: Actor::me(),
        why: None,
        body: json!({"from": left, "offline": true}),
    };
    let written = match Journal::open(&paths.journal()) {
        Err(JournalError::Locked { .. }) => return,
        Err(error) => Err(error),
        Ok((mut journal, _)) => journal.append(entry, Now::read()),
    };
    if let Err(error) = written {
        out::note(&format!(
            "warning: not recorded ({error}): start the agent before the next reboot, or \
             generation {left} is loaded again"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    const NOW: u64 = 100_000_000_000;

    fn committed() -> ControlRecord {
        let mut record = ControlRecord::new_zeroed();
        (record.active, record.lkg, record.shadow) = (1, 0, NO_SLOT);
        (record.active_generation, record.lkg_generation) = (5, 4);
        record.cause = Cause::Confirmed as u32;
        record.ended_ns = NOW;
        record
    }

    #[test]
    fn a_commit_is_taken_back_at_once() {
        let way = way_back(&committed(), NOW).unwrap();
        assert_eq!((way.from, way.trial_only), (5, false));
    }

    #[test]
    fn a_trial_alone_is_ended_and_the_second_press_changes_nothing() {
        let mut record = committed();
        record.flags = control_flag::TRIAL;
        (record.shadow, record.shadow_generation) = (2, 6);
        let way = way_back(&record, NOW).unwrap();
        assert_eq!((way.from, way.trial_only), (6, true));
        let over = record.trial_over(Cause::Deadline, u32::MAX, NOW);
        let told = way_back(&over, NOW + 1_000_000_000).unwrap_err();
        assert_eq!(told.code(), ExitCode::Refused);
        assert!(told.to_string().contains("`lbguard revert 4`"), "{told}");
        let later = NOW + u64::try_from(SETTLED.as_nanos()).unwrap();
        assert_eq!(way_back(&over, later).unwrap().from, 5);
    }
}
