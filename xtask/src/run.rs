//! `cargo xtask test`, `demo` and `soak`: what makes network namespaces runs as root, what does not
//! runs as the caller.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{Root, cargo_command, host, output, run, workspace};
use crate::tables::Tables;

/// The package of the end-to-end tests and benchmarks.
pub const END_TO_END: &str = "lb-tests";
/// Has long tests that need neither root nor network namespaces.
const UNITS: &str = "lb-userspace";

/// All tests: those of the crates, then the end-to-end ones, which run in any case: they say what
/// a failed unit test means for traffic.
pub fn test(args: &[String]) -> Result<()> {
    let mut end_to_end = as_root("test")?;
    println!("test: unit and property tests");
    let units = run(cargo_command("test")
        .args(["--workspace", "--exclude", END_TO_END])
        .args(args));
    println!("test: end-to-end tests in network namespaces");
    end_to_end.args(["--package", END_TO_END, "--no-fail-fast"]);
    run(end_to_end.args(args)).and(units)
}

/// The demo.
pub fn demo(args: &[String]) -> Result<()> {
    // The demo runs lbguard as an operator would: by its command line.
    run(cargo_command("build").args(["--release", "--package", "lb-userspace", "--bins"]))?;
    let mut command = as_root("run")?;
    command.args([
        "--quiet",
        "--release",
        "--package",
        "lb-userspace",
        "--example",
        "demo",
        "--",
    ]);
    run(command.args(args))
}

/// The long tests: those that are marked `#[ignore]` and named `soak_...`, end-to-end and not. The first
/// argument chooses among them: `guard` runs `soak_guard_...`, and a million traces of a change's
/// states; `evidence` runs `soak_evidence_...`, simulated and live, and ends with tables of what was
/// measured live.
pub fn soak(args: &[String]) -> Result<()> {
    let (which, rest) = match args.split_first() {
        Some((first, rest)) if !first.starts_with('-') => (format!("soak_{first}"), rest),
        _ => ("soak".to_owned(), args),
    };
    let unprivileged = || Ok(cargo_command("test"));
    let units = long_tests(unprivileged, &["--package", UNITS, "--lib"], &which, rest);
    let tables = Tables::new()?;
    let traced = if "soak_guard".starts_with(&which) {
        traces()
    } else {
        Ok(())
    };
    let end_to_end = || {
        let mut command = as_root("test")?;
        tables.fill_by(&mut command);
        Ok(command)
    };
    let end_to_end = long_tests(end_to_end, &["--package", END_TO_END], &which, rest);
    tables.print()?;
    if !(units? | end_to_end?) {
        bail!("there is no long test named {which}...");
    }
    traced
}

/// Runs those of a package; whether there are any.
fn long_tests(
    cargo: impl Fn() -> Result<Command>,
    package: &[&str],
    which: &str,
    rest: &[String],
) -> Result<bool> {
    let mut list = cargo()?;
    list.args(["--quiet", "--release"]).args(package);
    list.args(["--", "--ignored", "--list", which]);
    if !output(&mut list)?
        .lines()
        .any(|line| line.ends_with(": test"))
    {
        return Ok(false);
    }
    let mut soak = cargo()?;
    soak.args(["--release", "--no-fail-fast"]).args(package);
    // Live scenes see to it themselves that they fit the machine.
    let threads = if which.starts_with("soak_evidence") {
        2
    } else {
        1
    };
    soak.args(["--", "--ignored", "--nocapture"]);
    soak.arg(format!("--test-threads={threads}"));
    run(soak.arg(which).args(rest))?;
    Ok(true)
}

/// The property tests of a change's states, with a million traces each.
fn traces() -> Result<()> {
    println!("soak: 1,000,000 traces of a change's states");
    let mut traces = cargo_command("test");
    traces.env("LB_TRACES", "1000000");
    traces.args(["--release", "--package", "lb-userspace", "--lib", "traces"]);
    run(&mut traces)
}

/// A cargo command that builds as the caller and runs what it has built as root.
pub fn as_root(subcommand: &str) -> Result<Command> {
    let mut command = cargo_command(subcommand);
    match Root::find() {
        Root::Already => {}
        Root::Sudo => {
            let host = host()?.to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{host}_RUNNER"), "sudo -n -E");
        }
        Root::No => bail!(
            "network namespaces and BPF need root: run this as root, or allow sudo without a \
             password (in {})",
            workspace().display()
        ),
    }
    Ok(command)
}
