//! The test programs of the end-to-end crate: built as `cargo test` builds them.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::cargo_command;

const PACKAGE: &str = "lb-tests";
/// Programs of that package, beside its tests.
const INIT: &str = "vm-init";
const LBGUARD: &str = "lbguard-under-test";

/// What runs without being asked for: every packet and every command, the deadman, the maps, and
/// forwarding between namespaces.
const USUAL: [&str; 6] = [
    "datapath", "deadman", "forward", "frozen", "guard", "refusals",
];

/// What the kernel it is for has to be new for: `init` has a limit of its own for old ones.
const NEVER: [&str; 1] = ["verifier"];

/// Tests that an emulated machine cannot pass: program, test, and why.
const LEFT_OUT: [(&str, &str, &str); 1] = [(
    "forward",
    "the_agent_may_stop_and_die_without_a_lost_packet",
    "it counts TCP's retransmissions, and emulation is slower than TCP's timers",
)];

/// Built programs.
pub struct Built {
    /// `init` of the machine.
    pub init: PathBuf,
    /// The program under test.
    pub lbguard: PathBuf,
    /// Tests by name.
    tests: Vec<(String, PathBuf)>,
}

/// A test program that is to run.
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub program: PathBuf,
    /// What it is called with.
    pub arguments: Vec<String>,
}

/// Builds them all.
pub fn build() -> Result<Built> {
    let mut cargo = cargo_command("test");
    cargo
        .args(["--package", PACKAGE, "--tests", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let done = cargo.output().context("cargo test --no-run")?;
    if !done.status.success() {
        bail!("the tests do not build: cargo's messages are above");
    }
    let mut tests = Vec::new();
    let (mut init, mut lbguard) = (None, None);
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let Some((name, is_test, program)) = artifact(line) else {
            continue;
        };
        match name.as_str() {
            INIT => init = Some(program),
            LBGUARD => lbguard = Some(program),
            _ if is_test => tests.push((name, program)),
            _ => {}
        }
    }
    let lacking = || format!("cargo names no program {INIT} or {LBGUARD}");
    Ok(Built {
        init: init.with_context(lacking)?,
        lbguard: lbguard.with_context(lacking)?,
        tests,
    })
}

/// Name, whether it is a test of the directory `tests`, and path of a program that cargo has built.
fn artifact(line: &str) -> Option<(String, bool, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let program = message.get("executable")?.as_str()?;
    let target = message.get("target")?;
    let name = target.get("name")?.as_str()?;
    let kinds = target.get("kind")?.as_array()?;
    let is_test = kinds.iter().any(|kind| kind == "test");
    // A program's own unit tests are called as the program is.
    let is_harness = message.get("profile")?.get("test")?.as_bool()?;
    (is_test == is_harness).then(|| (name.to_owned(), is_test, program.into()))
}

/// What is to run: what was asked for, or all, or the usual.
pub fn choose(built: &Built, asked: &[String], all: bool) -> Result<Vec<Chosen>> {
    let known: Vec<&str> = built.tests.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(name) = asked.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "there is no test program {name}; there are {}",
            known.join(", ")
        );
    }
    let wanted = |name: &str| {
        if asked.is_empty() {
            (all && !NEVER.contains(&name)) || USUAL.contains(&name)
        } else {
            asked.iter().any(|asked| asked == name)
        }
    };
    let chosen = built.tests.iter().filter(|(name, _)| wanted(name));
    Ok(chosen
        .map(|(name, program)| Chosen {
            name: name.clone(),
            program: program.clone(),
            arguments: left_out(name),
        })
        .collect())
}

/// The arguments that leave out what cannot pass; each is told.
fn left_out(suite: &str) -> Vec<String> {
    let tests = LEFT_OUT.iter().filter(|(of, ..)| *of == suite);
    tests
        .flat_map(|(_, test, why)| {
            println!("vm-test: {suite}::{test} is left out: {why}");
            ["--skip", *test].map(ToOwned::to_owned)
        })
        .collect()
}
