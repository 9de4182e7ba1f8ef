//! What the demo prints: titles, steps with their time, figures, a bar chart.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The screen.
pub struct Show {
    colour: bool,
    step: Option<Instant>,
}

impl Show {
    /// Colours only on a terminal, and not with `NO_COLOR`.
    pub fn new() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stdout().is_terminal() && !refused,
            step: None,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn flush() {
        let _ = std::io::stdout().flush();
    }

    /// The name of an act.
    pub fn title(&mut self, text: &str) {
        self.done();
        println!("\n{}", self.paint("1;36", text));
    }

    /// Something that takes a moment; its time follows when it is done.
    pub fn step(&mut self, text: &str) {
        self.done();
        print!("  {text} ... ");
        Self::flush();
        self.step = Some(Instant::now());
    }

    /// The last step is done.
    pub fn done(&mut self) {
        if let Some(begun) = self.step.take() {
            println!("{:.1} s", begun.elapsed().as_secs_f64());
        }
    }

    /// A figure or a remark.
    pub fn say(&mut self, text: &str) {
        self.done();
        println!("  {text}");
    }

    /// A command, as an operator would type it.
    pub fn command(&mut self, text: &str) {
        self.done();
        println!("  {}", self.paint("1", &format!("$ {text}")));
    }

    /// What a command printed.
    pub fn output(text: &str) {
        for line in text.lines() {
            println!("    {line}");
        }
    }

    /// Something good, with its figure.
    pub fn good(&mut self, text: &str) {
        self.done();
        println!("  {} {text}", self.paint("1;32", "ok"));
    }

    /// Counts as bars, widest 40 characters.
    pub fn bars<'a>(&mut self, counts: impl IntoIterator<Item = (&'a String, &'a usize)>) {
        self.done();
        let counts: Vec<_> = counts.into_iter().collect();
        let most = counts
            .iter()
            .map(|(_, count)| **count)
            .max()
            .unwrap_or(1)
            .max(1);
        for (name, count) in counts {
            let bar = "#".repeat((count * 40).div_ceil(most));
            println!("    {name:<8} {count:>6}  {}", self.paint("32", &bar));
        }
    }

    /// The end, and what to try next.
    pub fn end(&mut self, took: Duration) {
        self.done();
        println!(
            "\n{} ({:.0} s)",
            self.paint("1;36", "That was it"),
            took.as_secs_f64()
        );
        println!("  Next:");
        println!("    cargo xtask test                 every claim of the README, as a test");
        println!("    docs/ARCHITECTURE.md             how it works, in ten minutes");
        println!(
            "    target/release/lbguard --help    the commands; `lbguard doctor` on a host first"
        );
    }
}
