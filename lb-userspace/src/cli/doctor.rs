//! `lbguard doctor`: every check, with what to do about it.

use super::args::DoctorArgs;
use super::render::{Page, Tone};
use super::{CliError, Context, node, out};
use crate::config::NodeConfig;
use crate::doctor::{self, Check, Status};
use crate::exit::ExitCode;

/// Runs all checks; exit 3 if one failed.
pub fn run(context: &Context, _args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let config = NodeConfig::load(&context.paths.agent_toml());
    let paths = node::paths_of(context, config.as_ref().ok())?;
    let checks = doctor::run(&paths, config);
    if context.json {
        for check in &checks {
            out::json_line(check)?;
        }
    } else {
        out::print(&text(&checks, context.colour))?;
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if failed {
        ExitCode::Refused
    } else {
        ExitCode::Done
    })
}

fn text(checks: &[Check], colour: bool) -> String {
    let mut page = Page::new(colour);
    for check in checks {
        let tone = match check.status {
            Status::Ok => Some(Tone::Good),
            Status::Warn => Some(Tone::Mind),
            Status::Fail => Some(Tone::Bad),
            Status::Skip => None,
        };
        page.line(
            tone,
            &format!("{:4}  {}", check.status.as_str(), check.title),
        );
        page.field("      ", &check.found);
        if let Some(fix) = &check.fix {
            page.field("      fix: ", fix);
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let summary = format!(
        "{} checks: {} failed, {} to look at, {} skipped",
        checks.len(),
        count(Status::Fail),
        count(Status::Warn),
        count(Status::Skip)
    );
    page.line(Some(Tone::Strong), &summary);
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_has_a_line_of_its_own_and_lines_fit() {
        let long = "a reason that goes on ".repeat(8);
        let checks = [
            Check::ok("kernel", "Kernel", "6.18"),
            Check::fail(
                "bpffs",
                "BPF file system",
                long,
                "mount -t bpf bpf /sys/fs/bpf",
            ),
        ];
        let text = text(&checks, false);
        assert!(
            text.contains("\n      fix: mount -t bpf bpf /sys/fs/bpf\n"),
            "{text}"
        );
        assert!(text.contains("\nfail  BPF file system\n"), "{text}");
        assert!(
            text.ends_with("2 checks: 1 failed, 0 to look at, 0 skipped\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
