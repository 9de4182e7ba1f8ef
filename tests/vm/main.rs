//! `init` of the machine that `cargo xtask vm-test` boots: sees what this kernel has, loads the
//! real object, times the deadman, runs the end-to-end tests, and tells each result in one line on
//! the console. Not for any other place: it turns the machine off.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::process::{Command, ExitCode};

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::wait;
use nix::unistd::Pid;

mod checks;
mod guest;
mod report;
mod suites;

/// Names the part of a process that is not `init` itself.
const WORKER: &str = "worker";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(WORKER) {
        work();
        return ExitCode::SUCCESS;
    }
    if Pid::this() != Pid::from_raw(1) {
        eprintln!("error: this is the init of a test machine: run `cargo xtask vm-test`");
        return ExitCode::from(2);
    }
    supervise();
    ExitCode::SUCCESS
}

/// Where programs are; the kernel sets no path.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the worker, takes in whatever it leaves orphaned, and turns the machine off.
fn supervise() {
    let mut worker = Command::new("/init");
    worker.env("PATH", PATH).env("LBGUARD_BIN", guest::LBGUARD);
    match worker.arg(WORKER).spawn() {
        Ok(worker) => {
            let worker = i32::try_from(worker.id()).ok().map(Pid::from_raw);
            while let Ok(status) = wait() {
                if status.pid() == worker {
                    break;
                }
            }
        }
        Err(error) => println!("init: no worker: {error}"),
    }
    // Returns only if it fails, and then the end of init is a panic of the kernel: also an end.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn work() {
    guest::prepare();
    let suites = suites::list();
    report::plan(checks::ALL.len() + suites.len() + 1);
    for (name, check) in checks::ALL {
        report::result(name, check);
    }
    for suite in &suites {
        report::result(&format!("tests/{}", suite.name), || suite.run());
    }
    report::result("kernel log", checks::no_complaint);
    report::end();
}
