//! The tasks of this repository. `cargo xtask demo` and `cargo xtask test` are the two that a
//! newcomer needs; each sets up what is missing first.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod command;
mod ebpf;
mod fuzz;
mod lint;
mod recipe;
mod run;
mod setup;
mod stack;
mod tables;
mod vm;

/// Tasks of the lbguard repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs what building and testing need; quick when nothing is missing.
    Setup,
    /// Builds the BPF objects and checks them.
    BuildEbpf,
    /// Formatting, clippy for the host and for BPF, cargo-deny when it is installed.
    Lint,
    /// Sets up, then runs all tests; ARGS go to `cargo test`.
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Test {
        /// Passed on to `cargo test`.
        args: Vec<String>,
    },
    /// Sets up, then runs the main job in network namespaces and tells it on screen.
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Demo {
        /// Passed on to the demo.
        args: Vec<String>,
    },
    /// Runs tests on Debian's own kernel (6.1 on Debian 12) in an emulated machine.
    VmTest(vm::Options),
    /// Measures packets, flows, trials and changes, and says which aims are met.
    Bench(bench::Options),
    /// Runs the long tests (those marked `#[ignore]`): all, or those of `guard`, `evidence`; `soak fuzz` runs the
    /// fuzzers: `soak fuzz [--seconds N] [configuration|journal|guard]`.
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Soak {
        /// Passed on to `cargo test`.
        args: Vec<String>,
    },
}

/// What follows the task's name, as typed: clap would take the first `--` for itself.
fn rest() -> Vec<String> {
    std::env::args().skip(2).collect()
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::setup(),
        Task::BuildEbpf => setup::setup().and_then(|()| ebpf::build()),
        Task::Lint => setup::setup().and_then(|()| lint::lint()),
        Task::Test { .. } => setup::setup().and_then(|()| run::test(&rest())),
        Task::Demo { args } => setup::setup().and_then(|()| run::demo(&args)),
        Task::Bench(options) => setup::setup().and_then(|()| bench::bench(&options)),
        Task::VmTest(options) => setup::setup().and_then(|()| vm::test(&options)),
        Task::Soak { .. } => setup::setup().and_then(|()| match rest().split_first() {
            Some((first, rest)) if first == "fuzz" => fuzz::soak(rest),
            _ => run::soak(&rest()),
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
