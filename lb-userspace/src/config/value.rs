//! Values of keys: each reader returns the typed value, or `None` and a finding.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use super::finding::{TextLog, quoted};
use super::rules::{BAD_VALUE, NAME};
use super::section::{Entry, closest};

/// Longest name in bytes: what the kernel's name tables hold.
pub const MAX_NAME: usize = 63;

/// Why some text is not a name; `None` if it is one.
pub fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".to_owned());
    }
    if name.len() > MAX_NAME {
        return Some(format!(
            "is {} bytes long, {MAX_NAME} is the most",
            name.len()
        ));
    }
    let odd = name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c))?;
    Some(format!(
        "has a character that is not allowed: `{}`",
        odd.escape_debug()
    ))
}

impl<'t> Entry<'t> {
    /// Notes that the value is not usable.
    pub fn bad(&self, log: &mut TextLog<'_>, problem: &str, fix: &str) {
        log.add(
            &BAD_VALUE,
            self.offset(),
            format_args!("`{}` of {} {problem}", self.key, self.what),
            format_args!("{fix}"),
        );
    }

    /// A string.
    pub fn text(&self, log: &mut TextLog<'_>) -> Option<&'t str> {
        if let DeValue::String(text) = self.value.get_ref() {
            return Some(text);
        }
        self.wrong_type(log, "a string");
        None
    }

    /// A string that is a name ([`name_problem`]).
    pub fn name(&self, log: &mut TextLog<'_>) -> Option<String> {
        let text = self.text(log)?;
        let Some(problem) = name_problem(text) else {
            return Some(text.to_owned());
        };
        log.add(
            &NAME,
            self.offset(),
            format_args!("`{}` of {} {problem}", self.key, self.what),
            format_args!("{}", NAME.fix),
        );
        None
    }

    /// A string of 1 to `max` printable ASCII characters.
    pub fn printable(&self, log: &mut TextLog<'_>, max: usize) -> Option<String> {
        let text = self.text(log)?;
        let fine = (1..=max).contains(&text.len()) && text.bytes().all(|b| (32..127).contains(&b));
        if !fine {
            let problem = format!("must be 1 to {max} printable ASCII characters");
            self.bad(
                log,
                &problem,
                &format!("Write it like this: {}", self.example),
            );
            return None;
        }
        Some(text.to_owned())
    }

    /// A whole number from `min` to `max`.
    pub fn integer<T>(&self, log: &mut TextLog<'_>, min: T, max: T) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
    {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            self.wrong_type(log, "a whole number");
            return None;
        };
        let value = number(integer).and_then(|value| T::try_from(value).ok());
        let value = value.filter(|value| (min..=max).contains(value));
        if value.is_none() {
            let problem = format!("is {}, outside {min} to {max}", quoted(integer.as_str()));
            self.bad(log, &problem, &format!("Use a number from {min} to {max}."));
        }
        value
    }

    /// True or false.
    pub fn boolean(&self, log: &mut TextLog<'_>) -> Option<bool> {
        if let DeValue::Boolean(value) = self.value.get_ref() {
            return Some(*value);
        }
        self.wrong_type(log, "true or false");
        None
    }

    /// A list of whole percentages, each 1 to `max`.
    pub fn percentages(&self, log: &mut TextLog<'_>, max: u8) -> Option<Vec<u8>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            self.wrong_type(log, "a list of whole numbers");
            return None;
        };
        let numbers: Option<Vec<u8>> = items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Integer(integer) => number(integer)
                    .and_then(|value| u8::try_from(value).ok())
                    .filter(|value| (1..=max).contains(value)),
                _ => None,
            })
            .collect();
        if numbers.is_none() {
            let fix = format!("Use whole numbers from 1 to {max}.");
            self.bad(log, "has something else than percentages in it", &fix);
        }
        numbers
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, log: &mut TextLog<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(log)?;
        self.one_of(log, text, words)
    }

    /// A list of different words out of a few.
    pub fn words<T: Copy + Ord>(
        &self,
        log: &mut TextLog<'_>,
        words: &[(&'static str, T)],
    ) -> std::collections::BTreeSet<T> {
        let mut set = std::collections::BTreeSet::new();
        for text in self.strings(log) {
            let Some(word) = self.one_of(log, text, words) else {
                continue;
            };
            if !set.insert(word) {
                let problem = format!("lists {} twice", quoted(text));
                self.bad(log, &problem, "Remove one of them.");
            }
        }
        set
    }

    /// A list of strings.
    pub fn strings(&self, log: &mut TextLog<'_>) -> Vec<&'t str> {
        let mut strings = Vec::new();
        let DeValue::Array(items) = self.value.get_ref() else {
            self.wrong_type(log, "a list of strings");
            return strings;
        };
        for item in items {
            let DeValue::String(text) = item.get_ref() else {
                self.wrong_type(log, "a list of strings");
                break;
            };
            strings.push(text.as_ref());
        }
        strings
    }

    fn one_of<T: Copy>(
        &self,
        log: &mut TextLog<'_>,
        text: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = closest(text, &known).map(|near| format!("Did you mean `{near}`? "));
        let fix = format!("{}Known: {}.", hint.unwrap_or_default(), known.join(", "));
        self.bad(log, &format!("does not know {}", quoted(text)), &fix);
        None
    }

    /// An IPv4 or IPv6 address without port, prefix or zone.
    pub fn address(&self, log: &mut TextLog<'_>) -> Option<IpAddr> {
        let text = self.text(log)?;
        let address = text.parse().ok();
        if address.is_none() {
            let problem = format!("is not an IP address: {}", quoted(text));
            let fix = "Write an address alone, such as 203.0.113.10 or 2001:db8::10: no name, \
                       port, prefix or zone.";
            self.bad(log, &problem, fix);
        }
        address
    }

    /// A duration such as `"500ms"`, in whole milliseconds.
    pub fn duration(
        &self,
        log: &mut TextLog<'_>,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let text = self.text(log)?;
        let shown = |duration| humantime::format_duration(duration).to_string();
        let Ok(duration) = humantime::parse_duration(text) else {
            let problem = format!("is not a duration: {}", quoted(text));
            self.bad(
                log,
                &problem,
                &format!("Write it like this: {}", self.example),
            );
            return None;
        };
        if duration.subsec_nanos() % 1_000_000 != 0 {
            self.bad(log, "has parts of a millisecond", "Use whole milliseconds.");
            return None;
        }
        if !(min..=max).contains(&duration) {
            let problem = format!("is {}, outside its range", quoted(text));
            let fix = format!("Use {} to {}.", shown(min), shown(max));
            self.bad(log, &problem, &fix);
            return None;
        }
        Some(duration)
    }

    /// A share such as `"40%"` or `"33.5%"`, above 0 and up to 100 %, in parts per million. A bare
    /// number is refused: 1 could be one percent or all.
    pub fn percent(&self, log: &mut TextLog<'_>) -> Option<u32> {
        let text = self.text(log)?;
        let ppm = text.strip_suffix('%').and_then(|number| ppm(number.trim()));
        if ppm.is_none() {
            let problem = format!("is not a share above 0% and up to 100%: {}", quoted(text));
            self.bad(
                log,
                &problem,
                &format!("Write it like this: {}", self.example),
            );
        }
        ppm
    }
}

fn number(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Percent with up to four decimals, to parts per million: 1 to 1,000,000.
fn ppm(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || whole.len() > 3 || decimals.len() > 4 {
        return None;
    }
    let decimals: u32 = format!("{decimals:0<4}").parse().ok()?;
    let whole: u32 = whole.parse().ok()?;
    let ppm = whole.checked_mul(10_000)?.checked_add(decimals)?;
    (1..=1_000_000).contains(&ppm).then_some(ppm)
}
