//! The servers' end: who got which datagram.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_userspace::lab::{Host, Lab};

use crate::model::{Client, number};
use crate::worker::Worker;

/// The port of the servers.
pub const PORT: u16 = 9000;
/// Datagrams taken by one system call.
const BATCH: usize = 64;

/// A packet as a backend got it: client, number, backend.
pub type Arrival = (Client, u32, u8);

/// Servers that write down what they get and answer nothing.
///
/// One thread reads all of them and sleeps in between: one that each packet woke would take the
/// processor from those packets.
pub struct Servers {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    count: Arc<AtomicU64>,
    _worker: Worker,
}

impl Servers {
    /// One on each backend.
    pub fn new(lab: &Lab) -> Self {
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let count = Arc::new(AtomicU64::new(0));
        let server = |host: &Host| (host.in_ns(bound).unwrap(), number(host.name()));
        let mut servers: Vec<_> = lab.backends().map(server).collect();
        let (log, counter) = (Arc::clone(&arrivals), Arc::clone(&count));
        let mut batch = Box::new(Batch::new());
        let work = move || {
            let mut got = 0;
            for (socket, backend) in &mut servers {
                let mut log = log.lock().unwrap();
                let before = log.len();
                batch.take(socket, *backend, &mut log);
                got += log.len() - before;
            }
            counter.fetch_add(got as u64, Ordering::Release);
            if got == 0 {
                std::thread::sleep(Duration::from_micros(20));
            }
        };
        Self {
            arrivals,
            count,
            _worker: Worker::start(lab.client(), work),
        }
    }

    /// Packets so far, ever.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }

    /// Everything that has come since the last time, when no more comes.
    pub fn take(&self) -> Vec<Arrival> {
        let mut before = u64::MAX;
        while self.count.load(Ordering::Acquire) != before {
            before = self.count.load(Ordering::Acquire);
            std::thread::sleep(Duration::from_millis(300));
        }
        std::mem::take(&mut *self.arrivals.lock().unwrap())
    }
}

/// A socket for both families.
fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    let room: libc::c_int = 64 << 20;
    // SAFETY: the option's value is valid for its size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            libc::socklen_t::try_from(size_of_val(&room)).unwrap(),
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    socket
}

/// Room for the datagrams of one system call.
struct Batch {
    data: [[u8; 8]; BATCH],
    names: [libc::sockaddr_in6; BATCH],
    parts: [libc::iovec; BATCH],
    heads: [libc::mmsghdr; BATCH],
}

// SAFETY: its pointers are set anew by each call and point into itself.
unsafe impl Send for Batch {}

impl Batch {
    fn new() -> Self {
        // SAFETY: all of these are plain data for which zeros are good.
        let (names, parts, heads) = unsafe {
            (
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
            )
        };
        Self {
            data: [[0; 8]; BATCH],
            names,
            parts,
            heads,
        }
    }

    /// What has come to a socket, [`BATCH`] at most.
    fn take(&mut self, socket: &UdpSocket, backend: u8, log: &mut Vec<Arrival>) {
        for index in 0..BATCH {
            self.parts[index] = libc::iovec {
                iov_base: self.data[index].as_mut_ptr().cast(),
                iov_len: size_of_val(&self.data[index]),
            };
            let head = &mut self.heads[index].msg_hdr;
            head.msg_name = (&raw mut self.names[index]).cast();
            head.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_in6>()).unwrap();
            head.msg_iov = &raw mut self.parts[index];
            head.msg_iovlen = 1;
        }
        // SAFETY: each head points to a name and a part that live through the call, with their sizes.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.heads.as_mut_ptr(),
                libc::c_uint::try_from(BATCH).unwrap(),
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        for index in 0..usize::try_from(got).unwrap_or(0) {
            assert_eq!(self.heads[index].msg_len, 4, "a packet of ours");
            let name = &self.names[index];
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            let client = Client::of(SocketAddr::new(address.into(), port));
            let data = self.data[index].first_chunk().unwrap();
            log.push((client, u32::from_be_bytes(*data), backend));
        }
    }
}
