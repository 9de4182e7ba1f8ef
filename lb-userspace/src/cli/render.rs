//! Text for people: at most 80 columns where words can be broken, colours only
//! when asked for.

use std::fmt::Write as _;

use jiff::Timestamp;

const WIDTH: usize = 80;

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Good, or added.
    Good,
    /// Bad, or removed.
    Bad,
    /// Changed, or to be looked at.
    Mind,
    /// A heading.
    Strong,
}

/// Text under construction.
#[derive(Clone, Debug)]
pub struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// An empty page.
    pub fn new(colour: bool) -> Self {
        Self {
            text: String::new(),
            colour,
        }
    }

    /// What has been written.
    pub fn finish(self) -> String {
        self.text
    }

    /// Adds a line in a tone, as it is.
    pub fn line(&mut self, tone: Option<Tone>, line: &str) {
        let code = match tone {
            Some(Tone::Good) => "32",
            Some(Tone::Bad) => "31",
            Some(Tone::Mind) => "33",
            Some(Tone::Strong) => "1",
            None => "",
        };
        let line = printable(line);
        // Writing to a String can't fail.
        let _ = if self.colour && !code.is_empty() {
            writeln!(self.text, "\x1b[{code}m{line}\x1b[0m")
        } else {
            writeln!(self.text, "{line}")
        };
    }

    /// Adds `words` after `label`, broken before column 80 and indented as the
    /// label. A word longer than a line stays whole, so that it can be copied.
    /// Nothing is added for no words.
    pub fn field(&mut self, label: &str, words: &str) {
        if words.trim().is_empty() {
            return;
        }
        for line in wrapped(label, words) {
            self.line(None, &line);
        }
    }
}

/// A message for a terminal: each line is broken before column 80, further lines are indented as
/// far as the line's label, its beginning up to the first of `marks`. Lines that fit stay as they
/// are, and so does a text that goes elsewhere than to a terminal.
pub fn fitted(text: &str, marks: &[&str], terminal: bool) -> String {
    if !terminal {
        return text.to_owned();
    }
    let fit = |line: &str| {
        if line.chars().count() < WIDTH {
            return line.to_owned();
        }
        let (label, words) = split_label(line, marks);
        wrapped(label, words).join("\n")
    };
    text.split('\n').map(fit).collect::<Vec<_>>().join("\n")
}

/// The longest label that a mark ends; without one, the line's own indentation.
fn split_label<'a>(line: &'a str, marks: &[&str]) -> (&'a str, &'a str) {
    let indented = line.len().saturating_sub(line.trim_start().len());
    let end = marks
        .iter()
        .filter_map(|mark| Some(line.find(mark)?.saturating_add(mark.len())))
        .filter(|end| *end < WIDTH / 2)
        .max()
        .unwrap_or(indented);
    line.split_at_checked(end).unwrap_or(("", line))
}

/// Things one a line, indented.
pub fn lines(things: &[impl std::fmt::Display]) -> String {
    things.iter().fold(String::new(), |mut text, thing| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {}", printable(&thing.to_string()));
        text
    })
}

fn wrapped(label: &str, words: &str) -> Vec<String> {
    let indent = label.chars().count();
    let mut lines = Vec::new();
    let mut line = label.to_owned();
    let mut bare = true;
    for word in words.split_whitespace() {
        let length = line.chars().count().saturating_add(word.chars().count());
        if !bare && length >= WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            bare = true;
        }
        if !bare {
            line.push(' ');
        }
        line.push_str(word);
        bare = false;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// Control characters would move the cursor of whoever reads it: shown as `?`.
fn printable(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// `2026-11-20 03:00:12Z`.
pub fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_broken_before_column_80_and_long_ones_kept_whole() {
        let mut page = Page::new(false);
        page.field("  why  ", &"word ".repeat(40));
        page.field("  x  ", &"y".repeat(100));
        let text = page.finish();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[..3].iter().all(|line| line.len() <= 80), "{text}");
        assert!(lines[1].starts_with("       word"), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        assert!(text.contains(&"y".repeat(100)));
    }

    #[test]
    fn messages_fit_a_terminal_and_keep_their_lines() {
        let text = format!("lbguard: {}\n  way out: short\n", "word ".repeat(25).trim());
        let shown = fitted(&text, &["lbguard: ", "way out: "], true);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        assert!(lines[1].starts_with("         word"), "{shown}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{shown}");
        assert_eq!(lines[2], "  way out: short");
        assert!(shown.ends_with('\n'));
        assert_eq!(fitted(&text, &[], false), text);
    }

    #[test]
    fn colours_are_only_there_when_asked_for_and_never_from_the_text() {
        for (colour, expected) in [(true, "\x1b[31mgone ?[0m\x1b[0m\n"), (false, "gone ?[0m\n")] {
            let mut page = Page::new(colour);
            page.line(Some(Tone::Bad), "gone \x1b[0m");
            assert_eq!(page.finish(), expected);
        }
    }
}
