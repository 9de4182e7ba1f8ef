//! A client that moves: its connections go on from another address and port.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use lb_userspace::lab::{Host, client_addresses, until};
use quinn::rustls::RootCertStore;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::PORT;
use crate::server::Certificate;

/// How long anything may take on a machine that does other things beside.
const SOON: Duration = Duration::from_secs(20);
/// Bytes of a question: several full-size packets.
const QUESTION: usize = 8_000;

/// The host, and what runs its connections.
pub struct Client {
    host: Host,
    runtime: Runtime,
}

/// A connection, on a socket of its own.
pub struct Connected {
    endpoint: Endpoint,
    connection: Connection,
    /// Who answered first.
    pub server: String,
    vip: IpAddr,
}

impl Client {
    pub fn start(host: &Host) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self {
            host: host.clone(),
            runtime: runtime.unwrap(),
        }
    }

    /// A socket on one of the client's addresses, on a port of the kernel's choice.
    fn socket(&self, like: IpAddr, number: usize) -> UdpSocket {
        let address = SocketAddr::new(client_addresses(like)[number], 0);
        let bound = self.host.in_ns(|| UdpSocket::bind(address).unwrap());
        bound.unwrap()
    }

    /// A new connection from the client's first address.
    pub fn connect(&self, vip: IpAddr, certificate: &Certificate) -> Connected {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.certificate.clone()).unwrap();
        let config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let socket = self.socket(vip, 0);
        let made = self.runtime.block_on(async {
            let runtime = Arc::new(TokioRuntime);
            let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime).unwrap();
            let target = SocketAddr::new(vip, PORT);
            let connecting = endpoint
                .connect_with(config, target, "shop.example")
                .unwrap();
            (endpoint, timeout(SOON, connecting).await)
        });
        let (endpoint, connection) = made;
        let connection = connection.expect("a handshake in time").unwrap();
        let mut connected = Connected {
            endpoint,
            connection,
            server: String::new(),
            vip,
        };
        let (server, _) = self.ask(&connected).unwrap();
        connected.server = server;
        connected
    }

    /// One question: who answers, and where it sees the client.
    fn ask(&self, connected: &Connected) -> Result<(String, SocketAddr), String> {
        let exchange = async {
            let (mut send, mut receive) = connected
                .connection
                .open_bi()
                .await
                .map_err(|e| e.to_string())?;
            send.write_all(&[7; QUESTION])
                .await
                .map_err(|e| e.to_string())?;
            send.finish().map_err(|e| e.to_string())?;
            receive.read_to_end(1_000).await.map_err(|e| e.to_string())
        };
        let answer = self
            .runtime
            .block_on(async { timeout(SOON, exchange).await });
        let answer = answer.map_err(|_| format!("no answer within {SOON:?}"))??;
        let answer = String::from_utf8(answer).unwrap();
        let (name, from) = answer.split_once(' ').unwrap();
        Ok((name.to_owned(), from.parse().unwrap()))
    }

    /// The server is still the same one.
    pub fn ask_again(&self, connected: &Connected) -> SocketAddr {
        let asked = self.ask(connected);
        let (server, from) = asked.unwrap_or_else(|why| panic!("{}: {why}", connected.server));
        assert_eq!(server, connected.server);
        from
    }

    /// The connection goes on from another of the client's addresses; returns when the server sees it there.
    pub fn move_to(&self, connected: &mut Connected, number: usize) {
        let socket = self.socket(connected.vip, number);
        let new = socket.local_addr().unwrap();
        let runtime = self.runtime.enter();
        connected.endpoint.rebind(socket).unwrap();
        drop(runtime);
        let seen = || (self.ask_again(connected) == new).then_some(());
        until("the server sees the client at its new address", SOON, seen).unwrap();
    }
}
