//! Rules of form: what makes a file readable at all. Rules of sense are in [`crate::check`].
//!
//! None of them can be forced: a file that breaks one has no meaning to go by.

use super::finding::{Rule, Severity};

/// The rules of form, by id.
pub const FORM_RULES: &[&Rule] = &[
    &UNREADABLE,
    &SYNTAX,
    &UNKNOWN_KEY,
    &MISSING_KEY,
    &WRONG_TYPE,
    &BAD_VALUE,
    &VERSION,
    &NAME,
];

const fn rule(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    example: &'static str,
    fix: &'static str,
) -> Rule {
    Rule {
        id,
        severity: Severity::Error,
        forceable: false,
        title,
        why,
        example,
        fix,
    }
}

/// LB001
pub const UNREADABLE: Rule = rule(
    "LB001",
    "The file is a text of at most 8 MiB",
    "An empty, binary or truncated file is a failed copy, not a wish to serve nothing.",
    "a file of zero bytes",
    "Write the file again from where it came from.",
);

/// LB002
pub const SYNTAX: Rule = rule(
    "LB002",
    "The file is TOML",
    "Text that can be read in two ways would be applied in the wrong one.",
    "port = 80 protocol = \"tcp\"",
    "Correct the line; https://toml.io/en/v1.0.0 has the grammar.",
);

/// LB003
pub const UNKNOWN_KEY: Rule = rule(
    "LB003",
    "Every key is known",
    "A misspelt key would leave its default in force, and nobody would notice.",
    "wieght = 0",
    "Correct the spelling, or remove the key.",
);

/// LB004
pub const MISSING_KEY: Rule = rule(
    "LB004",
    "Every required key is there",
    "What would be guessed could be wrong; also how a file that was cut short shows.",
    "[[vip]]\nname = \"shop\"",
    "Add the key.",
);

/// LB005
pub const WRONG_TYPE: Rule = rule(
    "LB005",
    "Every value has its key's type",
    "A value that must be converted has more than one reading.",
    "port = \"80\"",
    "Write the value in the form shown.",
);

/// LB006
pub const BAD_VALUE: Rule = rule(
    "LB006",
    "Every value is within its range",
    "The data path has no meaning for the value.",
    "port = 70000",
    "Use a value from the range shown.",
);

/// LB007
pub const VERSION: Rule = rule(
    "LB007",
    "The file says version = 1",
    "A file for another version may mean something else by the same keys.",
    "version = 2",
    "Put `version = 1` on top, or use the lbguard that the file was written for.",
);

/// LB008
pub const NAME: Rule = rule(
    "LB008",
    "Names are 1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-'",
    "Names are kept in kernel tables of fixed size, and appear in commands and metrics.",
    "name = \"web 1\"",
    "Use letters, digits, '.', '_' and '-' only, 63 at most.",
);
