//! Sockets of checks: marked, and closed by a reset, so that a check every second leaves no sockets
//! waiting on either side.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Failed;

/// Bytes of the headers of a TCP segment without options.
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;

/// A connection whose segments are no longer than a client's that reach the backend.
pub(super) async fn connect(to: SocketAddr, mark: u32, longest: u16) -> Result<TcpStream, Failed> {
    let socket = tcp(to, mark, longest).map_err(|error| unsent(&error))?;
    let stream = socket.connect(to).await.map_err(|error| failed(&error))?;
    // What is left to send is worth nothing.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    Ok(stream)
}

/// The longest segment that the other side asks for (its MSS), as far as this host's own interface
/// lets see: what it says is cut to what fits that.
pub(crate) async fn offered_segment(to: SocketAddr, mark: u32) -> io::Result<u16> {
    let stream = tcp(to, mark, 0)?.connect(to).await?;
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let bytes = SockRef::from(&stream).tcp_mss()?;
    // What a segment carries is less by the timestamps that both sides have agreed on.
    let options = if crate::sys::tcp_has_timestamps(stream.as_fd())? {
        12
    } else {
        0
    };
    Ok(u16::try_from(bytes.saturating_add(options)).unwrap_or(u16::MAX))
}

fn tcp(to: SocketAddr, mark: u32, longest: u16) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(mark)?;
    socket.set_tcp_nodelay(true)?;
    let headers = if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    if longest > headers {
        socket.set_tcp_mss(u32::from(longest.saturating_sub(headers)))?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Bytes that one segment of this connection carries; 0 if that is not known.
pub(super) fn payload(stream: &TcpStream) -> usize {
    SockRef::from(stream)
        .tcp_mss()
        .ok()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(0)
}

/// A socket for datagrams, connected, so that an ICMP error is an error of it.
pub(super) async fn datagrams(to: SocketAddr, mark: u32) -> Result<UdpSocket, Failed> {
    let open = || {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_mark(mark)?;
        UdpSocket::from_std(socket.into())
    };
    let socket = open().map_err(|error| unsent(&error))?;
    socket.connect(to).await.map_err(|error| unsent(&error))?;
    Ok(socket)
}

/// Sends a datagram and waits for one.
pub(super) async fn exchange(socket: &UdpSocket, payload: &[u8]) -> Result<Vec<u8>, Failed> {
    socket.send(payload).await.map_err(|error| failed(&error))?;
    let mut answer = vec![0; 4096];
    let length = socket
        .recv(&mut answer)
        .await
        .map_err(|error| failed(&error))?;
    answer.truncate(length);
    Ok(answer)
}

pub(super) fn unsent(error: &io::Error) -> Failed {
    Failed::Unsent(format!("the check cannot be sent from this host: {error}"))
}

/// What an error of a socket says: some are this host's own.
pub(super) fn failed(error: &io::Error) -> Failed {
    match error.raw_os_error() {
        Some(
            libc::ENETUNREACH
            | libc::EADDRNOTAVAIL
            | libc::EPERM
            | libc::EACCES
            | libc::EINVAL
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENETDOWN,
        ) => unsent(error),
        _ => Failed::Ill(error.to_string()),
    }
}
