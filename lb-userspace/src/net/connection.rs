//! Two netlink sockets: one that asks, one that listens. An overrun of the second can so never
//! lose an answer of the first.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, MulticastGroup, new_connection, new_multicast_connection};
use tokio::task::JoinHandle;

use super::NetError;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time before a broken listening socket is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(500);
/// Bytes of events that may wait; the kernel caps it at `net.core.rmem_max`.
const EVENT_BUFFER: u32 = 4 << 20;
/// What the watcher has to hear of.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The socket that asks.
#[derive(Debug)]
pub(super) struct Requests {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Requests {
    /// A socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = new_connection().map_err(NetError::Socket)?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bounds a request in time.
pub(super) async fn within_patience<T>(
    what: impl Into<String>,
    request: impl Future<Output = Result<T, NetError>>,
) -> Result<T, NetError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(outcome) => outcome,
        Err(_) => Err(NetError::NoAnswer(what.into())),
    }
}

/// What the kernel told without being asked.
#[derive(Debug)]
pub(super) enum Event {
    /// An interface is there, or as told now.
    Link(LinkMessage),
    /// An interface is gone.
    LinkGone(LinkMessage),
    /// A neighbour is as told now.
    Neighbour(NeighbourMessage),
    /// A neighbour entry is gone.
    NeighbourGone(NeighbourMessage),
    /// Some route has changed.
    Route,
    /// Events were lost: everything must be read again.
    Lost,
}

type Messages = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// The socket that listens.
pub(super) struct Events {
    messages: Option<Messages>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// A socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, NetError> {
        let (mut connection, _, messages) =
            new_multicast_connection(&GROUPS).map_err(NetError::Socket)?;
        // Smaller buffers only mean more re-reads.
        let _ = connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(EVENT_BUFFER);
        let messages = messages.map(|(message, _)| message).boxed();
        Ok(Self {
            messages: Some(messages),
            task: tokio::spawn(connection),
        })
    }

    /// The next event. May be dropped at any time without losing one.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let Some(messages) = &mut self.messages else {
                self.reopen().await;
                return Event::Lost;
            };
            match messages.next().await {
                Some(message) => match event(message) {
                    // What still waits is older than what will be read now, and would undo it.
                    Some(Event::Lost) => match Self::open() {
                        Ok(opened) => {
                            *self = opened;
                            return Event::Lost;
                        }
                        Err(_) => self.messages = None,
                    },
                    Some(event) => return event,
                    None => {}
                },
                None => self.messages = None,
            }
        }
    }

    /// Until it works: without this socket the watcher is blind.
    async fn reopen(&mut self) {
        loop {
            tokio::time::sleep(REOPEN_AFTER).await;
            match Self::open() {
                Ok(opened) => {
                    *self = opened;
                    return;
                }
                Err(error) => tracing::warn!("routes and neighbours are not watched: {error}"),
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
    match message.payload {
        NetlinkPayload::Overrun(_) => Some(Event::Lost),
        NetlinkPayload::InnerMessage(inner) => match inner {
            RouteNetlinkMessage::NewLink(link) => Some(Event::Link(link)),
            RouteNetlinkMessage::DelLink(link) => Some(Event::LinkGone(link)),
            RouteNetlinkMessage::NewNeighbour(neighbour) => Some(Event::Neighbour(neighbour)),
            RouteNetlinkMessage::DelNeighbour(neighbour) => Some(Event::NeighbourGone(neighbour)),
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => {
                Some(Event::Route)
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_means_read_again() {
        let header = rtnetlink::packet_core::NetlinkHeader::default();
        let overrun = NetlinkMessage::new(header, NetlinkPayload::Overrun(Vec::new()));
        assert!(matches!(event(overrun), Some(Event::Lost)));
    }
}
