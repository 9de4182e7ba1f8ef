//! Asking twice: commands that stop forwarding want a word typed, or `--yes`.

use std::io::{self, BufRead, IsTerminal, Write};

use super::CliError;

/// Has the operator type `word` to confirm `what`; `yes` stands for having done so.
///
/// # Errors
///
/// Usage (exit 2) where nobody can be asked; refused (exit 3) for any other word.
pub fn ask(word: &str, what: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(format!(
            "{what}: not confirmed, and standard input is no terminal"
        ))
        .way_out("give --yes if it is meant"));
    }
    let _ = write!(io::stderr().lock(), "{what}\ntype {word} to confirm: ");
    let _ = io::stderr().lock().flush();
    agreed(&mut io::stdin().lock(), word)
}

fn agreed(input: &mut impl BufRead, word: &str) -> Result<(), CliError> {
    let mut line = String::new();
    let read = input.read_line(&mut line);
    if read.is_ok() && line.trim() == word {
        return Ok(());
    }
    Err(CliError::refused("not agreed to: nothing was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitCode;

    #[test]
    fn only_the_word_itself_agrees() {
        for good in ["eth1\n", " eth1 \n", "eth1"] {
            agreed(&mut good.as_bytes(), "eth1").unwrap();
        }
        for bad in ["", "\n", "yes\n", "eth10\n", "ETH1\n", "n eth1\n"] {
            let refused = agreed(&mut bad.as_bytes(), "eth1").unwrap_err();
            assert_eq!(refused.code(), ExitCode::Refused, "{bad:?}");
        }
    }
}
