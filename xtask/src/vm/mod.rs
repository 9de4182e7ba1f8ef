//! `cargo xtask vm-test`: the end-to-end tests on Debian's own kernel, in a machine that is
//! emulated in software, so that it needs neither KVM nor root.
//!
//! Kernel and emulator come by apt, are unpacked below `target/vm` and installed nowhere.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::command::workspace;

mod archive;
mod debian;
mod elf;
mod guest;
mod machine;
mod suites;

/// What to run, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Debian package of the kernel; one that names the newest of a series is followed.
    #[arg(long, default_value = "linux-image-cloud-amd64")]
    kernel: String,
    /// Seconds after which the machine is stopped.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u8,
    /// Run every test that can run there, not only the usual six programs.
    #[arg(long)]
    all: bool,
    /// Test programs of the end-to-end crate (files or directories in tests/tests), instead.
    suites: Vec<String>,
}

/// Boots the kernel, runs the tests in it and judges what they tell.
///
/// # Errors
/// When anything missed, or did not come before the limit.
pub fn test(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let place = workspace().join("target/vm");
    fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    let kernel = debian::kernel(&options.kernel, &place)?;
    let emulator = debian::emulator(&place)?;
    let built = suites::build()?;
    let chosen = suites::choose(&built, &options.suites, options.all)?;
    let initramfs = place.join("initramfs.cpio");
    guest::pack(&kernel, &built, &chosen, &initramfs)?;
    println!(
        "vm-test: {} with {} test programs; prepared in {:.0} s",
        kernel.package,
        chosen.len(),
        begun.elapsed().as_secs_f64()
    );
    let log = place.join("console.log");
    let mut command = emulator.command(&kernel.image, &initramfs, options.cpus);
    let limit = Duration::from_secs(options.limit);
    let booted = Instant::now();
    let report = machine::run(&mut command, &log, limit)?;
    let seconds = booted.elapsed().as_secs_f64();
    println!(
        "vm-test: {} ok, {} missed; the machine ran for {seconds:.0} s; its console: {}",
        report.ok,
        report.missed,
        log.display()
    );
    report.judge()
}
