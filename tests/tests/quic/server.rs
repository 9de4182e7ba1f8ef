//! Servers that say who they are and who asks.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::seeded::Seeded;
use lb_userspace::lab::Host;
use quinn::rustls::pki_types::pem::PemObject as _;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{
    Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming,
    ServerConfig, TokioRuntime,
};
use tokio::sync::oneshot;

use crate::PORT;

/// How a server makes connection ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The first two bits say that 16 bits of server id follow.
    Bits16,
    /// Bytes 1 to 3.
    Bits24,
    /// Bytes 1 to 4.
    Bits32,
    /// QUIC-LB, plaintext: so many bytes behind the first.
    Plain(u8),
    /// Without a server id.
    Drawn,
}

struct Ids {
    layout: Layout,
    server: u32,
    random: Seeded,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = self.random.below(u64::MAX).to_be_bytes();
        let [a, b, c, d] = self.server.to_be_bytes();
        match self.layout {
            Layout::Bits16 => {
                // | 01 | 16 bits | drawn |
                id[0] = 0x40 | (c >> 2);
                id[1] = c << 6 | d >> 2;
                id[2] = d << 6 | (id[2] & 0x3f);
            }
            Layout::Bits24 => {
                id[0] = 0x80 | (id[0] & 0x3f);
                id[1..4].copy_from_slice(&[b, c, d]);
            }
            Layout::Bits32 => {
                id[0] = 0xc0 | (id[0] & 0x3f);
                id[1..5].copy_from_slice(&[a, b, c, d]);
            }
            Layout::Plain(bytes) => {
                id[0] &= 0x1f;
                let bytes = usize::from(bytes);
                id[1..=bytes].copy_from_slice(&[a, b, c, d][4 - bytes..]);
            }
            Layout::Drawn => {}
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A certificate for all servers, and its key.
pub struct Certificate {
    pub certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// Makes one, in this directory.
    pub fn new(directory: &Path) -> Self {
        let made = lb_tests::certificate::Certificate::new(directory);
        Self {
            certificate: CertificateDer::from_pem_file(&made.certificate).unwrap(),
            key: PrivateKeyDer::from_pem_file(&made.key).unwrap(),
        }
    }
}

/// A running server; it ends with its handle.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// One on a VIP of a host, which answers each stream with `<name> <client's address>`.
    pub fn start(
        host: &Host,
        vip: IpAddr,
        certificate: &Certificate,
        layout: Layout,
        server: u32,
    ) -> Self {
        let chain = vec![certificate.certificate.clone()];
        let config = ServerConfig::with_single_cert(chain, certificate.key.clone_key()).unwrap();
        let mut endpoint = EndpointConfig::default();
        let seed = Seeded::announced(host.name()).below(u64::MAX);
        endpoint.cid_generator(move || {
            Box::new(Ids {
                layout,
                server,
                random: Seeded::new(seed),
            })
        });
        let socket = host.in_ns(|| UdpSocket::bind(SocketAddr::new(vip, PORT)).unwrap());
        let (socket, name) = (socket.unwrap(), host.name().to_owned());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let serve = async {
                let runtime = Arc::new(TokioRuntime);
                let endpoint = Endpoint::new(endpoint, Some(config), socket, runtime).unwrap();
                while let Some(incoming) = endpoint.accept().await {
                    tokio::spawn(serve(incoming, name.clone()));
                }
            };
            runtime.unwrap().block_on(async {
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(incoming: Incoming, name: String) {
    let Ok(connection) = incoming.await else {
        return;
    };
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let asked = receive.read_to_end(1_000_000).await;
        if asked.is_ok() {
            let _ = send.write_all(answer(&connection, &name).as_bytes()).await;
            let _ = send.finish();
        }
    }
}

fn answer(connection: &Connection, name: &str) -> String {
    let from = connection.remote_address();
    format!(
        "{name} {}",
        SocketAddr::new(from.ip().to_canonical(), from.port())
    )
}
