//! One check on the wire: to every address that the pool's VIPs have, at once.

mod dns;
mod http;
mod socket;
mod tls;

pub(crate) use socket::offered_segment;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Verdict;
use crate::config::{Health, HealthKind, Identity};

/// What a backend is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The pool's check.
    pub health: Health,
    /// What an answer over HTTP must name.
    pub identity: Option<Identity>,
    /// Addresses of VIPs, each with the longest packet of a client that reaches the backend, bytes.
    pub vips: Vec<(IpAddr, u16)>,
    /// Mark that names the backend.
    pub mark: u32,
}

/// How far a check has come: what a timeout means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connect,
    Tls,
    /// Asked, with a request of so many bytes on the wire if it was made as long as fits.
    Asked(Option<u16>),
}

/// Why a check failed.
#[derive(Debug)]
enum Failed {
    Ill(String),
    Unsent(String),
}

impl Probe {
    /// Asks once. All VIPs have to be answered for.
    pub async fn ask(&self) -> Verdict {
        let mut asked = JoinSet::new();
        for (vip, longest) in &self.vips {
            let (probe, to) = (self.clone(), SocketAddr::new(*vip, self.health.port));
            let longest = *longest;
            asked.spawn(async move { (to, probe.ask_one(to, longest).await) });
        }
        let mut verdict = Verdict::Well;
        while let Some(ended) = asked.join_next().await {
            let (to, outcome) = match ended {
                Ok(ended) => ended,
                Err(error) => return Verdict::Unsent(format!("the check broke off: {error}")),
            };
            match outcome {
                Ok(()) => {}
                // What is known to be ill counts, whatever else could not be asked.
                Err(Failed::Ill(why)) => return Verdict::Ill(format!("{to}: {why}")),
                Err(Failed::Unsent(why)) => verdict = Verdict::Unsent(format!("{to}: {why}")),
            }
        }
        verdict
    }

    async fn ask_one(&self, to: SocketAddr, longest: u16) -> Result<(), Failed> {
        let mut stage = Stage::Connect;
        let limit = self.health.timeout;
        match timeout(limit, self.speak(to, longest, &mut stage)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failed::Ill(silent(stage, limit))),
        }
    }

    async fn speak(&self, to: SocketAddr, longest: u16, stage: &mut Stage) -> Result<(), Failed> {
        match self.health.kind {
            HealthKind::Tcp => socket::connect(to, self.mark, longest).await.map(drop),
            HealthKind::Http => {
                let stream = socket::connect(to, self.mark, longest).await?;
                http::ask(self, to, longest, stream, stage).await
            }
            HealthKind::Https => {
                let stream = socket::connect(to, self.mark, longest).await?;
                *stage = Stage::Tls;
                let (room, stream) = (socket::payload(&stream), tls::wrap(self, to, stream).await?);
                http::ask_in_tls(self, to, longest, room, stream, stage).await
            }
            HealthKind::Udp => {
                let payload = self.health.send.as_deref().unwrap_or("lbguard");
                let socket = socket::datagrams(to, self.mark).await?;
                *stage = Stage::Asked(None);
                socket::exchange(&socket, payload.as_bytes())
                    .await
                    .map(drop)
            }
            HealthKind::Dns => {
                let socket = socket::datagrams(to, self.mark).await?;
                *stage = Stage::Asked(None);
                dns::ask(&socket, self.health.name.as_deref()).await
            }
        }
    }
}

/// What silence means.
fn silent(stage: Stage, limit: Duration) -> String {
    let limit = humantime::format_duration(limit);
    match stage {
        Stage::Connect => format!("no connection within {limit}"),
        Stage::Tls => format!("connected, but no TLS within {limit}"),
        Stage::Asked(None) => format!("no answer within {limit}"),
        Stage::Asked(Some(bytes)) => format!(
            "connected, but a request of {bytes} bytes got no answer within {limit}: it hangs, or the \
             path takes no packet of that size"
        ),
    }
}
