//! The `lbguard` command: from the command line to an exit code.
//!
//! Each command is a file here with `run(&Context, &ItsArgs)`. This module
//! reads the command line, finds the paths, and turns results into exit codes;
//! it does nothing else.

mod agent;
mod apply;
pub mod args;
mod attach;
mod capture;
mod check;
mod client;
mod completions;
mod confirm;
mod confirm_typed;
mod decap;
pub mod diff;
mod doctor;
mod drain;
pub mod error;
mod evidence_view;
mod explain;
mod help;
mod history;
mod man;
pub mod node;
pub mod out;
pub mod past;
mod plan;
mod progress;
pub mod render;
mod revert;
mod show;
mod simulate;
mod status;
mod switches;
pub mod values;
mod waiting;

use std::path::Path;

use clap::{CommandFactory, Parser};

use crate::exit::ExitCode;
use crate::paths::{Overrides, Paths};
use args::{Cli, Command, GlobalArgs};
pub use error::CliError;

/// What every command is told besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where things are, by the command line alone: agent.toml has not been
    /// read. A command that reads it calls [`Context::with_node`].
    pub paths: Paths,
    /// What the command line moved; it wins over agent.toml.
    pub flags: Overrides,
    /// JSON lines instead of text.
    pub json: bool,
    /// Colours may be used on standard output.
    pub colour: bool,
}

impl Context {
    fn new(global: &GlobalArgs) -> Result<Self, CliError> {
        let flags = Overrides {
            config_dir: absolute(global.config_dir.as_deref())?,
            state_dir: absolute(global.state_dir.as_deref())?,
            run_dir: absolute(global.run_dir.as_deref())?,
            pin_dir: absolute(global.pin_dir.as_deref())?,
            socket: None,
        };
        let root = absolute(global.root.as_deref())?.unwrap_or_else(|| "/".into());
        Ok(Self {
            paths: Paths::under(&root).with(&flags)?,
            flags,
            json: global.json,
            colour: !global.json && out::colours_wanted(global.no_color),
        })
    }

    /// The paths when agent.toml has moved some: the command line still wins.
    ///
    /// # Errors
    ///
    /// A relative path in `node`.
    pub fn with_node(&self, node: &Overrides) -> Result<Paths, CliError> {
        Ok(self.paths.clone().with(node)?.with(&self.flags)?)
    }
}

/// A path typed on the command line means the caller's directory.
fn absolute(path: Option<&Path>) -> Result<Option<std::path::PathBuf>, CliError> {
    path.map(|path| {
        std::path::absolute(path)
            .map_err(|error| CliError::usage(format!("cannot use \"{}\": {error}", path.display())))
    })
    .transpose()
}

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(error) => refuse(&shortened(error)),
    };
    code.into()
}

/// The error without most of a long value, which would push what is wrong with it off the screen.
fn shortened(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    const SHOWN: usize = 60;
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.chars().count() > SHOWN
    {
        let start: String = value.chars().take(SHOWN).collect();
        let value = ContextValue::String(format!("{start}..."));
        error.insert(ContextKind::InvalidValue, value);
    }
    error
}

/// Help and version are answers (exit 0), all else that clap says is usage.
fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::Usage
    } else {
        ExitCode::Done
    }
}

/// Runs one parsed command and reports its error, if any.
fn run(cli: &Cli) -> ExitCode {
    let result = Context::new(&cli.global).and_then(|context| dispatch(&context, &cli.command));
    result.unwrap_or_else(|error| {
        error.report();
        error.code()
    })
}

fn dispatch(context: &Context, command: &Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Agent(args) => agent::run(context, args),
        Command::Check(args) => check::run(context, args),
        Command::Apply(args) => apply::run(context, args),
        Command::Confirm(args) => confirm::run(context, args),
        Command::Revert(args) => revert::run(context, args),
        Command::Capture(args) => capture::run(context, args),
        Command::Explain(args) => explain::run(context, args),
        Command::Status(args) => status::run(context, args),
        Command::Plan(args) => plan::run(context, args),
        Command::Freeze(args) => switches::freeze(context, args),
        Command::Ack(_) => switches::acknowledge(context),
        Command::Drain(args) => drain::drain(context, args),
        Command::Undrain(args) => drain::undrain(context, args),
        Command::Decap(args) => decap::run(context, args),
        Command::History(args) => history::run(context, args),
        Command::Show(args) => show::run(context, args),
        Command::Diff(args) => diff::run(context, args),
        Command::Simulate(args) => simulate::run(context, args),
        Command::Attach(args) => attach::attach(context, args),
        Command::Detach(args) => attach::detach(context, args),
        Command::Unload(args) => attach::unload(context, args),
        Command::Doctor(args) => doctor::run(context, args),
        Command::Man(args) => man::run(context, args),
        Command::Completions(args) => completions::run(context, args),
    }
}

/// The command tree, for man pages and completions.
fn tree() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod past_tests;
#[cfg(test)]
mod tests;
