//! Many TCP connections that stay open, each asking for a line now and then: what breaks them, and
//! when, is what a change of the balancer is judged by.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::error::{LabError, until};
use super::host::Host;
use super::worker::Worker;

/// How connections behave.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// How many.
    pub count: usize,
    /// Time between an answer and the next line.
    pub interval: Duration,
    /// How long an answer, or the handshake, may take; then the connection counts as broken.
    pub timeout: Duration,
    /// Sources, used in turn; empty: the kernel's choice.
    pub sources: Vec<IpAddr>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            count: 1,
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(3),
            sources: Vec::new(),
        }
    }
}

/// A connection that ended, and how.
#[derive(Debug, Clone)]
pub struct Break {
    /// When.
    pub at: Instant,
    /// The client's end; port 0 if it never had one.
    pub local: SocketAddr,
    /// Who had answered before; none for a connection that was never established.
    pub backend: Option<String>,
    /// What the client saw.
    pub reason: String,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that have had an answer and live.
    established: usize,
    answers: u64,
    /// Live connections by the backend that answers.
    backends: BTreeMap<String, usize>,
    breaks: Vec<Break>,
}

/// Open connections; dropping it closes them, which counts as no break.
#[derive(Debug)]
pub struct Connections {
    state: Arc<Mutex<State>>,
    count: usize,
    _worker: Worker,
}

impl Host {
    /// Opens connections to a line server ([`Host::serve_lines`]) behind `target`.
    ///
    /// # Errors
    /// [`LabError::Io`] when the generator does not start; connections that fail are breaks.
    pub fn connections(
        &self,
        target: SocketAddr,
        options: &ConnectionOptions,
    ) -> Result<Connections, LabError> {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, options) = (Arc::clone(&state), options.clone());
        let count = options.count;
        let worker = Worker::start(self, "connections", move || {
            Ok(async move {
                for index in 0..options.count {
                    let source = options.sources.iter().cycle().nth(index).copied();
                    tokio::spawn(live(target, source, options.clone(), Arc::clone(&shared)));
                }
                std::future::pending::<()>().await;
            })
        })?;
        Ok(Connections {
            state,
            count,
            _worker: worker,
        })
    }
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Connections that have had an answer and live.
    pub fn established(&self) -> usize {
        self.state().established
    }

    /// Answers so far, of all connections.
    pub fn answers(&self) -> u64 {
        self.state().answers
    }

    /// Breaks so far, in the order of their time.
    pub fn breaks(&self) -> Vec<Break> {
        self.state().breaks.clone()
    }

    /// Live connections by the backend that answers them.
    pub fn backends(&self) -> BTreeMap<String, usize> {
        self.state().backends.clone()
    }

    /// Waits until all have had an answer.
    ///
    /// # Errors
    /// [`LabError::Timeout`], with the first break if there is one.
    pub fn wait_established(&self, limit: Duration) -> Result<(), LabError> {
        let what = format!("{} connections are established", self.count);
        let done = until(&what, limit, || {
            (self.established() == self.count).then_some(())
        });
        done.map_err(|error| self.explain(error))
    }

    /// Waits until `answers` more have come, over all connections.
    ///
    /// # Errors
    /// [`LabError::Timeout`], with the first break if there is one.
    pub fn wait_answers(&self, answers: u64, limit: Duration) -> Result<(), LabError> {
        let goal = self.answers().saturating_add(answers);
        let what = format!("{answers} more answers have come");
        let done = until(&what, limit, || (self.answers() >= goal).then_some(()));
        done.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: LabError) -> LabError {
        let state = self.state();
        match (error, state.breaks.first()) {
            (LabError::Timeout { what, after }, first) => LabError::Timeout {
                what: format!(
                    "{what} ({} are, {} broke, the first: {first:?})",
                    state.established,
                    state.breaks.len()
                ),
                after,
            },
            (other, _) => other,
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, from SYN to break.
async fn live(
    target: SocketAddr,
    source: Option<IpAddr>,
    options: ConnectionOptions,
    state: Arc<Mutex<State>>,
) {
    let mut seen = Seen {
        local: SocketAddr::new(target.ip(), 0),
        backend: None,
    };
    let ended = talk(target, source, &options, &state, &mut seen).await;
    let reason = ended
        .err()
        .map_or_else(String::new, |error| error.to_string());
    let mut state = lock(&state);
    if let Some(backend) = &seen.backend {
        state.established = state.established.saturating_sub(1);
        if let Some(live) = state.backends.get_mut(backend) {
            *live = live.saturating_sub(1);
        }
    }
    state.breaks.push(Break {
        at: Instant::now(),
        local: seen.local,
        backend: seen.backend,
        reason,
    });
}

struct Seen {
    local: SocketAddr,
    backend: Option<String>,
}

/// Never ends well: the error is the break.
async fn talk(
    target: SocketAddr,
    source: Option<IpAddr>,
    options: &ConnectionOptions,
    state: &Mutex<State>,
    seen: &mut Seen,
) -> io::Result<()> {
    let stream = within(options.timeout, "handshake", connect(target, source)).await?;
    stream.set_nodelay(true)?;
    seen.local = stream.local_addr()?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut number: u64 = 0;
    loop {
        writer.write_all(format!("{number}\n").as_bytes()).await?;
        let line = within(options.timeout, "answer", lines.next_line()).await?;
        let line = line.ok_or_else(|| io::Error::other("closed by the other side"))?;
        let backend = line.strip_suffix(&format!(" {number}"));
        let backend = backend.ok_or_else(|| io::Error::other(format!("answer is {line:?}")))?;
        note(state, seen, backend)?;
        number = number.wrapping_add(1);
        sleep(options.interval).await;
    }
}

fn note(state: &Mutex<State>, seen: &mut Seen, backend: &str) -> io::Result<()> {
    let mut state = lock(state);
    state.answers = state.answers.saturating_add(1);
    match &seen.backend {
        Some(known) if known == backend => Ok(()),
        Some(known) => Err(io::Error::other(format!("{known} became {backend}"))),
        None => {
            seen.backend = Some(backend.to_owned());
            state.established = state.established.saturating_add(1);
            let live = state.backends.entry(backend.to_owned()).or_default();
            *live = live.saturating_add(1);
            Ok(())
        }
    }
}

pub(super) async fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(target).await
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other(format!("no {what} within {limit:?}"))),
    }
}
