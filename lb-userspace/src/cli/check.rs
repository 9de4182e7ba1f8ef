//! `lbguard check FILE`: every finding, and whether the file would be refused.

use std::fmt::Write as _;

use serde_json::json;

use super::args::CheckArgs;
use super::{CliError, Context, node, out};
use crate::check::{self, Report};
use crate::exit::ExitCode;

/// Checks the file; warnings do not refuse it.
pub fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode, CliError> {
    let node = node::to_check_for(context)?;
    let report = check::check_file(&args.file, &node);
    if context.json {
        json_lines(&report)?;
    } else {
        out::print(&text(&report, &args.file.display().to_string()))?;
    }
    Ok(if report.refused() {
        ExitCode::Refused
    } else {
        ExitCode::Done
    })
}

/// One finding a line, and a last line that sums up.
fn json_lines(report: &Report) -> Result<(), CliError> {
    for finding in &report.findings {
        out::json_line(finding)?;
    }
    let digest = report.accepted().map(|config| config.digest().to_string());
    out::json_line(&json!({
        "errors": report.errors,
        "findings": report.findings.len().saturating_add(report.omitted),
        "refused": report.refused(),
        "digest": digest,
    }))
}

fn text(report: &Report, file: &str) -> String {
    let mut text = check::render_findings(&report.findings, report.omitted);
    let all = report.findings.len().saturating_add(report.omitted);
    let warnings = all.saturating_sub(report.errors);
    let (errors, verdict) = (report.errors, report.accepted());
    // Writing to a String can't fail.
    let _ = match verdict.map(|config| (config.vips.len(), config.pools.len())) {
        Some((vips, pools)) => {
            writeln!(
                text,
                "{file}: ok ({vips} VIPs, {pools} pools, {warnings} warnings)"
            )
        }
        None => writeln!(
            text,
            "{file}: refused ({errors} errors, {warnings} warnings)"
        ),
    };
    text
}
