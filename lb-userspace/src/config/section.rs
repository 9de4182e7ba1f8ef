//! Walks a parsed TOML table key by key, noting everything that is wrong with it.
//!
//! Serde would stop at the first mistake; this reports all of them, each with its line and the
//! name of the thing it belongs to.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{TextLog, quoted};
use super::rules::{MISSING_KEY, SYNTAX, UNKNOWN_KEY, WRONG_TYPE};

/// Larger files get only their first syntax error: what recovery finds after it is noise.
const RECOVER_BELOW: usize = 256 << 10;
/// Syntax errors reported at most.
const MAX_SYNTAX: usize = 10;

/// Lines of a section and of its keys, for rules that look at it later.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    header: usize,
    keys: Vec<(&'static str, usize)>,
}

/// A table on its way to becoming a typed value.
#[derive(Debug)]
pub struct Section<'t> {
    /// How messages call it: "vip `shop-v4`".
    pub what: String,
    offset: usize,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
    lines: Lines,
}

/// A key that is there, with its value.
#[derive(Clone, Debug)]
pub struct Entry<'t> {
    /// How messages call its section.
    pub what: String,
    /// The key.
    pub key: &'static str,
    /// How the key could be written, for remedies.
    pub example: &'static str,
    /// The value as it stands.
    pub value: &'t Spanned<DeValue<'t>>,
}

impl Lines {
    /// Line of a key, or of the section when the key is absent.
    pub fn of(&self, key: &str) -> usize {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map_or(self.header, |(_, line)| *line)
    }

    /// Line of the section's header.
    pub fn header(&self) -> usize {
        self.header
    }
}

/// Parses the text; `None` and findings when it is not TOML.
pub fn parse_toml<'t>(log: &mut TextLog<'t>) -> Option<Spanned<DeTable<'t>>> {
    let text = log.source.text();
    let first = match DeTable::parse(text) {
        Ok(table) => return Some(table),
        Err(error) => error,
    };
    let mut errors = if text.len() <= RECOVER_BELOW {
        DeTable::parse_recoverable(text).1
    } else {
        vec![first]
    };
    errors.truncate(MAX_SYNTAX);
    let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    // What recovery says about the rest of a broken line is noise.
    errors.dedup_by_key(|error| log.source.line_of(offset(error)));
    for error in errors {
        let at = offset(&error);
        let message = error.message().lines().next().unwrap_or_default();
        let line = quoted(log.source.line_at(at));
        if log.source.ends_at(at) {
            log.add(
                &SYNTAX,
                at,
                format_args!("the file ends in the middle of something: {line} ({message})"),
                format_args!("Complete it; if the file was copied here, the copy was cut short."),
            );
        } else {
            log.add(
                &SYNTAX,
                at,
                format_args!("not TOML: {line} ({message})"),
                format_args!("Correct the line; it has the form: key = value"),
            );
        }
    }
    None
}

impl<'t> Section<'t> {
    /// The top of a file.
    pub fn top(table: &'t Spanned<DeTable<'t>>) -> Self {
        Self::new("the file".to_owned(), 0, 1, table.get_ref())
    }

    fn new(what: String, offset: usize, header: usize, table: &'t DeTable<'t>) -> Self {
        let lines = Lines {
            header,
            keys: Vec::new(),
        };
        Self {
            what,
            offset,
            table,
            known: Vec::new(),
            lines,
        }
    }

    /// Byte offset of the header.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The key, if it is there.
    pub fn take(
        &mut self,
        log: &TextLog<'_>,
        key: &'static str,
        example: &'static str,
    ) -> Option<Entry<'t>> {
        self.known.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        self.lines
            .keys
            .push((key, log.source.line_of(name.span().start)));
        Some(Entry {
            what: self.what.clone(),
            key,
            example,
            value,
        })
    }

    /// The key, or a finding that it is missing.
    pub fn need(
        &mut self,
        log: &mut TextLog<'_>,
        key: &'static str,
        example: &'static str,
    ) -> Option<Entry<'t>> {
        let entry = self.take(log, key, example);
        if entry.is_none() {
            log.add(
                &MISSING_KEY,
                self.offset,
                format_args!("{} has no `{key}`", self.what),
                format_args!("Add, for example: {example}"),
            );
        }
        entry
    }

    /// The tables under a `[[key]]`, none if there is no such key. They are called by `kind` and
    /// their name, or their place in the file while they have none.
    pub fn list(
        &mut self,
        log: &mut TextLog<'_>,
        key: &'static str,
        example: &'static str,
        kind: &str,
    ) -> Vec<Section<'t>> {
        let Some(entry) = self.take(log, key, example) else {
            return Vec::new();
        };
        let DeValue::Array(items) = entry.value.get_ref() else {
            entry.wrong_type(log, "a list of tables");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (number, item) in (1_usize..).zip(items.iter()) {
            let DeValue::Table(table) = item.get_ref() else {
                entry.wrong_type(log, "a list of tables");
                break;
            };
            let what = match table.get("name").map(Spanned::get_ref) {
                Some(DeValue::String(name)) => format!("{kind} {}", quoted(name)),
                _ => format!("{kind} number {number}"),
            };
            let at = item.span().start;
            sections.push(Section::new(what, at, log.source.line_of(at), table));
        }
        sections
    }

    /// Reports the keys that nobody asked for, and returns the lines of the others.
    pub fn finish(self, log: &mut TextLog<'_>) -> Lines {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let at = key.span().start;
            let message =
                format_args!("{} has an unknown key {}", self.what, quoted(name)).to_string();
            match closest(name, &self.known) {
                Some(near) => log.add(
                    &UNKNOWN_KEY,
                    at,
                    format_args!("{message}"),
                    format_args!("Did you mean `{near}`?"),
                ),
                None => log.add(
                    &UNKNOWN_KEY,
                    at,
                    format_args!("{message}"),
                    format_args!("Remove it. Known here: {}.", self.known.join(", ")),
                ),
            }
        }
        self.lines
    }
}

impl<'t> Entry<'t> {
    /// Byte offset of the value.
    pub fn offset(&self) -> usize {
        self.value.span().start
    }

    /// The section that the value is, if it is a table.
    pub fn section(&self, log: &mut TextLog<'_>) -> Option<Section<'t>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            self.wrong_type(log, "a table");
            return None;
        };
        let what = format!("`{}` of {}", self.key, self.what);
        let at = self.offset();
        Some(Section::new(what, at, log.source.line_of(at), table))
    }

    /// Notes that the value has the wrong type.
    pub fn wrong_type(&self, log: &mut TextLog<'_>, wanted: &str) {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        log.add(
            &WRONG_TYPE,
            self.offset(),
            format_args!(
                "`{}` of {} must be {wanted}, not {found}",
                self.key, self.what
            ),
            format_args!("Write it like this: {}", self.example),
        );
    }
}

/// The word of the list that the given one is most likely a misspelling of.
pub fn closest<'w>(word: &str, list: &[&'w str]) -> Option<&'w str> {
    if word.len() > 40 {
        return None;
    }
    let near = list
        .iter()
        .map(|known| (distance(word, known), *known))
        .min()?;
    (near.0 <= 2 && near.0 < near.1.len()).then_some(near.1)
}

/// Edit distance with swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut older: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX);
            let next = j.saturating_add(1);
            let mut best = at(&last, j).saturating_add(usize::from(from != to));
            best = best
                .min(at(&last, next).saturating_add(1))
                .min(at(&row, j).saturating_add(1));
            let swapped = i > 0
                && j > 0
                && a.get(i.saturating_sub(1)) == Some(to)
                && b.get(j.saturating_sub(1)) == Some(from);
            if swapped {
                best = best.min(at(&older, j.saturating_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        older = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(usize::MAX)
}
