//! A thread in a host's namespace with an asynchronous runtime of its own: servers and traffic
//! generators run in one each.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;

use super::error::{Context as _, LabError};
use super::host::Host;

/// The thread; dropping it ends the work and waits for it.
#[derive(Debug)]
pub(super) struct Worker {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `work` in the host, and returns when the future it makes has been made: sockets
    /// that `work` binds before its first `await` are open by then.
    ///
    /// # Errors
    /// What `work` returns instead of a future, or why the thread did not start.
    pub(super) fn start<F, W>(host: &Host, name: &str, work: W) -> Result<Self, LabError>
    where
        W: FnOnce() -> io::Result<F> + Send + 'static,
        F: Future<Output = ()>,
    {
        let what = format!("{name} of {}", host.name());
        let (stop, mut stopped) = watch::channel(false);
        let (ready, wait_ready) = mpsc::channel();
        let host = host.clone();
        let body = move || {
            let prepared = prepare(&host, work);
            let (runtime, future) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            runtime.block_on(async {
                tokio::select! {
                    () = future => {}
                    _ = stopped.wait_for(|&stop| stop) => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
        let thread = thread.context(|| what.clone())?;
        let started = wait_ready.recv().map_err(io::Error::other);
        started.context(|| what.clone())??;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

fn prepare<F, W>(host: &Host, work: W) -> Result<(tokio::runtime::Runtime, F), LabError>
where
    W: FnOnce() -> io::Result<F>,
{
    host.enter()?;
    let what = || host.name().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context(what)?;
    let guard = runtime.enter();
    let future = work().context(what)?;
    drop(guard);
    Ok((runtime, future))
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
