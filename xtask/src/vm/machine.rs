//! Runs the machine, and reads what its `init` tells on the console.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Begins the lines of `init` (tests/vm/report.rs).
const MARK: &str = "vm: ";

/// Lines before a miss that are shown with it.
const BEFORE: usize = 60;

/// What the machine has told.
#[derive(Default)]
pub struct Report {
    /// Results that were announced.
    planned: Option<usize>,
    /// Results that are good.
    pub ok: usize,
    /// Results that are not.
    pub missed: usize,
    /// Whether the last line has come.
    ended: bool,
    /// Whether it was stopped at the limit.
    stopped: bool,
    /// The latest lines that are not results.
    lines: Vec<String>,
}

impl Report {
    /// Good only if everything that was announced has come, and is good.
    ///
    /// # Errors
    /// Says what is not.
    pub fn judge(&self) -> Result<()> {
        let come = self.ok + self.missed;
        let planned = self.planned.unwrap_or_default();
        if self.stopped {
            bail!("the machine was stopped at the limit after {come} of {planned} results");
        }
        if !self.ended || planned != come || come == 0 {
            bail!("the machine ended after {come} of {planned} results");
        }
        if self.missed > 0 {
            bail!("{} of {planned} results are misses", self.missed);
        }
        Ok(())
    }

    fn take(&mut self, line: &str) {
        let Some(told) = line.strip_prefix(MARK) else {
            self.lines.push(line.to_owned());
            return;
        };
        if let Some(number) = told.strip_prefix("plan ") {
            self.planned = number.parse().ok();
        } else if told == "end" {
            self.ended = true;
        } else if let Some(good) = told.strip_prefix("ok ") {
            self.ok += 1;
            println!("  ok    {good}");
        } else if let Some(bad) = told.strip_prefix("MISS ") {
            self.missed += 1;
            self.show_lines();
            println!("  MISS  {bad}");
        }
        self.lines.clear();
    }

    fn show_lines(&self) {
        let first = self.lines.len().saturating_sub(BEFORE);
        for line in self.lines.iter().skip(first) {
            println!("        {line}");
        }
    }
}

/// Ends the machine with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it, reads its console until it ends, and stops it at the limit.
pub fn run(command: &mut Command, log: &Path, limit: Duration) -> Result<Report> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = Running(child.context("start the emulator")?);
    let console = child.0.stdout.take().context("the emulator's output")?;
    let mut log = File::create(log).with_context(|| log.display().to_string())?;
    let (send, lines) = channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        // The console is bytes: firmware and panics are not always UTF-8.
        while matches!(console.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut report = Report::default();
    follow(&lines, limit, &mut report, &mut log)?;
    if !report.ended {
        report.show_lines();
    }
    Ok(report)
}

fn follow(
    lines: &Receiver<String>,
    limit: Duration,
    report: &mut Report,
    log: &mut File,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        match lines.recv_timeout(limit.saturating_sub(begun.elapsed())) {
            Ok(line) => {
                writeln!(log, "{:8.3} {line}", begun.elapsed().as_secs_f64())?;
                report.take(&line);
            }
            Err(RecvTimeoutError::Timeout) => {
                report.stopped = true;
                return Ok(());
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Result<()> {
        let mut report = Report::default();
        for line in lines {
            report.take(line);
        }
        report.judge()
    }

    #[test]
    fn only_all_results_and_the_end_are_good() {
        let all = [
            "vm: plan 2",
            "vm: ok a: x",
            "noise",
            "vm: ok b: y",
            "vm: end",
        ];
        assert!(told(&all).is_ok());
        for missing in 0..all.len() {
            let mut some = all.to_vec();
            let line = some.remove(missing);
            assert_eq!(told(&some).is_ok(), line == "noise", "without {line}");
        }
        assert!(told(&["vm: plan 1", "vm: MISS a: x", "vm: end"]).is_err());
        assert!(told(&["vm: plan 0", "vm: end"]).is_err());
    }
}
