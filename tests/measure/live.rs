//! Frames over veth, in a network namespace of the process's own: the kernel makes them
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`), they go through the program under test on the other end and come
//! back to a sink, which counts.
//!
//! One core does all of that, and a packet waits in two rings. What is lost there is counted, too.

use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use crate::measure::balancer::Balancer;
use crate::measure::rig::{Lane, Rig, Subject};
use crate::measure::shared::{Seen, Traffic};
use crate::measure::timing::stay_on_one_cpu;
use crate::measure::workload::ELSEWHERE;

/// Longest wait for what is still on its way.
const PATIENCE: Duration = Duration::from_secs(1);

/// A share of flows that begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// One SYN in this many packets.
    pub every: u32,
    /// And so many packets of flows that have begun lately: ACKs, and then their FIN.
    pub more: u32,
}

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Packets that were made.
    pub sent: u64,
    /// Packets that came back, those that were late among them.
    pub arrived: u64,
    /// Millions a second that had come back when the last was made.
    pub mpps: f64,
}

/// Both ends of a veth, by their indices.
struct Wire {
    near: u32,
    far: u32,
    far_name: String,
    near_name: String,
}

/// Gives this thread a network namespace that holds nothing but a loopback interface, and goes with it.
fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    // Neighbour discovery would be among the packets.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("no IPv6");
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("ip");
    assert!(status.success(), "ip {}", words.join(" "));
}

impl Wire {
    fn new(number: usize) -> Self {
        let (near_name, far_name) = (format!("near{number}"), format!("far{number}"));
        ip(&[
            "link", "add", &near_name, "type", "veth", "peer", "name", &far_name,
        ]);
        for name in [&near_name, &far_name] {
            ip(&["link", "set", name, "up"]);
        }
        let index = |name: &String| if_nametoindex(name.as_str()).expect("an index");
        Self {
            near: index(&near_name),
            far: index(&far_name),
            far_name,
            near_name,
        }
    }
}

/// A rig whose lanes lie behind a veth each.
pub struct Street {
    /// The lanes and programs.
    pub rig: Rig,
    wires: Vec<Wire>,
    next: Vec<Option<Traffic>>,
    // Holds the links.
    _sink: Xdp,
}

impl Street {
    /// Puts every lane behind a veth of its own, in a network namespace that is this thread's from now on.
    pub fn new(mut rig: Rig) -> Self {
        own_network();
        let mut sink = rig.programs.program("sink");
        let mut wires = Vec::new();
        for (number, lane) in rig.lanes.iter_mut().enumerate() {
            let wire = Wire::new(number);
            lane.interface = wire.far;
            if let Subject::Balancer(balancer) = &lane.subject {
                answer_by(balancer, wire.far);
            }
            attach(lane.subject.program(), &wire.far_name);
            attach(&mut sink, &wire.near_name);
            wires.push(wire);
        }
        let next = vec![None; wires.len()];
        Self {
            rig,
            wires,
            next,
            _sink: sink,
        }
    }

    /// Sends `packets` packets through a lane; each round goes on where the one before ended.
    pub fn round(&mut self, index: usize, packets: u32, mix: Option<Mix>) -> Round {
        stay_on_one_cpu();
        let lane = &self.rig.lanes[index];
        let programs = &mut self.rig.programs;
        let traffic = self.next[index].unwrap_or_else(|| first(lane, mix));
        programs.feed(&traffic);
        let before = programs.seen(Seen::Tunnel) + programs.seen(Seen::Plain);
        let length = lane.workload.frame_length();
        let took = programs.send(length, packets, self.wires[index].near);
        let seen = || programs.seen(Seen::Tunnel) + programs.seen(Seen::Plain) - before;
        let at_the_end = seen();
        let arrived = settled(seen, u64::from(packets));
        // Whichever CPU has made them.
        let next = programs.fed().into_iter().max_by_key(|made| {
            let begun = made.young.wrapping_sub(traffic.young);
            (made.next.wrapping_sub(traffic.next), begun)
        });
        self.next[index] = next;
        Round {
            sent: u64::from(packets),
            arrived,
            mpps: as_f64(at_the_end) / took.as_secs_f64() / 1e6,
        }
    }
}

fn first(lane: &Lane, mix: Option<Mix>) -> Traffic {
    let stride = if lane.workload.flows == 0 {
        1
    } else {
        ELSEWHERE
    };
    let traffic = lane.workload.traffic(stride, lane.sent);
    match mix {
        None => traffic,
        Some(mix) => Traffic {
            every: mix.every,
            more: mix.more,
            ..traffic
        },
    }
}

/// What has arrived when no more comes.
fn settled(seen: impl Fn() -> u64, expected: u64) -> u64 {
    let began = Instant::now();
    let mut arrived = seen();
    while arrived < expected && began.elapsed() < PATIENCE {
        std::thread::yield_now();
        arrived = seen();
    }
    arrived
}

fn attach(program: &mut Xdp, interface: &str) {
    program
        .attach(interface, XdpMode::Driver)
        .unwrap_or_else(|e| panic!("{interface}: {e}"));
}

/// Sends what is forwarded back by the interface that it came by.
fn answer_by(balancer: &Balancer, interface: u32) {
    balancer.bench.set_hop_by(1, interface, 1500, true);
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("a round's packets"))
}
