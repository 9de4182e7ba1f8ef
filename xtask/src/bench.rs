//! `cargo xtask bench`: every benchmark or some, as lines for people or as one JSON document.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::command::{host, output, workspace};
use crate::run::{END_TO_END, as_root};

/// What is to be measured, and how it is told.
#[derive(Args)]
pub struct Options {
    /// Only these.
    which: Vec<Which>,
    /// One JSON document on standard output; lines for people go to standard error.
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement, instead of its own number.
    #[arg(long)]
    rounds: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// A packet by test run, beside the floors; memory; the verifier's count.
    Speed,
    /// Frames over veth; what a judged trial costs a mix.
    Live,
    /// What following flows costs a packet.
    Evidence,
    /// A change of 1,000 VIPs.
    Scale,
    /// How a packet's cost grows with flows, VIPs, backends and CPUs.
    Growth,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Live => "live",
            Self::Evidence => "evidence",
            Self::Scale => "scale",
            Self::Growth => "growth",
        }
    }
}

/// Runs them one after another; fails at the end if one of them did.
pub fn bench(options: &Options) -> Result<()> {
    let all = Which::value_variants();
    let chosen = if options.which.is_empty() {
        all
    } else {
        &options.which
    };
    let machine = machine();
    if !options.json {
        println!("machine: {machine}");
    }
    let (mut documents, mut failed) = (Map::new(), Vec::new());
    for which in chosen {
        let name = which.name();
        if !options.json {
            println!("\nbench: {name}");
        }
        let (document, is_good) = one(name, options)?;
        documents.insert(name.to_owned(), document);
        if !is_good {
            failed.push(name);
        }
    }
    if options.json {
        let document = json!({"machine": machine, "benchmarks": documents});
        println!("{document:#}");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("no figure for part of: {}", failed.join(", "))
    }
}

/// Its document, if that is asked for, and whether all of it has figures.
fn one(name: &str, options: &Options) -> Result<(Value, bool)> {
    let mut command = as_root("bench")?;
    command.args(["--package", END_TO_END, "--bench", name, "--"]);
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    command.stdin(Stdio::null());
    if !options.json {
        let status = command.status().context("cargo bench")?;
        return Ok((Value::Null, status.success()));
    }
    command.arg("--json").stderr(Stdio::inherit());
    let done = command.output().context("cargo bench")?;
    let document = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("{name} has printed no document"));
    match document {
        Err(_) if !done.status.success() => Ok((Value::Null, false)),
        document => Ok((document?, done.status.success())),
    }
}

/// What figures depend on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name.to_owned());
    let first = |text: String| text.split_whitespace().next().unwrap_or("").to_owned();
    let mut git = Command::new("git");
    let commit = output(
        git.current_dir(workspace())
            .args(["describe", "--always", "--dirty"]),
    );
    json!({
        "target": host().unwrap_or_default(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "processor": processor,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "load": first(read("/proc/loadavg")),
        "commit": commit.unwrap_or_default().trim(),
    })
}
