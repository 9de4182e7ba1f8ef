//! `lbguard confirm`: keeps the configuration that is on trial.

use super::args::ConfirmArgs;
use super::{CliError, Context, client, node, out};
use crate::exit::ExitCode;

/// Asks the agent; the kernel refuses a confirmation after the deadline.
pub fn run(context: &Context, args: &ConfirmArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let answer =
        client::runtime()?.block_on(client::confirm(&paths.socket(), args.accept_unproven))?;
    if context.json {
        out::json_line(&answer)?;
    }
    let code = ExitCode::of(answer.exit);
    if !answer.done {
        return Err(CliError::new(code, answer.message));
    }
    if !context.json {
        out::sentences(&format!("{}\n", answer.message), &[])?;
    }
    Ok(code)
}
