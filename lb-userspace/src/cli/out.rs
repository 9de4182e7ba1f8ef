//! Standard output of a command: text or JSON lines, and a closed pipe is fine.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::CliError;
use super::render::fitted;

/// Writes text; `lbguard history | head` ends quietly when `head` has enough.
///
/// # Errors
///
/// Anything but a closed pipe, such as a full disk behind `> file`.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::internal(
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes one JSON object and a newline.
///
/// # Errors
///
/// As [`print`]; also a value that JSON can't hold.
pub fn json_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    let mut line = serde_json::to_string(value)
        .map_err(|error| CliError::internal(format!("cannot write JSON: {error}")))?;
    line.push('\n');
    print(&line)
}

/// Writes sentences: broken at 80 columns on a terminal, further lines indented behind the first of
/// `marks` that a line has.
///
/// # Errors
///
/// As [`print`].
pub fn sentences(text: &str, marks: &[&str]) -> Result<(), CliError> {
    print(&fitted(text, marks, io::stdout().is_terminal()))
}

/// A remark on standard error, which a closed standard error may swallow.
pub fn note(text: &str) {
    let text = format!("lbguard: {text}\n");
    let marks = ["lbguard: ", "way out: "];
    let text = fitted(&text, &marks, io::stderr().is_terminal());
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Colours are for people: a terminal, and nobody who said no.
///
/// `NO_COLOR` counts when it is set and not empty (<https://no-color.org>).
pub fn colours_wanted(no_color_flag: bool) -> bool {
    let env_says_no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !no_color_flag && !env_says_no && !dumb && io::stdout().is_terminal()
}
