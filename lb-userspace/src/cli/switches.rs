//! `lbguard freeze on|off` and `lbguard ack`: what stops changes from going forward.

use lb_common::guard::Op;

use super::args::{FreezeArgs, OnOff};
use super::{CliError, Context, client, node, out};
use crate::agent::wire::{Answer, Switch};
use crate::exit::ExitCode;
use crate::kernel::guard::Guard;
use crate::kernel::pins::Pins;

/// Freezes or thaws. Freezing works without an agent, on the pins.
pub fn freeze(context: &Context, args: &FreezeArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let on = args.to == OnOff::On;
    let asked = client::runtime()?.block_on(client::switch(&paths.socket(), Switch::Freeze { on }));
    match asked {
        Err(error) if error.code() == ExitCode::NoAgent && on => {
            let guard = Guard::open(&Pins::new(paths.pin_dir()).program("guard"))
                .map_err(CliError::internal)?;
            guard
                .call(Op::Freeze, 0, &[1], &[])
                .map_err(CliError::internal)?;
            out::note("no agent is running: frozen in the kernel, not in the journal");
            Ok(ExitCode::Done)
        }
        asked => tell(context, &asked?),
    }
}

/// Acknowledges a breaker that has tripped.
pub fn acknowledge(context: &Context) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let answer = client::runtime()?.block_on(client::switch(&paths.socket(), Switch::Ack))?;
    tell(context, &answer)
}

fn tell(context: &Context, answer: &Answer) -> Result<ExitCode, CliError> {
    if context.json {
        out::json_line(answer)?;
    }
    let code = ExitCode::of(answer.exit);
    if !answer.done {
        return Err(CliError::new(code, &answer.message));
    }
    if !context.json {
        out::sentences(&format!("{}\n", answer.message), &[])?;
    }
    Ok(code)
}
