//! Loading of `agent.toml` and `policy.toml`: all findings at once, or the checked type.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::finding::{Finding, Log, TextLog};
use super::source::{Source, read_bounded};

/// Why a node file could not be loaded. `Display` is fit for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file does not exist; says how to write one.
    #[error("{file}: no such file\n  fix: write one; the least that works:\n\n{example}")]
    Missing {
        /// Path as given.
        file: String,
        /// A complete small file.
        example: &'static str,
    },
    /// The file could not be read.
    #[error("{file}: {error}\n  fix: make it readable for the user that runs lbguard")]
    Unreadable {
        /// Path as given.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not right.
    #[error("{}", lines(.0, *.1))]
    Findings(Vec<Finding>, usize),
}

/// Reads a file and gives it to `read`, whose result counts only when nothing was found.
pub(super) fn load<T>(
    path: &Path,
    example: &'static str,
    read: impl FnOnce(&mut TextLog<'_>) -> Option<T>,
) -> Result<T, LoadError> {
    let file = path.display().to_string();
    match read_bounded(path) {
        Ok(bytes) => parse(&bytes, &file, read),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(LoadError::Missing { file, example })
        }
        Err(error) => Err(LoadError::Unreadable { file, error }),
    }
}

/// The same for bytes at hand.
pub(super) fn parse<T>(
    bytes: &[u8],
    file: &str,
    read: impl FnOnce(&mut TextLog<'_>) -> Option<T>,
) -> Result<T, LoadError> {
    let mut log = Log::new(file);
    let mut value = None;
    if let Some(source) = Source::from_bytes(bytes, &mut log) {
        let mut text_log = TextLog {
            source: &source,
            log,
        };
        value = read(&mut text_log);
        log = text_log.log;
    }
    let errors = log.errors();
    let (findings, omitted) = log.finish();
    value
        .filter(|_| errors == 0)
        .ok_or(LoadError::Findings(findings, omitted))
}

fn lines(findings: &[Finding], omitted: usize) -> String {
    let mut text = findings
        .iter()
        .map(|f| {
            format!(
                "{}: {} [{}]\n  fix: {}",
                f.place(),
                f.message,
                f.rule.id,
                f.fix
            )
        })
        .collect::<Vec<_>>()
        .join("\n");
    if omitted > 0 {
        let _ = write!(text, "\n... and {omitted} more");
    }
    text
}
