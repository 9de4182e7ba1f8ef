//! The sender: datagrams of known flows at the greatest rate at which none is lost in a queue.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lb_tests::seeded::Seeded;
use lb_userspace::lab::{CLIENT_ADDRESSES, FIRST_CLIENT, Lab};

use crate::frames::{Frame, frame};
use crate::model::{Client, FAMILIES};
use crate::servers::{PORT, Servers};
use crate::worker::Worker;

/// Flows that live from the first packet of a run to its last.
const ESTABLISHED: u64 = 2_048;
/// Packets of each flow that comes and goes.
const PACKETS: u64 = 32;
/// Of those flows, how many live at once.
const AT_ONCE: u64 = 512;
/// Source ports in use, from this one on.
const FIRST_PORT: u64 = 1_024;
/// Clients of both families that can have a port.
const HOSTS: u64 = CLIENT_ADDRESSES as u64 * 2;
/// All flows there can be.
const FLOWS: u64 = HOSTS * (65_536 - FIRST_PORT);
/// Frames handed over by one system call.
const BATCH: usize = 96;
/// Packets on their way at most. The shortest queue on the way, the ring of a veth, holds 256
/// (`VETH_RING_SIZE` in `drivers/net/veth.c`): whoever has the processor, none overflows, so that a
/// packet which does not come has been dropped by a program, and no drop needs an excuse.
const WINDOW: u64 = 192;

/// The client's end of a flow.
fn client(flow: u64) -> Client {
    let host = u64::from(FIRST_CLIENT) + flow / 2 % u64::from(CLIENT_ADDRESSES);
    Client {
        family: FAMILIES[usize::try_from(flow % 2).unwrap()],
        host: u8::try_from(host).unwrap(),
        port: u16::try_from(FIRST_PORT + flow / HOSTS).unwrap(),
    }
}

/// Whether the flow lives all the time, so that its entry cannot have grown old.
pub fn is_established(client: Client) -> bool {
    u64::from(client.port) < FIRST_PORT + ESTABLISHED / HOSTS
}

/// MAC address and number of an interface of the calling thread's namespace.
fn interface(name: &str) -> ([u8; 6], i32) {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(text.contains(name), "no {name} here");
    // SAFETY: zeros are a good ifreq; the name is shorter than its field, which stays terminated.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut ask = |what| {
        // SAFETY: an ifreq for a request about an interface, alive through the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        request
    };
    // SAFETY: the kernel has filled in this member for this request.
    let number = unsafe { ask(libc::SIOCGIFINDEX).ifr_ifru.ifru_ifindex };
    // SAFETY: as above.
    let address = unsafe { ask(libc::SIOCGIFHWADDR).ifr_ifru.ifru_hwaddr.sa_data };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address) {
        *to = from.cast_unsigned();
    }
    (mac, number)
}

/// A socket that puts whole frames on an interface and takes none.
fn raw(interface: i32) -> OwnedFd {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just made for this call.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let bypass: libc::c_int = 1;
    let length = |size: usize| libc::socklen_t::try_from(size).unwrap();
    // SAFETY: the option's value is valid for its size.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const bypass).cast(),
            length(size_of_val(&bypass)),
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    // SAFETY: zeros are a good sockaddr_ll.
    let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    place.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    place.sll_ifindex = interface;
    // SAFETY: the address is valid for its size.
    let done = unsafe { libc::bind(fd, (&raw const place).cast(), length(size_of_val(&place))) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    socket
}

/// Hands frames over, all of them.
fn send(socket: &OwnedFd, frames: &[Frame]) {
    let part = |frame: &Frame| libc::iovec {
        iov_base: frame.0.as_ptr().cast_mut().cast(),
        iov_len: frame.1,
    };
    let mut parts: Vec<libc::iovec> = frames.iter().map(part).collect();
    let head = |part: &mut libc::iovec| {
        // SAFETY: zeros are a good mmsghdr.
        let mut head: libc::mmsghdr = unsafe { std::mem::zeroed() };
        head.msg_hdr.msg_iov = part;
        head.msg_hdr.msg_iovlen = 1;
        head
    };
    let mut heads: Vec<libc::mmsghdr> = parts.iter_mut().map(head).collect();
    let mut left = heads.as_mut_slice();
    while !left.is_empty() {
        let count = libc::c_uint::try_from(left.len()).unwrap();
        // SAFETY: the heads point to parts, and those to frames, that live through the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), count, 0) };
        assert!(sent > 0, "{}", io::Error::last_os_error());
        left = &mut left[usize::try_from(sent).unwrap()..];
    }
}

/// What a sending thread carries.
struct Load {
    socket: OwnedFd,
    /// Of the client's interface, and of the router's end.
    macs: [[u8; 6]; 2],
    random: Seeded,
    /// First of the flows that come and go.
    fresh: u64,
    sent: Arc<AtomicU64>,
    arrived: Arc<AtomicU64>,
    /// What had arrived before.
    before: u64,
}

impl Load {
    /// Packets that may be sent now. One that is lost leaves less room for the others.
    fn room(&self, sent: u64) -> u64 {
        let arrived = self.arrived.load(Ordering::Acquire) - self.before;
        WINDOW.saturating_sub(sent - arrived)
    }

    fn flow(&mut self, number: u64) -> u64 {
        if number.is_multiple_of(2) || number < 2 * ESTABLISHED {
            return self.random.below(ESTABLISHED);
        }
        let newest = self.fresh + number / 2 / PACKETS;
        let flow = newest.saturating_sub(self.random.below(AT_ONCE));
        ESTABLISHED + flow.max(self.fresh) % (FLOWS - ESTABLISHED)
    }

    fn burst(&mut self) {
        let first = self.sent.load(Ordering::Relaxed);
        let room = usize::try_from(self.room(first)).unwrap().min(BATCH);
        if room < BATCH {
            std::thread::sleep(Duration::from_micros(50));
            return;
        }
        let frames: Vec<Frame> = (first..first + room as u64)
            .map(|number| {
                let sequence = u32::try_from(number).expect("a short run");
                frame(self.macs, client(self.flow(number)), PORT, sequence)
            })
            .collect();
        send(&self.socket, &frames);
        self.sent.fetch_add(room as u64, Ordering::Release);
    }
}

/// The sender.
pub struct Sender {
    sent: Arc<AtomicU64>,
    worker: Worker,
}

impl Sender {
    /// Flows that come and go begin with this one.
    pub const FIRST: u64 = ESTABLISHED;

    /// Sends until ended: half the packets are of flows that live all the time, half of flows that
    /// come and go, the first of them number `fresh`.
    pub fn start(lab: &Lab, servers: &Servers, fresh: u64, seed: u64) -> Self {
        let (client, port) = (lab.client(), lab.client().router_port());
        let (mac, number) = client.in_ns(|| interface(client.interface())).unwrap();
        let (router, _) = lab.router().in_ns(|| interface(port)).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let arrived = servers.counter();
        let before = arrived.load(Ordering::Acquire);
        let mut load = Load {
            socket: client.in_ns(|| raw(number)).unwrap(),
            macs: [mac, router],
            random: Seeded::new(seed),
            fresh,
            sent: Arc::clone(&sent),
            arrived,
            before,
        };
        let worker = Worker::start(client, move || load.burst());
        Self { sent, worker }
    }

    /// The first flow that comes and goes, after which a run has used `packets`.
    pub fn fresh_after(fresh: u64, packets: u64) -> u64 {
        fresh + packets / 2 / PACKETS + 1
    }

    /// Ends it; packets sent.
    pub fn end(mut self) -> u64 {
        self.worker.end();
        self.sent.load(Ordering::Acquire)
    }
}
