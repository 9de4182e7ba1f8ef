//! How long packets wait for a CPU on which the guard is at work.
//!
//! Packets of the lab's client are handed to one CPU by receive packet steering, and the guard's caller
//! is pinned to it. Each is taken there in a softirq, which waits as long as the CPU has softirqs off:
//! for a call of the guard, if one is running. Sender and receiver are one thread on another
//! CPU, which the scheduler does not interrupt (`SCHED_FIFO`): it sends one packet, waits for it, and so sees
//! every wait, whatever thread the first CPU has. The same without the guard shows what of it is the machine's own.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_tests::steering::{steer_client, steered};
use lb_userspace::lab::Lab;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::times::{Changes, VIPS};

/// But for one in a thousand no packet waits longer than this: what holds it up for longer without the guard, too,
/// is not the guard. That no call of it lasts so long is `times.rs`'s to show.
const WAIT: Duration = Duration::from_millis(2);
/// Between two packets.
const PAUSE: Duration = Duration::from_micros(100);
const PORT: u16 = 9_100;

/// Ties the calling thread to a CPU.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Makes the calling thread one that no ordinary thread interrupts.
fn first_of_all() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter lives through the call.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// The way from the client to its router, over a CPU.
struct Way {
    lab: Lab,
    from: UdpSocket,
    to: UdpSocket,
}

impl Way {
    fn over(cpu: usize) -> Self {
        let lab = Lab::builder().without_web().build().unwrap();
        let gateway = Ipv4Addr::new(198, 51, 100, 1);
        steer_client(&lab, cpu);
        let to = || UdpSocket::bind((gateway, PORT)).unwrap();
        let to = lab.router().in_ns(to).unwrap();
        to.set_nonblocking(true).unwrap();
        let from = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let from = lab.client().in_ns(from).unwrap();
        from.connect((gateway, PORT)).unwrap();
        Self { lab, from, to }
    }

    /// The time of one packet.
    fn once(&self) -> Duration {
        let begun = Instant::now();
        self.from.send(&[0]).unwrap();
        let mut data = [0; 8];
        loop {
            match self.to.recv(&mut data) {
                Ok(_) => return begun.elapsed(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    /// Times of packets, from another CPU, until told to stop.
    fn until(self, stop: &AtomicBool, cpu: usize) -> (Self, Vec<Duration>) {
        pin(cpu);
        first_of_all();
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            waits.push(self.once());
            std::thread::sleep(PAUSE);
        }
        (self, waits)
    }
}

/// Packets' times while `work` is done on the first CPU.
fn during(way: Way, cpus: [usize; 2], work: impl FnOnce()) -> (Way, Vec<Duration>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || way.until(&stopped, cpus[1]));
    work();
    stop.store(true, Ordering::Relaxed);
    let (way, mut waits) = thread.join().expect("the packets' thread");
    waits.sort();
    (way, waits)
}

/// Prints them; the longest of 999 in 1,000.
fn told(what: &str, waits: &[Duration]) -> Duration {
    let rare = waits[waits.len() * 999 / 1_000];
    println!(
        "{what:<24} {:>7} packets, median {:>8.1?}, 99.9 % {rare:>8.1?}, {} above {WAIT:?}, \
         longest {:>8.1?}",
        waits.len(),
        waits[waits.len() / 2],
        waits.iter().filter(|wait| **wait > WAIT).count(),
        waits[waits.len() - 1]
    );
    rare
}

/// Waits of packets while changes are staged.
fn waits(table_size: u32, rounds: usize) {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        println!("one CPU: no packet can be sent while the guard is at work");
        return;
    }
    let cpus = [0, 1];
    let mut changes = Changes::new(table_size);
    pin(cpus[0]);
    let way = Way::over(cpus[0]);
    let before = steered(cpus[0]);
    let idle = Duration::from_millis(200) * u32::try_from(rounds).unwrap();
    let (way, quiet) = during(way, cpus, || std::thread::sleep(idle));
    let (way, busy) = during(way, cpus, || {
        for _ in 0..rounds {
            changes.next();
        }
    });
    told("nothing is staged", &quiet);
    let rare = told(&format!("{VIPS} tables of {table_size}"), &busy);
    // An interrupt of that CPU may bring more than one packet, others' too; if there were none, this
    // would be the wrong CPU.
    let packets = (quiet.len() + busy.len()) as u64;
    let steered = steered(cpus[0]) - before;
    assert!(steered > packets / 2, "{steered} for {packets} packets");
    drop(way.lab);
    assert!(rare <= WAIT, "{rare:?}");
}

#[test]
fn packets_do_not_wait_for_the_guard() {
    waits(4_099, 4);
}

#[test]
#[ignore = "figures; `cargo xtask soak guard` runs it"]
fn soak_guard_waits_of_packets() {
    waits(65_537, 30);
}
