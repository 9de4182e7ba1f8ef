//! The watcher: tracks the next hops of backends and tells what changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::NetError;
use super::engine::{Command, Engine};
use super::next_hop::{Resolution, Settings, Target};

/// News that may wait for the listener; more wait in the watcher, one a target.
const NEWS: usize = 64;
/// Commands that may wait.
const COMMANDS: usize = 16;

/// A target's next hop is another than last told.
///
/// An `Err` after an `Ok` says that the next hop does not answer any more. It is for the listener
/// to decide whether to go on sending to the last address: with nothing better, that is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Whose.
    pub target: Target,
    /// What it is now.
    pub resolution: Resolution,
}

/// A task that follows routes, neighbours and interfaces. Dropping it ends the task; neighbours
/// that it had the kernel keep fresh stay so, that forwarding goes on without it.
#[derive(Debug)]
pub struct Watcher {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Starts a watcher for the calling thread's network namespace, inside a tokio runtime.
    ///
    /// # Returns
    /// The watcher, and where it tells what changed: within a second of the kernel's knowing, each
    /// target at most twice a second, and only the latest news if the listener is slow.
    ///
    /// # Errors
    /// When the kernel grants no netlink socket, or does not list its interfaces.
    pub async fn start(settings: Settings) -> Result<(Self, mpsc::Receiver<Changed>), NetError> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (sender, changes) = mpsc::channel(NEWS);
        let engine = Engine::new(settings, receiver, sender).await?;
        Ok((
            Self {
                commands,
                task: tokio::spawn(engine.run()),
            },
            changes,
        ))
    }

    /// Tracks these targets and no others. The first news of each is its resolution, unless
    /// [`Watcher::resolve`] has told it already.
    pub async fn track(&self, targets: BTreeSet<Target>) -> Result<(), NetError> {
        self.send(Command::Track(targets)).await
    }

    /// Tracks these targets, too, and waits until each is resolved or certain not to be, at most
    /// for `patience`: a neighbour that stays silent takes all of it.
    pub async fn resolve(
        &self,
        targets: BTreeSet<Target>,
        patience: Duration,
    ) -> Result<BTreeMap<Target, Resolution>, NetError> {
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now);
        self.send(Command::Resolve {
            targets,
            deadline,
            reply,
        })
        .await?;
        answer.await.map_err(|_| NetError::Stopped)
    }

    async fn send(&self, command: Command) -> Result<(), NetError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| NetError::Stopped)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Resolves once, without watching on; see [`Watcher::resolve`].
pub async fn resolve_once(
    settings: Settings,
    targets: BTreeSet<Target>,
    patience: Duration,
) -> Result<BTreeMap<Target, Resolution>, NetError> {
    let (watcher, _changes) = Watcher::start(settings).await?;
    watcher.resolve(targets, patience).await
}
