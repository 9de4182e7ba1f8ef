//! What many runs of a case have shown, as a row of a table.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::run::Run;
use crate::table::{at, ms, tell};

const HEADS: [&str; 9] = [
    "case",
    "runs",
    "in time",
    "exposed: median",
    "99 %",
    "longest",
    "flows hurt: median, most",
    "late, slowest request",
    "found by",
];

/// Bounds of a case.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the trial's beginning to its end.
    pub exposed: Duration,
    /// A run that had met fewer flows than this cannot know yet: it is not late.
    pub unless: usize,
    /// Flows hurt in any one run.
    pub hurt: usize,
    /// The slowest request.
    pub slowest: Duration,
    /// Whether running out of time with nothing proven is as good.
    pub inconclusive: bool,
}

/// The runs of a case.
#[derive(Debug, Default)]
pub struct Figures {
    name: String,
    exposed: Vec<Duration>,
    hurt: Vec<usize>,
    late: usize,
    slowest: Duration,
    found_by: BTreeMap<String, usize>,
    misses: Vec<String>,
    late_ends: usize,
}

impl Figures {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a run. A miss is one that was not put back by the evidence, or hurt too many; one that
    /// took too long is counted by [`Figures::finish`].
    pub fn add(&mut self, run: &Run, bounds: Bounds) {
        println!(
            "{}: {:?} by {}, {:?}",
            self.name, run.exposed, run.signal, run.seen
        );
        self.exposed.push(run.exposed);
        self.hurt.push(run.seen.hurt());
        self.late = self.late.max(run.seen.late);
        self.slowest = self.slowest.max(run.seen.slowest);
        *self.found_by.entry(run.signal.clone()).or_default() += 1;
        let late = run.exposed > bounds.exposed && run.met >= bounds.unless;
        self.late_ends += usize::from(late);
        let put_back =
            run.applied.is_put_back() || (bounds.inconclusive && run.applied.is_inconclusive());
        let bad = !put_back || run.seen.hurt() > bounds.hurt || run.seen.slowest > bounds.slowest;
        if bad {
            let miss = format!("{:?} {:?}: {}", run.exposed, run.seen, run.applied.text());
            self.miss(&miss);
        }
    }

    /// Something that must not be.
    pub fn miss(&mut self, why: &str) {
        println!("{}: MISSED: {why}", self.name);
        self.misses.push(why.to_owned());
    }

    /// Writes the row, and fails on any miss.
    pub fn finish(self) {
        if let Err(why) = self.close() {
            panic!("{why}");
        }
    }

    /// Writes the row; what is missed, if anything. One run in a hundred may be put back late, as
    /// long as there are a hundred.
    pub fn close(mut self) -> Result<(), String> {
        self.exposed.sort();
        self.hurt.sort_unstable();
        let row = self.row();
        tell("wrong", &HEADS, &row);
        if self.late_ends > self.exposed.len() / 100 {
            self.misses.push(format!("{} too late", self.late_ends));
        }
        if self.misses.is_empty() {
            return Ok(());
        }
        Err(format!("{}: {}", row.join(", "), self.misses.join("\n")))
    }

    fn row(&self) -> Vec<String> {
        let runs = self.exposed.len();
        let found = self.found_by.iter();
        let found: Vec<String> = found
            .map(|(signal, times)| format!("{signal} ({times})"))
            .collect();
        let [median, most, longest] = [50, 99, 100].map(|p| ms(at(&self.exposed, p)));
        vec![
            self.name.clone(),
            runs.to_string(),
            (runs - self.late_ends).to_string(),
            median,
            most,
            longest,
            format!("{}, {}", at(&self.hurt, 50), at(&self.hurt, 100)),
            format!("{}, {}", self.late, ms(self.slowest)),
            found.join(", "),
        ]
    }
}
