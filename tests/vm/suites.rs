//! The end-to-end tests, as `cargo test` has built them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// What `xtask` lists the tests in: a line each, name, program and arguments.
const SUITES: &str = "/etc/vm/suites";

/// A program of tests.
pub struct Suite {
    /// Its name.
    pub name: String,
    program: String,
    arguments: Vec<String>,
}

/// All that were packed.
pub fn list() -> Vec<Suite> {
    let text = fs::read_to_string(SUITES).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ').map(ToOwned::to_owned);
            Some(Suite {
                name: words.next()?,
                program: words.next()?,
                arguments: words.collect(),
            })
        })
        .collect()
}

impl Suite {
    /// Runs it, one test at a time, its output to the console.
    pub fn run(&self) -> Result<String, String> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg("--test-threads=1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", self.program))?;
        let mut verdict = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap_or_default();
            println!("{line}");
            if let Some(told) = line.strip_prefix("test result: ") {
                verdict = Some(told.to_owned());
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        let verdict = verdict.ok_or_else(|| format!("it ended early: {status}"))?;
        let counts = verdict.split("; finished").next().unwrap_or_default();
        // No test at all is no evidence.
        if status.success() && !counts.contains(" 0 passed") {
            Ok(counts.trim_start_matches("ok. ").to_owned())
        } else {
            Err(counts.to_owned())
        }
    }
}
