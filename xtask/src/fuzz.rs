//! `cargo xtask soak fuzz`: the fuzzers of `fuzz/`, built with what libFuzzer needs to see where an
//! input leads, and run one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{Root, cargo_command, host, run, workspace};

/// The targets, and what each starts from besides what it has found before.
const TARGETS: [(&str, Option<&str>); 3] = [
    ("configuration", Some("docs/examples")),
    ("journal", Some("fuzz/seeds/journal")),
    ("guard", None),
];

/// The flags of cargo-fuzz but for the address sanitizer, which would need the unstable compiler
/// and finds little in safe Rust. All are stable.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// Seconds per target unless told.
const SECONDS: u64 = 300;

/// Runs the fuzzers. ARGS: `--seconds N` for each, names of targets.
pub fn soak(args: &[String]) -> Result<()> {
    let (seconds, names) = read(args)?;
    let programs = build()?;
    for (name, seeds) in TARGETS {
        if names.is_empty() || names.contains(&name) {
            fuzz(&programs, name, seeds, seconds)?;
        }
    }
    Ok(())
}

fn read(args: &[String]) -> Result<(u64, Vec<&str>)> {
    let mut seconds = SECONDS;
    let mut names = Vec::new();
    let mut args = args.iter();
    while let Some(word) = args.next() {
        match word.as_str() {
            "--seconds" => {
                let number = args.next().context("--seconds takes a number")?;
                seconds = number.parse().context("--seconds takes a number")?;
            }
            name if TARGETS.iter().any(|(target, _)| *target == name) => names.push(name),
            other => {
                bail!("`{other}` is no fuzzer: configuration, journal or guard, and --seconds N")
            }
        }
    }
    Ok((seconds, names))
}

/// Where the built programs are.
fn build() -> Result<PathBuf> {
    let (host, target) = (host()?, workspace().join("target/fuzz"));
    // With a target named, build scripts and macros are spared the flags.
    let mut build = cargo_command("build");
    build
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .args(["--release", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", &host, "--target-dir"])
        .arg(&target);
    run(&mut build)?;
    Ok(target.join(host).join("release"))
}

fn fuzz(programs: &Path, name: &str, seeds: Option<&str>, seconds: u64) -> Result<()> {
    println!("soak: fuzzer {name}, {seconds} s");
    let kept = workspace().join("target/fuzz");
    let (corpus, found) = (kept.join("corpus").join(name), kept.join("found"));
    for directory in [&corpus, &found] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let program = programs.join(name);
    let mut command = match name {
        "guard" => Root::find()
            .command(&program.to_string_lossy())
            .context("the guard's fuzzer needs root")?,
        _ => Command::new(&program),
    };
    command
        .arg(corpus)
        .args(seeds.map(|seeds| workspace().join(seeds)))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=8192", "-timeout=10", "-rss_limit_mb=2048"])
        .args(["-print_final_stats=1", "-verbosity=1"]);
    run(&mut command).with_context(|| {
        format!(
            "fuzzer {name}: the input is in {}; run it alone with `{} FILE`",
            found.display(),
            program.display()
        )
    })
}
