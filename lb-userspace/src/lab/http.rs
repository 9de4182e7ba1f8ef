//! HTTP requests at a fixed rate, each over a connection of its own, and what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::connections::connect;
use super::error::{LabError, until};
use super::host::Host;
use super::worker::Worker;

/// What to ask for, and how often.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Requests per second; a request starts at its time, whether earlier ones have ended or not.
    pub rate: u32,
    /// The path.
    pub path: String,
    /// How long one may take, handshake included.
    pub timeout: Duration,
    /// Sources, used in turn; empty: the kernel's choice.
    pub sources: Vec<IpAddr>,
    /// Bytes of a cookie, so that a request does not fit into one packet; a server takes 8,000.
    pub cookie: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            rate: 100,
            path: "/".to_owned(),
            timeout: Duration::from_secs(2),
            sources: Vec::new(),
            cookie: 0,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with status 200.
    Ok {
        /// The header `x-backend`.
        backend: String,
        /// The header `x-service`.
        service: String,
        /// Bytes of the body.
        bytes: usize,
    },
    /// Anything else, as the client saw it.
    Failed(String),
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it began.
    pub at: Instant,
    /// How long it took, handshake included.
    pub latency: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// Requests that have ended, and when those under way began.
#[derive(Debug, Default)]
struct Book {
    ended: Vec<Request>,
    open: BTreeSet<(Instant, u64)>,
    begun: u64,
}

type Log = Arc<Mutex<Book>>;

/// A running loop; dropping it ends it.
#[derive(Debug)]
pub struct HttpLoop {
    log: Log,
    _worker: Worker,
}

impl Host {
    /// Starts requests to `target`.
    ///
    /// # Errors
    /// [`LabError::Io`] when the generator does not start; requests that fail are outcomes.
    pub fn http_loop(
        &self,
        target: SocketAddr,
        options: &HttpOptions,
    ) -> Result<HttpLoop, LabError> {
        let log = Log::default();
        let (shared, options) = (Arc::clone(&log), options.clone());
        let worker = Worker::start(self, "http loop", move || {
            Ok(async move {
                let options = Arc::new(options);
                let rate = f64::from(options.rate.max(1));
                let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut sources = options.sources.clone().into_iter().cycle();
                loop {
                    ticks.tick().await;
                    let (options, log) = (Arc::clone(&options), Arc::clone(&shared));
                    let source = sources.next();
                    tokio::spawn(async move { ask(target, source, &options, &log).await });
                }
            })
        })?;
        Ok(HttpLoop {
            log,
            _worker: worker,
        })
    }

    /// One request.
    ///
    /// # Errors
    /// [`LabError::Io`] when the generator does not start; a request that fails is an outcome.
    pub fn http(&self, target: SocketAddr, path: &str) -> Result<Request, LabError> {
        let log = Log::default();
        let shared = Arc::clone(&log);
        let options = HttpOptions {
            path: path.to_owned(),
            ..HttpOptions::default()
        };
        let limit = options.timeout.saturating_mul(2);
        let _worker = Worker::start(self, "http request", move || {
            Ok(async move { ask(target, None, &options, &shared).await })
        })?;
        until("the request has ended", limit, || lock(&log).ended.pop())
    }
}

impl HttpLoop {
    /// Requests that have ended, in the order of their end.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).ended.clone()
    }

    /// Takes the requests that have ended out of the book, in the order of their end.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.log).ended)
    }

    /// Waits until every request that has begun by now has ended.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn settle(&self, limit: Duration) -> Result<(), LabError> {
        let now = Instant::now();
        until("what is under way has ended", limit, || {
            let book = lock(&self.log);
            book.open
                .first()
                .is_none_or(|(began, _)| *began > now)
                .then_some(())
        })
    }

    /// How many have ended.
    pub fn ended(&self) -> usize {
        lock(&self.log).ended.len()
    }

    /// How many of them failed.
    pub fn failed(&self) -> usize {
        let failed = |request: &&Request| matches!(request.outcome, Outcome::Failed(_));
        lock(&self.log).ended.iter().filter(failed).count()
    }

    /// Answers by backend.
    pub fn backends(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in &lock(&self.log).ended {
            if let Outcome::Ok { backend, .. } = &request.outcome {
                let count: &mut usize = counts.entry(backend.clone()).or_default();
                *count = count.saturating_add(1);
            }
        }
        counts
    }

    /// Waits until `more` further requests have ended.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn wait(&self, more: usize, limit: Duration) -> Result<(), LabError> {
        let goal = self.ended().saturating_add(more);
        let what = format!("{more} more requests have ended");
        until(&what, limit, || (self.ended() >= goal).then_some(()))
    }
}

fn lock(log: &Mutex<Book>) -> MutexGuard<'_, Book> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask(target: SocketAddr, source: Option<IpAddr>, options: &HttpOptions, log: &Log) {
    let (at, number) = begin(log);
    let outcome = match timeout(options.timeout, exchange(target, source, options)).await {
        Ok(Ok(answer)) => read_answer(&answer),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("no answer within {:?}", options.timeout)),
    };
    let latency = at.elapsed();
    let mut book = lock(log);
    book.open.remove(&(at, number));
    book.ended.push(Request {
        at,
        latency,
        outcome,
    });
}

fn begin(log: &Log) -> (Instant, u64) {
    let mut book = lock(log);
    book.begun = book.begun.wrapping_add(1);
    let request = (Instant::now(), book.begun);
    book.open.insert(request);
    request
}

async fn exchange(
    target: SocketAddr,
    source: Option<IpAddr>,
    options: &HttpOptions,
) -> io::Result<Vec<u8>> {
    let mut stream = connect(target, source).await?;
    let cookie = match options.cookie {
        0 => String::new(),
        bytes => format!("Cookie: {}\r\n", "x".repeat(bytes)),
    };
    let path = &options.path;
    let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\n{cookie}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn read_answer(answer: &[u8]) -> Outcome {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Outcome::Failed(format!(
            "{} bytes without an end of the header",
            answer.len()
        ));
    };
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1) != Some("200") {
        return Outcome::Failed(status);
    }
    let header = |name: &str| {
        let mut values = head.lines().filter_map(|line| line.split_once(": "));
        let found = values.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let bytes = body.len().saturating_sub(4);
    let promised = header("content-length").parse().unwrap_or(bytes);
    if bytes != promised {
        return Outcome::Failed(format!("{bytes} of {promised} bytes"));
    }
    Outcome::Ok {
        backend: header("x-backend"),
        service: header("x-service"),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_who_answered_and_how_much() {
        let answer = b"HTTP/1.1 200 OK\r\nX-Backend: web-1\r\nx-service: web\r\n\
                       Content-Length: 2\r\n\r\nhi";
        let expected = Outcome::Ok {
            backend: "web-1".to_owned(),
            service: "web".to_owned(),
            bytes: 2,
        };
        assert_eq!(read_answer(answer), expected);
    }

    #[test]
    fn a_cut_or_refused_answer_failed() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"[..],
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            b"HTTP/1.1 200",
            b"",
        ] {
            assert!(matches!(read_answer(answer), Outcome::Failed(_)));
        }
    }
}
