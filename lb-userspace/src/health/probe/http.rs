//! GET, answered by 2xx or 3xx, and by the right service where the pool says how that is told.
//!
//! The request fills a packet as long as a client's, so that a path that takes small packets only is
//! found, too.

use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Failed, Probe, Stage, socket};

const AGENT: &str = concat!("lbguard-health/", env!("CARGO_PKG_VERSION"));
const PADDING: &str = "x-lbguard-padding";
/// Bytes that TLS adds to a record, at most.
const RECORD: usize = 29;
/// The longest header that servers are sure to take: nginx's default is 8 kB.
const LONGEST: usize = 6_000;

pub(super) async fn ask(
    probe: &Probe,
    to: SocketAddr,
    longest: u16,
    stream: TcpStream,
    stage: &mut Stage,
) -> Result<(), Failed> {
    let room = socket::payload(&stream);
    exchange(probe, to, longest, room, TokioIo::new(stream), stage).await
}

pub(super) async fn ask_in_tls(
    probe: &Probe,
    to: SocketAddr,
    longest: u16,
    room: usize,
    stream: TlsStream<TcpStream>,
    stage: &mut Stage,
) -> Result<(), Failed> {
    // One record in one packet: large ones are cut only after the outer header was written.
    let room = room.saturating_sub(RECORD);
    exchange(probe, to, longest, room, TokioIo::new(stream), stage).await
}

async fn exchange<S>(
    probe: &Probe,
    to: SocketAddr,
    longest: u16,
    room: usize,
    stream: S,
    stage: &mut Stage,
) -> Result<(), Failed>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let ill = |error: &dyn std::fmt::Display| Failed::Ill(error.to_string());
    let full = probe.health.full_size.unwrap_or(true) && room > 0;
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|e| ill(&e))?;
    let driver = tokio::spawn(connection);
    let request = request(probe, to, full.then_some(room)).map_err(|e| ill(&e))?;
    *stage = Stage::Asked(full.then_some(longest));
    let answer = sender.send_request(request).await;
    driver.abort();
    let answer = answer.map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => Failed::Ill(format!("{error}: {cause}")),
        None => ill(&error),
    })?;
    judge(probe, &answer)
}

/// The request, padded to `room` bytes.
fn request(
    probe: &Probe,
    to: SocketAddr,
    room: Option<usize>,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let path = probe.health.path.as_deref().unwrap_or("/");
    let host = match &probe.health.host {
        Some(host) => host.clone(),
        None if to.is_ipv4() => to.ip().to_string(),
        None => format!("[{}]", to.ip()),
    };
    let bare = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {AGENT}\r\nconnection: close\r\n\
         {PADDING}: \r\n\r\n"
    );
    let padding = room.map(|room| room.saturating_sub(bare.len()).min(LONGEST));
    let mut request = Request::get(path)
        .header("host", host)
        .header("user-agent", AGENT)
        .header("connection", "close");
    if let Some(bytes) = padding.filter(|bytes| *bytes > 0) {
        request = request.header(PADDING, "x".repeat(bytes));
    }
    request.body(Empty::new())
}

fn judge(probe: &Probe, answer: &Response<Incoming>) -> Result<(), Failed> {
    let status = answer.status();
    if !(status.is_success() || status.is_redirection()) {
        return Err(Failed::Ill(format!("answered {status}")));
    }
    let Some(identity) = &probe.identity else {
        return Ok(());
    };
    let said = answer.headers().get(&identity.header);
    let said = said.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match said {
        Some(said) if said == identity.value => Ok(()),
        Some(said) => Err(Failed::Ill(format!(
            "another service answered: {} is {said:?}, not {:?}",
            identity.header, identity.value
        ))),
        None => Err(Failed::Ill(format!(
            "the answer has no {}: it does not say which service it is",
            identity.header
        ))),
    }
}
