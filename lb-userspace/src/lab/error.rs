//! What can go wrong in a lab, and waiting for something to come true.

use std::io;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The process may not make namespaces.
    #[error("a lab needs root, for network namespaces and BPF")]
    NotRoot,
    /// An operation of the system failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation and its object.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed: {stderr}")]
    Command {
        /// The command, as typed.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// A condition did not come true in time.
    #[error("{what}: not so after {after:?}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// More hosts were asked for than a segment has addresses.
    #[error("a segment has room for {0} hosts of a kind")]
    TooManyHosts(usize),
    /// Two hosts would have the same name.
    #[error("two hosts would be called {0}")]
    TwoHosts(String),
    /// A BPF program of the lab did not load or attach.
    #[error(transparent)]
    Decap(#[from] crate::decap::DecapError),
}

/// Names the operation of an [`io::Error`].
pub(super) trait Context<T> {
    /// `what` is made only for an error.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|source| LabError::Io {
            what: what(),
            source: source.into(),
        })
    }
}

/// Runs `command` to its end.
pub(super) fn run(command: &mut Command) -> Result<Output, LabError> {
    let shown = show(command);
    let output = command.output().context(|| shown.clone())?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Command {
        command: shown,
        stderr: format!("{stderr} ({})", output.status),
    })
}

/// The command as one would type it.
pub(super) fn show(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Asks `condition` again and again until it gives a value.
///
/// # Errors
/// [`LabError::Timeout`], which names `what`, once `limit` has passed.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, LabError> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if started.elapsed() >= limit {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                after: limit,
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_asks_again_and_gives_up_by_name() {
        let mut asked = 0;
        let limit = Duration::from_secs(5);
        let value = until("three", limit, || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(value.unwrap(), 3);
        let error = until::<()>("the moon", Duration::ZERO, || None).unwrap_err();
        assert!(error.to_string().starts_with("the moon"), "{error}");
    }
}
