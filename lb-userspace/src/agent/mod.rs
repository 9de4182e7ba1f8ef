//! The daemon: one thread that owns the kernel side and runs changes, tasks around it that talk.
//!
//! - [`engine`]: the loop: requests, the kernel's word, the clock;
//! - [`request`]: what it is asked; [`begin`]: how a change begins;
//! - [`effects`]: what the change's machine wants done, done;
//! - [`start`]: adopting what is pinned; [`restore`]: loading the committed generation after a reboot;
//! - [`records`]: the journal, also on a hurt disk; [`recording`]: what is written to it;
//! - [`evidence`]: a trial judged on its traffic;
//! - [`watching`]: what the traffic is like between changes; [`alerts`]: what is odd about it;
//! - [`drains`]: backends that are drained by command;
//! - [`health`]: what is checked, and what the checks find;
//! - [`newcomers`]: new backends, asked before they get traffic;
//! - [`hops`]: next hops of backends, resolved and kept fresh;
//! - [`api`]: HTTP on a Unix socket;
//! - [`wire`]: what goes over it.
//!
//! Its death changes nothing in forwarding: programs, maps and links are pinned.

mod alerts;
pub mod api;
mod begin;
mod drains;
mod effects;
mod engine;
mod evidence;
mod floods;
mod health;
mod hops;
mod lock;
mod newcomers;
mod purge;
mod recording;
mod records;
mod redirects;
pub mod request;
mod restore;
mod start;
mod touched;
mod watching;
pub mod wire;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{NodeConfig, Policy};
use crate::paths::Paths;

pub use request::Request;

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where everything is.
    pub paths: Paths,
    /// agent.toml.
    pub node: NodeConfig,
    /// policy.toml.
    pub policy: Policy,
}

/// Runs the agent until SIGTERM or SIGINT. Forwarding goes on after it.
///
/// # Errors
///
/// Another agent runs, or the kernel, the journal or the socket can't be used.
pub fn run(setup: Setup) -> anyhow::Result<()> {
    let _lock = lock::take(&setup.paths.lock())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let socket = setup.paths.socket();
    let (requests, inbox) = std::sync::mpsc::channel();
    let engine = {
        let handle = runtime.handle().clone();
        let requests = requests.clone();
        start::engine(setup, handle, &requests)?
    };
    let listener = {
        let _inside = runtime.enter();
        api::listen(&socket)?
    };
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || engine.run(&inbox))
        .context("start the engine's thread")?;
    tracing::info!(socket = %socket.display(), "ready");
    tell_manager(&[NotifyState::Ready]);
    let served = runtime.block_on(serve(listener, requests.clone()));
    tell_manager(&[NotifyState::Stopping]);
    let _ = requests.send(Request::Stop);
    let ended = thread
        .join()
        .map_err(|_| anyhow::anyhow!("the engine's thread panicked"));
    let _ = std::fs::remove_file(&socket);
    served.and(ended)
}

/// Tells the service manager, if there is one: `sd_notify(3)`.
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Serves the API until a signal comes or the engine ends.
async fn serve(
    listener: tokio::net::UnixListener,
    requests: std::sync::mpsc::Sender<Request>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let (gone, mut ended) = mpsc::channel::<()>(1);
    let _ = requests.send(Request::Watch(gone));
    tokio::select! {
        served = api::serve(listener, requests) => served.context("serve the API"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // The engine holds the other end for as long as it runs.
        _ = ended.recv() => Err(anyhow::anyhow!("the engine has ended")),
    }
}
