//! `lbguard completions SHELL`: completions on standard output.

use super::args::CompletionsArgs;
use super::{CliError, Context, out};
use crate::exit::ExitCode;

/// Writes the completions of `args.shell`.
pub fn run(_: &Context, args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::tree(), "lbguard", &mut script);
    out::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
