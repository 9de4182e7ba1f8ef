//! `lbguard man DIR`: man pages, one for each command, for packages to ship.

use std::fs;

use super::args::ManArgs;
use super::{CliError, Context, out};
use crate::exit::ExitCode;

/// Writes the pages and prints how many there are.
pub fn run(_: &Context, args: &ManArgs) -> Result<ExitCode, CliError> {
    let dir = args.dir.as_path();
    let failed = |error: std::io::Error| {
        CliError::internal(format!(
            "cannot write man pages to {}: {error}",
            dir.display()
        ))
    };
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(super::tree(), dir).map_err(failed)?;
    let pages = fs::read_dir(dir).map_err(failed)?.count();
    out::print(&format!("{pages} man pages in {}\n", dir.display()))?;
    Ok(ExitCode::Done)
}
