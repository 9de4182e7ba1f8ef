//! Small servers that say which backend they are: lines over TCP, datagrams over UDP.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::error::LabError;
use super::host::Host;
use super::worker::Worker;

/// A running server; dropping it closes its sockets.
#[derive(Debug)]
pub struct Server {
    _worker: Worker,
}

impl Host {
    /// Answers each line over TCP with `<name> <line>`, on all addresses of the host.
    ///
    /// # Errors
    /// [`LabError::Io`] when the port is taken.
    pub fn serve_lines(&self, port: u16) -> Result<Server, LabError> {
        let name = self.name().to_owned();
        let worker = Worker::start(self, "line server", move || Ok(accept(listen(port)?, name)))?;
        Ok(Server { _worker: worker })
    }

    /// Answers each datagram with `<name> <data>`, from the address that it was sent to only if
    /// `address` is given; a socket for all addresses would answer from the interface's own.
    ///
    /// # Errors
    /// [`LabError::Io`] when the port is taken or the address is not the host's.
    pub fn serve_datagrams(&self, address: SocketAddr) -> Result<Server, LabError> {
        let name = self.name().to_owned();
        let worker = Worker::start(self, "datagram server", move || {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            Ok(async move { answer_datagrams(&socket, &name).await })
        })?;
        Ok(Server { _worker: worker })
    }
}

/// A socket for both families.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    socket.listen(4096)
}

async fn accept(listener: TcpListener, name: String) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let name = name.clone();
            tokio::spawn(async move { answer_lines(stream, &name).await });
        }
    }
}

async fn answer_lines(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        writer
            .write_all(format!("{name} {line}\n").as_bytes())
            .await?;
    }
    Ok(())
}

async fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut data = vec![0; 65_536];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut data).await {
            let mut answer = format!("{name} ").into_bytes();
            answer.extend_from_slice(data.get(..length).unwrap_or_default());
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}
