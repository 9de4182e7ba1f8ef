//! What the `lbguard` command says to the shell when it ends.
//!
//! Scripts branch on these numbers, so each has one meaning and none is ever
//! reused. A change that was put back must never look like success: only
//! [`ExitCode::Done`] is 0.

use std::fmt;

/// Exit code of every `lbguard` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// 0: done. For `apply`: the change is committed.
    Done = 0,
    /// 1: something of ours, or of the machine, failed.
    Internal = 1,
    /// 2: the command line was not understood.
    Usage = 2,
    /// 3: refused by a check, a rule, the policy or the guard in the kernel.
    Refused = 3,
    /// 4: the change was on trial and was put back.
    Reverted = 4,
    /// 5: the evidence was inconclusive, so the change was put back.
    Inconclusive = 5,
    /// 6: no agent answered, and the command needs one.
    NoAgent = 6,
}

impl ExitCode {
    /// Every code, in order: for tables in help texts and tests.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::Refused,
        Self::Reverted,
        Self::Inconclusive,
        Self::NoAgent,
    ];

    /// From its number, as an agent sends it; unknown numbers are [`ExitCode::Internal`].
    pub fn of(number: u8) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| code.code() == number)
            .unwrap_or(Self::Internal)
    }

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// One line for help texts.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done (apply: committed)",
            Self::Internal => "internal error",
            Self::Usage => "usage error",
            Self::Refused => "refused by a check, a rule, the policy or the guard",
            Self::Reverted => "the change was put back (also: not confirmed in time)",
            Self::Inconclusive => "inconclusive, and put back",
            Self::NoAgent => "no agent is running",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code(), self.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_numbers_in_order() {
        for (number, code) in (0u8..).zip(ExitCode::ALL) {
            assert_eq!(code.code(), number, "{code}");
        }
    }

    #[test]
    fn meanings_differ() {
        let mut seen: Vec<_> = ExitCode::ALL.iter().map(|c| c.meaning()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ExitCode::ALL.len());
    }
}
