//! Figures: lines for people, and with `--json` one document on standard output. What a figure should
//! be stands beside it.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

/// What a benchmark says.
pub struct Report {
    json: bool,
    rounds: Option<usize>,
    document: Map<String, Value>,
    wrong: Vec<String>,
}

impl Report {
    /// As the command line wants it: `--json`, `--rounds N`; cargo adds words of its own.
    pub fn new() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let rounds = words
            .windows(2)
            .find(|pair| pair[0] == "--rounds")
            .map(|pair| pair[1].parse().expect("--rounds N"));
        Self {
            json: words.iter().any(|word| word == "--json"),
            rounds,
            document: Map::new(),
            wrong: Vec::new(),
        }
    }

    /// Rounds that were asked for, or these.
    pub fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual).max(1)
    }

    /// A line for people.
    pub fn say(&self, line: impl fmt::Display) {
        if self.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    /// A part of the document.
    pub fn put(&mut self, name: &str, value: Value) {
        self.document.insert(name.to_owned(), value);
    }

    /// Something has no figure, since it does the wrong thing.
    pub fn no_figure(&mut self, what: &str, why: impl fmt::Display) {
        self.say(format_args!("  {what}: NO FIGURE: {why}"));
        self.wrong.push(format!("{what}: {why}"));
    }

    /// Prints the document; failure if anything was wrong.
    pub fn finish(mut self) -> ExitCode {
        let code = if self.wrong.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
        self.document.insert("wrong".to_owned(), json!(self.wrong));
        if self.json {
            println!("{}", Value::Object(self.document));
        }
        code
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// This at most.
    AtMost(f64),
    /// This at least.
    AtLeast(f64),
}

impl Aim {
    /// Whether a figure is so.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }

    /// Beside a figure: the aim, and whether it is met.
    pub fn told(self, figure: f64) -> String {
        let met = if self.is_met(figure) { "met" } else { "MISSED" };
        match self {
            Self::AtMost(most) => format!("aim <= {most}: {met}"),
            Self::AtLeast(least) => format!("aim >= {least}: {met}"),
        }
    }

    /// The same in a document.
    pub fn json(self, figure: f64) -> Value {
        let met = self.is_met(figure);
        match self {
            Self::AtMost(most) => json!({"figure": round(figure), "at_most": most, "met": met}),
            Self::AtLeast(least) => json!({"figure": round(figure), "at_least": least, "met": met}),
        }
    }
}

/// As many digits as mean something.
pub fn round(figure: f64) -> f64 {
    (figure * 1e6).round() / 1e6
}
