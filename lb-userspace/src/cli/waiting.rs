//! Waiting for the end of a trial on the pins alone, when the agent is gone.

use std::time::Duration;

use serde_json::json;

use super::{CliError, Context, out};
use crate::change::machine::{KernelView, Trial};
use crate::exit::ExitCode;
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::sys::boot_ns;

/// Polls the control record until `generation` is committed or over.
pub fn on_pins(context: &Context, pins: &Pins, generation: u64) -> Result<ExitCode, CliError> {
    let maps = Maps::open(pins).map_err(CliError::internal)?;
    loop {
        let record = maps.record().map_err(CliError::internal)?;
        let Some(record) = record else {
            return Err(CliError::internal("the guard has not been started"));
        };
        let view = KernelView::of(&record, boot_ns());
        if view.active == generation {
            return say(context, generation, "committed", "", ExitCode::Done);
        }
        match view.trial {
            Trial::Live { generation: on, .. } if on == generation => {}
            Trial::Over {
                generation: over,
                cause,
                ..
            } if over == generation => {
                return say(
                    context,
                    generation,
                    "reverted",
                    cause.as_str(),
                    ExitCode::Reverted,
                );
            }
            _ => {
                return say(
                    context,
                    generation,
                    "aborted",
                    "never on trial",
                    ExitCode::Reverted,
                );
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn say(
    context: &Context,
    generation: u64,
    state: &str,
    cause: &str,
    code: ExitCode,
) -> Result<ExitCode, CliError> {
    if context.json {
        out::json_line(&json!({
            "event": "kernel", "generation": generation, "state": state, "cause": cause,
            "exit": code.code(),
        }))?;
    } else if cause.is_empty() {
        out::print(&format!("generation {generation}  {state}\n"))?;
    } else {
        out::print(&format!(
            "generation {generation}  {state}  by the kernel: {cause}\n"
        ))?;
    }
    Ok(code)
}
