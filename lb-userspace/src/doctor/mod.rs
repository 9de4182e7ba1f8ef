//! Why nothing is forwarded: checks of this host, each independent of the others, each with what
//! to do about it.
//!
//! They look and do not touch, but for one thing: neighbours of the backends are asked for.

mod agent;
mod ethtool;
mod host;
mod interfaces;
mod loaded;
mod paths;
mod redirects;
mod segments;
mod traffic;

use serde::Serialize;

use crate::config::{LoadError, NodeConfig};
use crate::kernel::pins::Pins;
use crate::net::links;
use crate::paths::Paths;

pub use agent::running as agent_running;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for everything.
    Warn,
    /// It keeps packets from being forwarded.
    Fail,
    /// It could not be found out, or does not apply here.
    Skip,
}

impl Status {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// A check and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name for scripts, such as `interface.eth0.mtu`.
    pub id: String,
    /// What was checked.
    pub title: String,
    /// What came of it.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    pub fix: Option<String>,
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "literals, numbers and formatted text alike, once a check"
)]
impl Check {
    fn new(id: impl ToString, title: impl ToString, status: Status, found: impl ToString) -> Self {
        Self {
            id: id.to_string(),
            title: title.to_string(),
            status,
            found: found.to_string(),
            fix: None,
        }
    }

    /// All is well.
    pub fn ok(id: impl ToString, title: impl ToString, found: impl ToString) -> Self {
        Self::new(id, title, Status::Ok, found)
    }

    /// Not known, or not applicable.
    pub fn skip(id: impl ToString, title: impl ToString, found: impl ToString) -> Self {
        Self::new(id, title, Status::Skip, found)
    }

    /// To be looked at.
    pub fn warn(
        id: impl ToString,
        title: impl ToString,
        found: impl ToString,
        fix: impl ToString,
    ) -> Self {
        Self {
            fix: Some(fix.to_string()),
            ..Self::new(id, title, Status::Warn, found)
        }
    }

    /// In the way.
    pub fn fail(
        id: impl ToString,
        title: impl ToString,
        found: impl ToString,
        fix: impl ToString,
    ) -> Self {
        Self {
            fix: Some(fix.to_string()),
            ..Self::new(id, title, Status::Fail, found)
        }
    }
}

/// Runs all checks, in the order in which a packet would meet what they look at.
pub fn run(paths: &Paths, config: Result<NodeConfig, LoadError>) -> Vec<Check> {
    let pins = Pins::new(paths.pin_dir());
    let mut checks = host::checks(paths);
    let config = match config {
        Ok(config) => {
            checks.push(Check::ok(
                "config",
                "agent.toml",
                paths.agent_toml().display(),
            ));
            Some(config)
        }
        Err(error) => {
            checks.push(no_config(&error));
            None
        }
    };
    checks.push(agent::check(paths));
    let (of_pins, active) = loaded::checks(&pins);
    checks.extend(of_pins);
    match links::read_all() {
        Ok(links) => {
            let active = active.as_ref();
            checks.extend(interfaces::checks(config.as_ref(), &pins, &links, active));
        }
        Err(error) => checks.push(Check::skip("interfaces", "Interfaces", error)),
    }
    checks.push(redirects::check(config.as_ref()));
    checks.push(traffic::vips(active.as_ref()));
    checks.extend(traffic::next_hops(config.as_ref(), active.as_ref()));
    checks.push(segments::check(active.as_ref()));
    checks.push(paths::check(active.as_ref()));
    checks
}

fn no_config(error: &LoadError) -> Check {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Check::fail(
        "config",
        "agent.toml",
        first,
        "write or correct it; `lbguard agent` prints what is wrong and an example",
    )
}
