//! Rules and findings: what can be wrong with a file, and one thing that is.

use std::fmt;

use serde::{Serialize, Serializer};

use super::source::Source;

/// Findings kept per file; more are only counted, so that eight megabytes of noise stay readable.
pub const MAX_FINDINGS: usize = 200;

/// One thing that a file must or should be, as data: messages, `lbguard check` and the standards
/// page are made from the same table.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Stable identifier such as `LB013`; never used again for anything else.
    pub id: &'static str,
    /// How bad it is to break the rule.
    pub severity: Severity,
    /// Whether `--force-unsafe` may pass over it. False where no sane slot could be built or the
    /// guard in the kernel would refuse it anyway.
    pub forceable: bool,
    /// The rule in one line.
    pub title: &'static str,
    /// What happens to traffic when it is broken.
    pub why: &'static str,
    /// A few lines of a file that break it.
    pub example: &'static str,
    /// What to do, in general; a finding says it for the case at hand.
    pub fix: &'static str,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, and the operator should know.
    Warning,
}

/// A rule that a file breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path of the file as the operator gave it; may be empty.
    pub file: String,
    /// Line from 1; 0 = the file as a whole.
    pub line: usize,
    /// The rule that is broken.
    pub rule: &'static Rule,
    /// What is wrong, with the name of the thing.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl Finding {
    /// Whether it refuses the file.
    pub fn is_error(&self) -> bool {
        self.rule.severity == Severity::Error
    }

    /// Whether it refuses the file even under `--force-unsafe`.
    pub fn is_final(&self) -> bool {
        self.is_error() && !self.rule.forceable
    }

    /// `FILE:LINE`, or less where less is known.
    pub fn place(&self) -> String {
        match (self.file.is_empty(), self.line) {
            (true, 0) => String::new(),
            (true, line) => format!("line {line}"),
            (false, 0) => self.file.clone(),
            (false, line) => format!("{}:{line}", self.file),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("Finding", 9)?;
        object.serialize_field("file", &self.file)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("rule", self.rule.id)?;
        object.serialize_field("severity", &self.rule.severity)?;
        object.serialize_field("forceable", &self.rule.forceable)?;
        object.serialize_field("title", self.rule.title)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("why", self.rule.why)?;
        object.serialize_field("fix", &self.fix)?;
        object.end()
    }
}

/// Collects the findings of one file.
#[derive(Debug)]
pub struct Log {
    file: String,
    findings: Vec<Finding>,
    errors: usize,
    final_errors: usize,
    omitted: usize,
}

impl Log {
    /// An empty log for the file of that name.
    pub fn new(file: &str) -> Self {
        Self {
            file: quoted_path(file),
            findings: Vec::new(),
            errors: 0,
            final_errors: 0,
            omitted: 0,
        }
    }

    /// Notes a finding; text is only formatted while there is room.
    pub fn add(
        &mut self,
        rule: &'static Rule,
        line: usize,
        message: fmt::Arguments<'_>,
        fix: fmt::Arguments<'_>,
    ) {
        if rule.severity == Severity::Error {
            self.errors = self.errors.saturating_add(1);
            let fatal = usize::from(!rule.forceable);
            self.final_errors = self.final_errors.saturating_add(fatal);
        }
        if self.findings.len() >= MAX_FINDINGS {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        let (message, fix) = (message.to_string(), fix.to_string());
        self.findings.push(Finding {
            file: self.file.clone(),
            line,
            rule,
            message,
            fix,
        });
    }

    /// Errors noted so far, those that there was no room for included.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Those of them that cannot be forced.
    pub fn final_errors(&self) -> usize {
        self.final_errors
    }

    /// The findings in the order of lines, and how many there was no room for.
    pub fn finish(mut self) -> (Vec<Finding>, usize) {
        self.findings.sort_by_key(|finding| finding.line);
        (self.findings, self.omitted)
    }
}

/// A log together with the text that its offsets refer to.
#[derive(Debug)]
pub struct TextLog<'s> {
    /// Where lines come from.
    pub source: &'s Source,
    /// Where findings go.
    pub log: Log,
}

impl TextLog<'_> {
    /// Notes a finding at a byte offset of the text.
    pub fn add(
        &mut self,
        rule: &'static Rule,
        offset: usize,
        message: fmt::Arguments<'_>,
        fix: fmt::Arguments<'_>,
    ) {
        let line = self.source.line_of(offset);
        self.log.add(rule, line, message, fix);
    }
}

/// A word from a file, fit for a terminal: in backquotes, control characters escaped, cut at 64.
pub fn quoted(word: &str) -> String {
    let mut shown: String = word.chars().take(64).flat_map(char::escape_debug).collect();
    if word.chars().nth(64).is_some() {
        shown.push_str("...");
    }
    format!("`{}`", shown.replace("\\'", "'").replace("\\\"", "\""))
}

fn quoted_path(path: &str) -> String {
    path.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
