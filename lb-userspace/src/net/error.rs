//! What can go wrong between us and the kernel's routing tables.

use std::io;

/// A failure to ask the kernel; "no route" and the like are answers, not failures.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused a request, or its answer was lost.
    #[error("cannot {what}: {why}")]
    Request {
        /// What was asked.
        what: String,
        /// What came back.
        why: String,
    },
    /// The kernel did not answer within 5 s.
    #[error("cannot {0}: the kernel did not answer")]
    NoAnswer(String),
    /// The watcher's task has ended.
    #[error("the watcher of routes and neighbours has stopped")]
    Stopped,
}

impl NetError {
    pub(super) fn request(what: impl Into<String>, why: &impl ToString) -> Self {
        Self::Request {
            what: what.into(),
            why: why.to_string(),
        }
    }
}
