//! `lbguard drain` and `lbguard undrain`: backends without new flows, without editing the file.

use std::time::{Duration, Instant};

use lb_common::slot::hold;
use serde_json::json;

use super::args::{DrainArgs, UndrainArgs};
use super::{CliError, Context, client, node, out};
use crate::agent::wire::{Drain, Drained};
use crate::exit::ExitCode;
use crate::kernel::flows::{LiveFlows, entries};
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::sys::boot_ns;

/// Time between two looks at the flow table.
const EVERY: Duration = Duration::from_millis(500);

/// Drains a backend, and with `--wait` waits until its flows are gone.
pub fn drain(context: &Context, args: &DrainArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let asked = Drain {
        backend: args.backend.clone(),
        pool: args.pool.clone(),
        on: true,
        why: Some(args.why.clone()),
    };
    let answer = client::runtime()?.block_on(client::drain(&paths.socket(), &asked))?;
    tell(context, &answer)?;
    if !args.wait {
        return Ok(ExitCode::Done);
    }
    let maps = Maps::open(&Pins::new(paths.pin_dir())).map_err(CliError::internal)?;
    let idle = args.idle.unwrap_or(Duration::from_millis(answer.idle_ms));
    let wait = Wait {
        context,
        backend: &args.backend,
        members: &answer.members,
        idle,
        within: args.within,
    };
    wait.until_gone(&maps)
}

/// Takes a drained backend back.
pub fn undrain(context: &Context, args: &UndrainArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let asked = Drain {
        backend: args.backend.clone(),
        pool: args.pool.clone(),
        on: false,
        why: args.why.clone(),
    };
    let answer = client::runtime()?.block_on(client::drain(&paths.socket(), &asked))?;
    tell(context, &answer)?;
    Ok(ExitCode::Done)
}

fn tell(context: &Context, drained: &Drained) -> Result<(), CliError> {
    if context.json {
        out::json_line(drained)?;
    }
    let answer = &drained.answer;
    if !answer.done {
        return Err(CliError::new(ExitCode::of(answer.exit), &answer.message));
    }
    if !context.json {
        out::sentences(&format!("{}\n", answer.message), &[])?;
    }
    Ok(())
}

/// Waiting for the flows of a drained backend to end.
struct Wait<'a> {
    context: &'a Context,
    backend: &'a str,
    members: &'a [u32],
    idle: Duration,
    within: Option<Duration>,
}

impl Wait<'_> {
    /// Needs the pins alone, so that it goes on without the agent.
    fn until_gone(&self, maps: &Maps) -> Result<ExitCode, CliError> {
        let begun = Instant::now();
        let idle = u64::try_from(self.idle.as_nanos()).unwrap_or(u64::MAX);
        let (mut live, mut last) = (LiveFlows::new(idle), None);
        loop {
            self.still_drained(maps)?;
            let found = entries(maps, self.members).map_err(CliError::internal)?;
            let age = maps.control().map_err(CliError::internal)?.age;
            let flows = live.round(&found, age, boot_ns());
            if last.replace(flows) != Some(flows) {
                self.progress(flows, begun.elapsed())?;
            }
            if flows == 0 {
                return self.gone(begun.elapsed());
            }
            if self.within.is_some_and(|within| begun.elapsed() >= within) {
                return Err(self.too_late(flows));
            }
            std::thread::sleep(EVERY);
        }
    }

    /// Somebody else may have taken it back meanwhile.
    fn still_drained(&self, maps: &Maps) -> Result<(), CliError> {
        let taken = |id: &u32| {
            let member = maps.member(*id);
            member.is_some_and(|m| m.slots != 0 && m.holds & hold::OPERATOR == 0)
        };
        if self.members.iter().any(taken) {
            let text = format!("{} has been taken back by `lbguard undrain`", self.backend);
            return Err(CliError::refused(text));
        }
        Ok(())
    }

    fn progress(&self, flows: usize, took: Duration) -> Result<(), CliError> {
        let seconds = took.as_secs();
        if self.context.json {
            return out::json_line(&json!({
                "event": "flows", "backend": self.backend, "flows": flows, "seconds": seconds,
            }));
        }
        if flows == 0 {
            return Ok(());
        }
        out::print(&format!("{seconds:>5} s  {flows} flows\n"))
    }

    fn gone(&self, took: Duration) -> Result<ExitCode, CliError> {
        let seconds = took.as_secs();
        if self.context.json {
            out::json_line(&json!({
                "event": "drained", "backend": self.backend, "seconds": seconds, "exit": 0,
            }))?;
        } else {
            let backend = self.backend;
            let text = format!("no flow goes to {backend} any more, after {seconds} s\n");
            out::sentences(&text, &[])?;
        }
        Ok(ExitCode::Done)
    }

    fn too_late(&self, flows: usize) -> CliError {
        let text = format!(
            "{flows} flows still go to {} after {}",
            self.backend,
            humantime::format_duration(self.within.unwrap_or_default())
        );
        CliError::new(ExitCode::Inconclusive, text).way_out(
            "it stays drained: wait again with the same command, stop it and break them, or \
             `lbguard undrain` it",
        )
    }
}
