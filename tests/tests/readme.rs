//! What the documents name is there: tests that hold a promise, files that links lead to, reasons.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use lb_common::counter::{Reason, Verdict};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README and what lies in `docs`, decisions among it; the rules' page is generated.
fn documents() -> Vec<PathBuf> {
    let mut documents = vec![workspace().join("README.md")];
    for directory in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(workspace().join(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        documents.extend(paths.filter(|path| path.extension().is_some_and(|is| is == "md")));
    }
    assert!(documents.len() > 8, "{documents:?}");
    documents
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything between two backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `file.rs::function`, of the end-to-end tests or of a crate.
fn named_tests(text: &str) -> Vec<(PathBuf, &str)> {
    code(text)
        .filter_map(|word| word.split_once(".rs::"))
        .map(|(file, function)| {
            let file = format!("{file}.rs");
            let below = workspace().join("tests/tests").join(&file);
            let path = if below.exists() {
                below
            } else {
                workspace().join(file)
            };
            (path, function)
        })
        .collect()
}

/// Whether a function of that name is a test: `proptest!` writes its attribute with more space.
fn has_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines
        .windows(2)
        .any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&format!("fn {function}(")))
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        for (path, function) in named_tests(&text) {
            let source = read(&path);
            assert!(
                has_test(&source, function),
                "{}: {} has no test {function}",
                document.display(),
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_row_of_the_guarantees_names_a_test() {
    let text = read(&workspace().join("README.md"));
    let (_, table) = text.split_once("## Guarantees").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    for row in rows.filter(|row| !row.starts_with("| **")) {
        assert!(!named_tests(row).is_empty(), "{row}");
    }
}

#[test]
fn links_lead_somewhere() {
    for path in documents() {
        let text = read(&path);
        for part in text.split("](").skip(1) {
            let (target, _) = part.split_once(')').unwrap();
            let (file, _) = target.split_once('#').unwrap_or((target, ""));
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let there = path.parent().unwrap().join(file);
            assert!(there.exists(), "{}: {target}", path.display());
        }
    }
}

#[test]
fn the_runbook_lists_every_reason_of_a_packet() {
    let text = read(&workspace().join("docs/OPERATIONS.md"));
    for reason in Reason::ALL {
        let verdict = match reason.verdict() {
            Verdict::Forward => "forward",
            Verdict::Reply => "reply",
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
        };
        let row = format!("| `{}` | {verdict} | ", reason.label());
        assert!(text.contains(&row), "{row}");
    }
}
