//! `lbguard decap IFACE`: the backend's side.

use serde_json::json;

use super::args::DecapArgs;
use super::{CliError, Context, out};
use crate::decap::{self, DecapError, Mode, Options};
use crate::exit::ExitCode;
use crate::kernel::pins::ensure_bpffs;

/// Puts the program on the interface, replaces it, or takes it off.
pub fn run(context: &Context, args: &DecapArgs) -> Result<ExitCode, CliError> {
    let pins = context.paths.pin_dir();
    let interface = &args.interface;
    if args.detach {
        let was_there = decap::detach(interface, pins).map_err(failed)?;
        let text = if was_there { "is off" } else { "was not on" };
        return say(context, interface, &format!("decap {text} {interface}"));
    }
    ensure_bpffs(pins).map_err(CliError::internal)?;
    let options = Options {
        sources: args.sources.clone(),
        ..Options::default()
    };
    let attached = decap::run(interface, &options, pins).map_err(failed)?;
    let how = match attached.mode {
        Some(Mode::Native) => "native",
        Some(Mode::Generic | Mode::Auto) => "generic (slow: the driver has no native XDP)",
        None => "replaced in place",
    };
    say(
        context,
        interface,
        &format!("decap is on {interface}: {how}; it stays when this ends"),
    )
}

fn failed(error: DecapError) -> CliError {
    match error {
        foreign @ DecapError::Foreign { .. } => CliError::refused(foreign),
        other => CliError::internal(other),
    }
}

fn say(context: &Context, interface: &str, text: &str) -> Result<ExitCode, CliError> {
    if context.json {
        out::json_line(&json!({"interface": interface, "message": text}))?;
    } else {
        out::print(&format!("{text}\n"))?;
    }
    Ok(ExitCode::Done)
}
