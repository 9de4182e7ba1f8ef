//! Whether packets can be sent on by another interface than the one they came by.

use std::io;

use super::{Check, traffic};
use crate::config::NodeConfig;
use crate::net::redirects;

pub(super) fn check(config: Option<&NodeConfig>) -> Check {
    let (id, title) = ("redirects", "Interfaces take packets from each other");
    let Some(config) = config.filter(|config| config.interfaces.len() > 1) else {
        return Check::skip(id, title, "agent.toml does not name two interfaces");
    };
    match redirects::closed(&config.interfaces) {
        Ok(closed) if closed.is_empty() => Check::ok(id, title, config.interfaces.join(", ")),
        Ok(closed) => {
            let names: Vec<String> = closed.into_iter().map(|link| link.name).collect();
            Check::fail(
                id,
                title,
                format!(
                    "{} takes none from XDP: packets that come by another interface, for backends \
                     behind it, are dropped by the kernel and count as forwarded here (`ethtool -S` of \
                     the interface they came by has them)",
                    traffic::some(&names)
                ),
                redirects::WAY_OUT,
            )
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::skip(id, title, "this kernel does not tell (Linux 6.3 does)")
        }
        Err(error) => Check::skip(id, title, error),
    }
}
