//! The agent's socket, from the command line's side.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, BodyStream, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::CliError;
use crate::agent::wire::{
    APPLY_HEADER, AgentStatus, Answer, Apply, ApplyEvent, Confirm, Drain, Drained, Switch,
};
use crate::evidence::proof::Seen;

/// How long the agent's word is waited for where it is not needed.
const PATIENCE: Duration = Duration::from_secs(1);

/// A runtime for one command.
pub fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::internal(format!("cannot start a runtime: {error}")))
}

/// The error that says that no agent answers, and what still works.
pub fn no_agent(socket: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::no_agent(format!("no agent answers on {} ({error})", socket.display())).way_out(
        "start it with `systemctl start lbguard` or `lbguard agent`; `lbguard revert`, `status` and \
         `history` work without it",
    )
}

async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    header: Option<String>,
    body: Vec<u8>,
) -> Result<Response<Incoming>, CliError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| no_agent(socket, &error))?;
    let lost = |error: hyper::Error| no_agent(socket, &error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(lost)?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "lbguard")
        .header("content-type", "application/json");
    if let Some(value) = header {
        request = request.header(APPLY_HEADER, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CliError::internal(format!("cannot build a request: {error}")))?;
    sender.send_request(request).await.map_err(lost)
}

async fn json<T: DeserializeOwned>(
    socket: &Path,
    response: Response<Incoming>,
) -> Result<T, CliError> {
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(|error| no_agent(socket, &error))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|_| {
        CliError::internal(format!(
            "the agent answered {status}: {}",
            String::from_utf8_lossy(&bytes)
        ))
    })
}

/// What the agent says of itself.
///
/// Waits a second at most: a read-out must not hang because the agent does.
pub async fn status(socket: &Path) -> Result<AgentStatus, CliError> {
    tokio::time::timeout(PATIENCE, ask_status(socket))
        .await
        .map_err(|_| no_agent(socket, &"it does not answer within a second"))?
}

async fn ask_status(socket: &Path) -> Result<AgentStatus, CliError> {
    json(
        socket,
        send(socket, Method::GET, "/v1/status", None, Vec::new()).await?,
    )
    .await
}

/// How much traffic there is, as the agent sees it. Waits as [`status`].
pub async fn traffic(socket: &Path) -> Result<Seen, CliError> {
    let asked = async {
        let response = send(socket, Method::GET, "/v1/traffic", None, Vec::new()).await?;
        json(socket, response).await
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| no_agent(socket, &"it does not answer within a second"))?
}

/// Asks for the trial to be committed.
pub async fn confirm(socket: &Path, accept_unproven: bool) -> Result<Answer, CliError> {
    let body = serde_json::to_vec(&Confirm { accept_unproven }).unwrap_or_default();
    json(
        socket,
        send(socket, Method::POST, "/v1/confirm", None, body).await?,
    )
    .await
}

/// Asks for a switch to be set.
pub async fn switch(socket: &Path, switch: Switch) -> Result<Answer, CliError> {
    let body = serde_json::to_vec(&switch).unwrap_or_default();
    json(
        socket,
        send(socket, Method::POST, "/v1/switch", None, body).await?,
    )
    .await
}

/// Asks for a backend to be drained, or taken back.
pub async fn drain(socket: &Path, drain: &Drain) -> Result<Drained, CliError> {
    let body = serde_json::to_vec(drain).unwrap_or_default();
    let response = send(socket, Method::POST, "/v1/drain", None, body).await?;
    if !response.status().is_success() {
        let answer: Answer = json(socket, response).await?;
        return Err(CliError::refused(answer.message));
    }
    json(socket, response).await
}

/// The events of a change that was asked for, line by line.
pub struct Events {
    body: BodyStream<Incoming>,
    pending: Vec<u8>,
}

/// Asks for a change.
pub async fn apply(socket: &Path, apply: &Apply, file: Vec<u8>) -> Result<Events, CliError> {
    // Header values are ASCII; JSON escapes the rest.
    let header: String = serde_json::to_string(apply)
        .unwrap_or_default()
        .chars()
        .flat_map(ascii)
        .collect();
    let response = send(socket, Method::POST, "/v1/apply", Some(header), file).await?;
    if !response.status().is_success() {
        let answer: Answer = json(socket, response).await?;
        return Err(CliError::refused(answer.message));
    }
    Ok(Events {
        body: BodyStream::new(response.into_body()),
        pending: Vec::new(),
    })
}

/// A character as JSON inside ASCII.
fn ascii(character: char) -> Vec<char> {
    if character.is_ascii() {
        return vec![character];
    }
    let mut units = [0u16; 2];
    character
        .encode_utf16(&mut units)
        .iter()
        .flat_map(|unit| format!("\\u{unit:04x}").chars().collect::<Vec<_>>())
        .collect()
}

impl Events {
    /// The next event; `None` when the agent has closed the stream or is gone.
    pub async fn next(&mut self) -> Option<ApplyEvent> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if let Ok(event) = serde_json::from_slice(&line) {
                    return Some(event);
                }
                continue;
            }
            let frame = self.body.next().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.pending.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ascii;

    #[test]
    fn text_survives_the_header() {
        let why = "Ümlaut \u{1f600} \"quoted\"";
        let json = serde_json::to_string(why).unwrap();
        let header: String = json.chars().flat_map(ascii).collect();
        assert!(header.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&header).unwrap(), why);
    }
}
