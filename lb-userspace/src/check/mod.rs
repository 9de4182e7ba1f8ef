//! Rules over a configuration: the only way from text to a [`Config`].
//!
//! [`check`] reads the text of `services.toml`, notes everything that is wrong with it, and gives
//! the [`Config`] when nothing is. [`check_against`] looks at the step from the committed
//! configuration to a candidate. Both are pure: no file, no clock, no kernel.
//!
//! A finding that is an error refuses the file. The caller may pass over those whose rule is
//! forceable (`--force-unsafe`), which is why the report of a well-formed file has a `config`
//! whatever else was found.

mod addresses;
mod against;
mod flows;
mod names;
mod pools;
mod quic;
mod render;
mod rules;
mod unsupported;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod shown;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use crate::config::{
    Config, Draft, Finding, Log, NodeConfig, Rule, Source, TextLog, UNREADABLE, read_bounded,
    read_services,
};

pub use against::check_against;
pub use render::{render_findings, render_rule, rules_page};
pub use rules::SENSE_RULES;

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The configuration, if one could be built: the file is well formed. It may break rules all
    /// the same: ask [`Report::refused`] before using it.
    #[serde(skip)]
    pub config: Option<Config>,
    /// What is wrong or doubtful, by line; at most [`crate::config::MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond that.
    pub omitted: usize,
    /// Errors among all of them.
    pub errors: usize,
}

impl Report {
    /// Whether there is an error; exit code 3.
    pub fn refused(&self) -> bool {
        self.errors > 0
    }

    /// The configuration, if nothing speaks against it but warnings.
    pub fn accepted(&self) -> Option<&Config> {
        self.config.as_ref().filter(|_| !self.refused())
    }
}

/// Every rule there is, by id.
pub fn all_rules() -> impl Iterator<Item = &'static Rule> {
    crate::config::FORM_RULES.iter().chain(SENSE_RULES).copied()
}

/// Reads a file of at most 8 MiB and checks it.
pub fn check_file(path: &Path, node: &NodeConfig) -> Report {
    let file = path.display().to_string();
    match read_bounded(path) {
        Ok(bytes) => check_bytes(&bytes, &file, node),
        Err(error) => {
            let mut log = Log::new(&file);
            log.add(
                &UNREADABLE,
                0,
                format_args!("the file cannot be read: {error}"),
                format_args!("Check the path, and that you may read it."),
            );
            report(log, None)
        }
    }
}

/// Checks text; `file` is its name for findings, `node` gives the limits of this host.
pub fn check(text: &str, file: &str, node: &NodeConfig) -> Report {
    check_bytes(text.as_bytes(), file, node)
}

/// Checks bytes, which need not be text.
pub fn check_bytes(bytes: &[u8], file: &str, node: &NodeConfig) -> Report {
    let mut log = Log::new(file);
    let Some(source) = Source::from_bytes(bytes, &mut log) else {
        return report(log, None);
    };
    let mut text_log = TextLog {
        source: &source,
        log,
    };
    let draft = read_services(&mut text_log);
    let mut log = text_log.log;
    let complete = log.errors() == 0;
    judge(&draft, node, complete, &mut log);
    let config = complete.then(|| into_config(draft));
    report(log, config)
}

/// Applies every rule. Those that need the whole file wait until all of it could be read, lest
/// they report what is not so.
fn judge(draft: &Draft, node: &NodeConfig, complete: bool, log: &mut Log) {
    names::unique(draft, log);
    addresses::vips(draft, log);
    addresses::backends(draft, log);
    for pool in &draft.pools {
        pools::one(pool, node, log);
        flows::pool(pool, log);
        quic::pool(pool, log);
        unsupported::pool(pool, log);
    }
    for (vip, lines) in &draft.vips {
        flows::vip(vip, lines, log);
    }
    if complete {
        names::references(draft, log);
        addresses::families(draft, log);
        flows::uses(draft, log);
        quic::uses(draft, log);
        pools::capacity(draft, node, log);
    }
}

fn into_config(draft: Draft) -> Config {
    let mut config = Config {
        vips: draft.vips.into_iter().map(|(vip, _)| vip).collect(),
        pools: draft.pools.into_iter().map(|pool| pool.pool).collect(),
    };
    config.sort();
    config
}

fn report(log: Log, config: Option<Config>) -> Report {
    let (errors, final_errors) = (log.errors(), log.final_errors());
    let (findings, omitted) = log.finish();
    Report {
        config: config.filter(|_| final_errors == 0),
        findings,
        omitted,
        errors,
    }
}
