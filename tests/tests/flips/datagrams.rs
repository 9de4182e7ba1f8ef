//! Datagrams of known flows at the greatest rate, and who got each.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_common::wire::ip_proto;
use lb_tests::seeded::Seeded;
use lb_userspace::lab::{CLIENT_ADDRESSES, Host, Lab, VIP_V4};

use crate::model::{Client, Pair, number};

/// The port of the servers.
pub const PORT: u16 = 9000;
/// Flows that live from the first packet of a run to its last.
const ESTABLISHED: u64 = 2_048;
/// Packets of each flow that comes and goes.
const PACKETS: u64 = 32;
/// Of those flows, how many live at once.
const AT_ONCE: u64 = 512;
/// Source ports in use, from this one on.
const FIRST_PORT: u64 = 1_024;
/// All flows there can be.
const FLOWS: u64 = CLIENT_ADDRESSES as u64 * (65_536 - FIRST_PORT);
/// Bytes of IPv4 and UDP headers.
const HEADERS: usize = 28;

/// The client's end of a flow.
fn client(flow: u64) -> Client {
    let host = u8::try_from(2 + flow % u64::from(CLIENT_ADDRESSES)).unwrap();
    let port = FIRST_PORT + flow / u64::from(CLIENT_ADDRESSES);
    let address = Ipv4Addr::new(198, 51, 100, host);
    (address, u16::try_from(port).unwrap())
}

/// A packet as a backend got it: client, number, backend.
type Arrival = (Client, u32, u8);

/// A thread that ends with its handle.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(host: &Host, work: impl Fn() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (host, stopped) = (host.clone(), Arc::clone(&stop));
        let body = move || {
            host.enter().unwrap();
            while !stopped.load(Ordering::Relaxed) {
                work();
            }
        };
        Self {
            stop,
            thread: Some(std::thread::spawn(body)),
        }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a worker");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Servers that write down what they get and answer nothing.
pub struct Servers {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    _workers: Vec<Worker>,
}

impl Servers {
    /// One on each backend.
    pub fn new(lab: &Lab) -> Self {
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let worker = |host: &Host| {
            let socket = host.in_ns(bound).unwrap();
            let (backend, arrivals) = (number(host.name()), Arc::clone(&arrivals));
            Worker::start(host, move || {
                let mut data = [0; 64];
                let Ok((length, from)) = socket.recv_from(&mut data) else {
                    return;
                };
                let SocketAddr::V4(from) = from else {
                    panic!("from {from}")
                };
                let sequence = data[..length].try_into().expect("a packet of ours");
                let arrival = (
                    (*from.ip(), from.port()),
                    u32::from_be_bytes(sequence),
                    backend,
                );
                arrivals.lock().unwrap().push(arrival);
            })
        };
        Self {
            _workers: lab.backends().map(worker).collect(),
            arrivals,
        }
    }

    /// Packets so far.
    fn count(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// Everything that has come since the last time, when no more comes.
    pub fn take(&self) -> Vec<Arrival> {
        let mut before = usize::MAX;
        while self.count() != before {
            before = self.count();
            std::thread::sleep(Duration::from_millis(300));
        }
        std::mem::take(&mut *self.arrivals.lock().unwrap())
    }
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((VIP_V4, PORT)).unwrap();
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
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    socket
}

/// A socket that takes whole IPv4 packets to the VIP.
fn raw() -> UdpSocket {
    // SAFETY: a call without pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_RAW,
        )
    };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just made for this call.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    socket.connect((VIP_V4, 0)).unwrap();
    socket
}

/// The IPv4 packet number `sequence` of a client's flow; the kernel fills in the checksum.
fn packet(client: Client, sequence: u32) -> [u8; HEADERS + 4] {
    let mut packet = [0; HEADERS + 4];
    packet[0] = 0x45;
    packet[3] = 32;
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = ip_proto::UDP;
    packet[12..16].copy_from_slice(&client.0.octets());
    packet[16..20].copy_from_slice(&VIP_V4.octets());
    packet[20..22].copy_from_slice(&client.1.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[25] = 12;
    packet[28..].copy_from_slice(&sequence.to_be_bytes());
    packet
}

/// The sender.
pub struct Sender {
    sent: Arc<AtomicU64>,
    worker: Worker,
}

impl Sender {
    /// Sends until ended: half the packets are of flows that live all the time, half of flows that
    /// come and go, the first of them number `fresh`.
    pub fn start(client_host: &Host, fresh: u64, seed: u64) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let socket = client_host.in_ns(raw).unwrap();
        let random = Mutex::new(Seeded::new(seed));
        let worker = Worker::start(client_host, move || {
            let mut random = random.lock().unwrap();
            for _ in 0..256 {
                let number = count.load(Ordering::Relaxed);
                let flow = if number.is_multiple_of(2) || number < 2 * ESTABLISHED {
                    random.below(ESTABLISHED)
                } else {
                    let newest = fresh + number / 2 / PACKETS;
                    newest.saturating_sub(random.below(AT_ONCE)).max(fresh)
                };
                let flow = if flow < ESTABLISHED {
                    flow
                } else {
                    ESTABLISHED + flow % (FLOWS - ESTABLISHED)
                };
                let sequence = u32::try_from(number).expect("a short run");
                socket.send(&packet(client(flow), sequence)).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { sent, worker }
    }

    /// The first flow that comes and goes, after which a run has used `packets`.
    pub fn fresh_after(fresh: u64, packets: u64) -> u64 {
        fresh + packets / 2 / PACKETS + 1
    }

    /// Flows that come and go begin with this one.
    pub const FIRST: u64 = ESTABLISHED;

    /// Ends it; packets sent.
    pub fn end(mut self) -> u64 {
        self.worker.end();
        self.sent.load(Ordering::Relaxed)
    }
}

/// What the packets tell.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Packets judged.
    pub packets: u64,
    /// Flows among them.
    pub flows: u64,
    /// Packets at a backend that neither generation gives their flow, nor the flow had before.
    pub mixed: u64,
    /// Moves of established flows whose backend is in both generations.
    pub moved: u64,
    /// Moves that had to be: the backend was not in both.
    pub followed: u64,
    /// New flows by the generation that chose, where they differ.
    pub chosen: [u64; 2],
}

impl Verdicts {
    /// Judges the packets of one run, in the order in which each flow sent them. `known` is who
    /// had the flows before; flows that come and go are judged from their first packet on.
    pub fn judge(&mut self, pair: &Pair, known: &mut HashMap<Client, u8>, mut all: Vec<Arrival>) {
        all.sort_unstable();
        let mut begun = HashSet::new();
        for (client, _, backend) in all {
            self.packets += 1;
            let choices = pair.choices(client, ip_proto::UDP, PORT);
            let before = known.insert(client, backend);
            let sure = !begun.insert(client) || is_established(client);
            match before {
                Some(before) if before == backend => continue,
                Some(before) if sure && pair.in_both(before) => self.moved += 1,
                Some(_) => self.followed += 1,
                None => {
                    self.flows += 1;
                    if choices[0] != choices[1] {
                        self.chosen[usize::from(choices[1] == backend)] += 1;
                    }
                }
            }
            self.mixed += u64::from(!choices.contains(&backend));
        }
    }
}

/// Whether the flow lives all the time, so that its entry cannot have grown old.
fn is_established(client: Client) -> bool {
    u64::from(client.1) < FIRST_PORT + ESTABLISHED / u64::from(CLIENT_ADDRESSES)
}
