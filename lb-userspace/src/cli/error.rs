//! The one way a command fails: what happened, the way out, and the exit code.

use std::fmt;

use crate::exit::ExitCode;

/// Why a command did not do what it was asked to.
///
/// Printed on standard error as `lbguard: MESSAGE`, the way out on a line below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    message: String,
    way_out: Option<String>,
    code: ExitCode,
}

impl CliError {
    /// An error with any exit code.
    pub fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            way_out: None,
            code,
        }
    }

    /// Something of ours or of the machine failed: exit 1.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Internal, message)
    }

    /// The arguments make no sense together: exit 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// A check, rule, policy or the guard said no: exit 3.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Refused, message)
    }

    /// Nobody answered on the agent's socket: exit 6.
    pub fn no_agent(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::NoAgent, message)
    }

    /// Names what to do next, in the operator's words.
    #[must_use]
    pub fn way_out(mut self, text: impl fmt::Display) -> Self {
        self.way_out = Some(text.to_string());
        self
    }

    /// What the shell gets.
    pub fn code(&self) -> ExitCode {
        self.code
    }

    /// Prints the error on standard error. A closed standard error is ignored:
    /// the exit code still says it.
    pub fn report(&self) {
        super::out::note(&self.to_string());
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim_end())?;
        match &self.way_out {
            Some(way_out) => write!(f, "\n  way out: {way_out}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

/// `anyhow` at the edge: the whole chain of causes on one line.
impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(other) => Self::internal(format!("{other:#}")),
        }
    }
}

impl From<crate::paths::PathError> for CliError {
    fn from(error: crate::paths::PathError) -> Self {
        Self::usage(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_has_a_line_of_its_own() {
        let error = CliError::no_agent("no agent answers").way_out("systemctl start lbguard");
        assert_eq!(
            error.to_string(),
            "no agent answers\n  way out: systemctl start lbguard"
        );
        assert_eq!(error.code(), ExitCode::NoAgent);
    }

    #[test]
    fn a_chain_of_causes_is_kept_and_an_own_error_passes_unchanged() {
        let chain = anyhow::anyhow!("no such file").context("cannot read x.toml");
        assert_eq!(
            CliError::from(chain).to_string(),
            "cannot read x.toml: no such file"
        );
        let own = CliError::refused("no");
        assert_eq!(CliError::from(anyhow::Error::new(own.clone())), own);
    }
}
