//! Why a change is made, in its author's words: one line of the history, for whoever is on call next.

/// Most characters of a reason: a few lines on a screen, and a journal that stays small.
pub const LONGEST: usize = 500;

/// Text that says something: blank is refused, and so are control characters, which would forge
/// lines in the history.
///
/// # Errors
///
/// A sentence that says what to write instead.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say why, in a few words: it is what the next person on call reads".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("one line, without control characters".to_owned());
    }
    let length = text.chars().count();
    if length > LONGEST {
        return Err(format!(
            "{length} characters, and {LONGEST} at most: name the ticket that has the rest"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        assert_eq!(reason("  add web-3 ").unwrap(), "add web-3");
        assert!(reason(" ").is_err());
        assert!(reason("a\nb").is_err());
        assert!(reason(&"\u{fc}".repeat(LONGEST)).is_ok());
        assert!(
            reason(&"x".repeat(LONGEST + 1))
                .unwrap_err()
                .contains("501")
        );
    }
}
