//! Findings and rules as text of 80 columns.

use std::fmt::Write as _;

use crate::config::{Finding, Rule, Severity};

const WIDTH: usize = 80;

/// Findings one after the other, errors and warnings in the order of lines; ends with a newline
/// unless empty. `omitted` is the number of further findings.
pub fn render_findings(findings: &[Finding], omitted: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let place = finding.place();
        let colon = if place.is_empty() { "" } else { ": " };
        let level = severity(finding.rule.severity);
        let head = format!(
            "{place}{colon}{level}[{}] {}",
            finding.rule.id, finding.message
        );
        wrap(&mut text, "", &head);
        wrap(&mut text, "  why: ", finding.rule.why);
        wrap(&mut text, "  fix: ", &finding.fix);
    }
    if omitted > 0 {
        wrap(
            &mut text,
            "",
            &format!("... and {omitted} more; correct these first"),
        );
    }
    text
}

/// A rule as a page of the standards shows it.
pub fn render_rule(rule: &Rule) -> String {
    let mut text = String::new();
    let level = severity(rule.severity);
    let forced = forced(rule);
    wrap(
        &mut text,
        "",
        &format!("{} ({level}{forced}): {}", rule.id, rule.title),
    );
    wrap(&mut text, "  why: ", rule.why);
    wrap(&mut text, "  fix: ", rule.fix);
    text.push_str("  example:\n");
    for line in rule.example.lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// All rules as a Markdown page: the configuration standards, `docs/RULES.md`.
pub fn rules_page() -> String {
    let mut page = String::from(
        "# Configuration standards\n\n\
         Every finding of `lbguard check` names one of these rules. Errors refuse the file (exit \
         code 3);\nwarnings do not. `--force-unsafe` passes over the errors that say so, and never \
         over the guard in\nthe kernel.\n\n\
         This page is made from `lb-userspace/src/check/rules.rs` and \
         `lb-userspace/src/config/rules.rs`;\na test keeps it in step.\n",
    );
    for rule in super::all_rules() {
        let level = severity(rule.severity);
        let forced = forced(rule);
        let _ = write!(
            page,
            "\n## {}: {}\n\n_{level}{forced}_\n\n",
            rule.id, rule.title
        );
        paragraph(&mut page, &format!("**Why.** {}", rule.why));
        page.push('\n');
        paragraph(&mut page, &format!("**Fix.** {}", rule.fix));
        let _ = write!(page, "\n```text\n{}\n```\n", rule.example);
    }
    page
}

const fn forced(rule: &Rule) -> &'static str {
    match (rule.severity, rule.forceable) {
        (Severity::Warning, _) => "",
        (Severity::Error, true) => ", --force-unsafe passes over it",
        (Severity::Error, false) => ", cannot be forced",
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Adds words after a label, broken before column 80, further lines indented. A word longer than
/// the line stays whole, so that it can be copied.
fn wrap(text: &mut String, label: &str, words: &str) {
    let indent = if label.is_empty() { 4 } else { label.len() };
    wrap_by(text, label, indent, words);
}

fn paragraph(text: &mut String, words: &str) {
    wrap_by(text, "", 0, words);
}

fn wrap_by(text: &mut String, label: &str, indent: usize, words: &str) {
    text.push_str(label);
    let mut column = label.len();
    let mut first = true;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        let end = column
            .saturating_add(length)
            .saturating_add(usize::from(!first));
        if !first && end > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if !first {
            text.push(' ');
            column = column.saturating_add(1);
        }
        text.push_str(word);
        column = column.saturating_add(length);
        first = false;
    }
    text.push('\n');
}
