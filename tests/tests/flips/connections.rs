//! TCP connections of known flows, one after another: each is answered, by whom a generation names.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_common::wire::ip_proto;
use lb_userspace::lab::{CLIENT_ADDRESSES, Host};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;

use crate::model::{Client, FAMILIES, Family, Pair, number};

/// The port of the line servers.
pub const LINES: u16 = 7000;
/// How long a connection may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection's end: who answered, or what went wrong.
type Outcome = (Client, Result<u8, String>);

/// Connections, one after another.
pub struct Dialer {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    thread: Option<JoinHandle<()>>,
}

impl Dialer {
    /// Starts it.
    pub fn start(host: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let (host, stopped, log) = (host.clone(), Arc::clone(&stop), Arc::clone(&outcomes));
        let body = move || {
            host.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            for number in 0u32.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let client = client(number);
                let answer = runtime.block_on(async {
                    match tokio::time::timeout(LIMIT, ask(client)).await {
                        Ok(answer) => answer.map_err(|error| error.to_string()),
                        Err(_) => Err(format!("nothing within {LIMIT:?}")),
                    }
                });
                log.lock().unwrap().push((client, answer));
                // The datagrams are to have the processor.
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        Self {
            stop,
            outcomes,
            thread: Some(std::thread::spawn(body)),
        }
    }

    /// Ends it.
    pub fn end(mut self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the dialer");
        std::mem::take(&mut *self.outcomes.lock().unwrap())
    }
}

/// The clients in turn, but for the first address of each family: it has the held connections, whose
/// ports the kernel chose out of the same range, and of a port that one of them has the dialer's
/// `bind` would be refused ("address in use").
fn client(number: u32) -> Client {
    let hosts = u32::from(CLIENT_ADDRESSES) - 1;
    let (family, turn) = (number % 2, number / 2);
    Client {
        family: FAMILIES[usize::try_from(family).unwrap()],
        host: u8::try_from(3 + turn % hosts).unwrap(),
        port: u16::try_from(1_024 + turn / hosts % 31_000).unwrap(),
    }
}

async fn ask(client: Client) -> std::io::Result<u8> {
    let socket = match client.family {
        Family::V4 => TcpSocket::new_v4()?,
        Family::V6 => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(client.address(), client.port))?;
    let mut stream = socket
        .connect(SocketAddr::new(client.family.vip(), LINES))
        .await?;
    stream.write_all(b"who\n").await?;
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await?;
    let name = line.split(' ').next().unwrap_or_default();
    if name.is_empty() {
        return Err(std::io::Error::other("closed without an answer"));
    }
    Ok(number(name))
}

/// What the connections tell.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Connections that were answered.
    pub answered: u64,
    /// Of these, by a backend that neither generation names.
    pub mixed: u64,
    /// Failed although every backend that a generation names is in both.
    pub failed: Vec<String>,
    /// Failed, and a backend in question was taken away.
    pub excused: u64,
}

/// Judges them.
pub fn judge(pair: &Pair, outcomes: Vec<Outcome>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for (client, outcome) in outcomes {
        let choices = pair.choices(client, ip_proto::TCP, LINES);
        match outcome {
            Ok(backend) => {
                verdicts.answered += 1;
                verdicts.mixed += u64::from(!choices.contains(&backend));
            }
            Err(why) if choices.iter().all(|backend| pair.in_both(*backend)) => {
                verdicts.failed.push(format!("{client:?}: {why}"));
            }
            Err(_) => verdicts.excused += 1,
        }
    }
    verdicts
}
