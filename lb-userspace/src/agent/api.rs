//! HTTP/JSON on a Unix socket. Readers may be anybody whom the socket's mode lets in; writers are
//! root and the agent's own user, known by `SO_PEERCRED`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::Sender;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use futures_util::stream;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::request::Request;
use super::wire::{APPLY_HEADER, Answer, Apply, ApplyEvent, Confirm, Drain, Switch};
use crate::change::actor::Actor;
use crate::config::MAX_BYTES;
use crate::exit::ExitCode;

/// Who is at the other end.
#[derive(Clone, Debug)]
struct Caller {
    uid: Option<u32>,
    pid: u32,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(cred) => Self {
                uid: Some(cred.uid()),
                pid: cred
                    .pid()
                    .and_then(|pid| u32::try_from(pid).ok())
                    .unwrap_or(0),
            },
            Err(_) => Self { uid: None, pid: 0 },
        }
    }
}

impl Caller {
    /// The caller as an actor, if it may write.
    fn writer(&self) -> Option<Actor> {
        let own = nix::unistd::Uid::effective().as_raw();
        let uid = self.uid.filter(|uid| *uid == 0 || *uid == own)?;
        Some(Actor::of(self.pid, uid))
    }
}

/// Binds the socket; a leftover of a dead agent is removed (the lock says that it is dead).
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    let _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(listener)
}

/// Serves until the listener fails.
pub async fn serve(listener: UnixListener, engine: Sender<Request>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/traffic", get(traffic))
        .route("/v1/apply", post(apply))
        .route("/v1/confirm", post(confirm))
        .route("/v1/switch", post(switch))
        .route("/v1/drain", post(drain))
        .layer(DefaultBodyLimit::max(MAX_BYTES.saturating_add(1)))
        .with_state(engine);
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<Caller>(),
    )
    .await
}

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the engine has ended").into_response()
}

fn refused(message: &str) -> Response {
    let answer = Answer {
        done: false,
        message: message.to_owned(),
        exit: ExitCode::Refused.code(),
    };
    (StatusCode::FORBIDDEN, Json(answer)).into_response()
}

const NOT_A_WRITER: &str = "only root and the agent's own user may change anything";

async fn status(State(engine): State<Sender<Request>>) -> Response {
    let (reply, answer) = oneshot::channel();
    if engine.send(Request::Status(reply)).is_err() {
        return gone();
    }
    answer
        .await
        .map_or_else(|_| gone(), |status| Json(status).into_response())
}

async fn traffic(State(engine): State<Sender<Request>>) -> Response {
    let (reply, answer) = oneshot::channel();
    if engine.send(Request::Seen(reply)).is_err() {
        return gone();
    }
    answer
        .await
        .map_or_else(|_| gone(), |seen| Json(seen).into_response())
}

async fn confirm(
    State(engine): State<Sender<Request>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Json(request): Json<Confirm>,
) -> Response {
    let Some(by) = caller.writer() else {
        return refused(NOT_A_WRITER);
    };
    let (reply, answer) = oneshot::channel();
    let request = Request::Confirm {
        by,
        accept_unproven: request.accept_unproven,
        reply,
    };
    if engine.send(request).is_err() {
        return gone();
    }
    answer
        .await
        .map_or_else(|_| gone(), |answer| Json(answer).into_response())
}

async fn switch(
    State(engine): State<Sender<Request>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Json(switch): Json<Switch>,
) -> Response {
    let Some(by) = caller.writer() else {
        return refused(NOT_A_WRITER);
    };
    let (reply, answer) = oneshot::channel();
    if engine.send(Request::Switch { switch, by, reply }).is_err() {
        return gone();
    }
    answer
        .await
        .map_or_else(|_| gone(), |answer| Json(answer).into_response())
}

async fn drain(
    State(engine): State<Sender<Request>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Json(drain): Json<Drain>,
) -> Response {
    let Some(by) = caller.writer() else {
        return refused(NOT_A_WRITER);
    };
    let (reply, answer) = oneshot::channel();
    if engine.send(Request::Drain { drain, by, reply }).is_err() {
        return gone();
    }
    answer
        .await
        .map_or_else(|_| gone(), |answer| Json(answer).into_response())
}

async fn apply(
    State(engine): State<Sender<Request>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(by) = caller.writer() else {
        return refused(NOT_A_WRITER);
    };
    let apply: Option<Apply> = headers
        .get(APPLY_HEADER)
        .and_then(|value| serde_json::from_slice(value.as_bytes()).ok());
    let Some(apply) = apply else {
        return (
            StatusCode::BAD_REQUEST,
            format!("{APPLY_HEADER} is missing or malformed"),
        )
            .into_response();
    };
    let (events, inbox) = mpsc::unbounded_channel();
    if engine
        .send(Request::Apply {
            apply,
            bytes: body.to_vec(),
            by,
            events,
        })
        .is_err()
    {
        return gone();
    }
    Body::from_stream(stream::unfold(inbox, line)).into_response()
}

/// The next event as a line; the stream ends when the engine lets go of the change.
async fn line(
    mut inbox: mpsc::UnboundedReceiver<ApplyEvent>,
) -> Option<(
    Result<Bytes, std::convert::Infallible>,
    mpsc::UnboundedReceiver<ApplyEvent>,
)> {
    let event = inbox.recv().await?;
    let mut text = serde_json::to_vec(&event).unwrap_or_default();
    text.push(b'\n');
    Some((Ok(Bytes::from(text)), inbox))
}
