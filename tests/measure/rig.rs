//! Programs side by side, each with its traffic: filled, checked, timed in turn.

use aya::programs::Xdp;
use lb_common::counter::Reason;
use lb_common::slot::Node;
use lb_userspace::kernel::probe::Ask;

use crate::measure::balancer::Balancer;
use crate::measure::check::{self, Expected, Wrong};
use crate::measure::programs::{Programs, Ran, floor_node, is_floor_backend};
use crate::measure::timing::stay_on_one_cpu;
use crate::measure::workload::{ELSEWHERE, Kind, Workload};

/// Flows that are looked at one by one before anything is timed.
const LOOKED_AT: u32 = 8;
/// Packets before a timing that bring caches and tables to where they stay.
const WARM_UP: u32 = 10_000;
/// The kernel tells whole nanoseconds; the mean of so many runs tells more.
const RUNS: u32 = 10;
/// Of flows that were sent once, one in so many is looked up afterwards.
pub const ASKED_FOR: usize = 64;
/// Index of the loopback interface, by which test runs come in unless told otherwise.
pub const LOOPBACK: u32 = 1;

/// What is measured.
pub enum Subject {
    /// Sends every packet back.
    Tx(Xdp),
    /// One of the floors.
    Floor(Xdp, Node),
    /// The balancer.
    Balancer(Box<Balancer>),
}

impl Subject {
    /// The handle.
    pub const fn program(&mut self) -> &mut Xdp {
        match self {
            Self::Tx(program) | Self::Floor(program, _) => program,
            Self::Balancer(balancer) => &mut balancer.program,
        }
    }

    /// The balancer, if it is one.
    pub fn balancer(&self) -> Option<&Balancer> {
        match self {
            Self::Balancer(balancer) => Some(balancer),
            Self::Tx(_) | Self::Floor(..) => None,
        }
    }

    fn check(&self, workload: &Workload, flow: u32, ran: &Ran) -> Result<(), Wrong> {
        let expected = match self {
            Self::Tx(_) => Expected::Returned,
            Self::Floor(_, node) => Expected::Tunnelled(node, &is_floor_backend),
            Self::Balancer(balancer) => {
                let has = |address| balancer.has_backend(address);
                let node = &balancer.bench.kernel.node;
                return check::packet(workload, flow, &Expected::Tunnelled(node, &has), ran);
            }
        };
        check::packet(workload, flow, &expected, ran)
    }
}

/// A program and its traffic.
pub struct Lane {
    /// As figures name it.
    pub name: &'static str,
    /// Its traffic.
    pub workload: Workload,
    /// The program.
    pub subject: Subject,
    /// Interface by which its packets come.
    pub interface: u32,
    /// ns a packet, round by round.
    pub times: Vec<f64>,
    /// Packets of a workload without end that were sent.
    pub sent: u32,
    /// Why it has no figure.
    pub wrong: Option<Wrong>,
}

impl Lane {
    /// A lane whose packets come by the loopback interface.
    pub const fn new(name: &'static str, workload: Workload, subject: Subject) -> Self {
        Self {
            name,
            workload,
            subject,
            interface: LOOPBACK,
            times: Vec::new(),
            sent: 0,
            wrong: None,
        }
    }

    /// Packets of a workload that the balancer has counted, if it is one.
    fn counted(&self, workload: &Workload) -> Option<u64> {
        let reason = if workload.for_vip {
            Reason::Forwarded
        } else {
            Reason::NotVip
        };
        Some(self.subject.balancer()?.counted(reason))
    }

    /// Of the flows that were sent once: how many were looked up, and found.
    pub fn remembered(&self) -> Option<(u32, u32)> {
        let balancer = self.subject.balancer()?;
        let asked = (0..self.sent).step_by(ASKED_FOR);
        let mut found = (0, 0);
        for flow in asked {
            let frame = self.workload.with(Kind::Ack).frame(flow);
            let seen = balancer.bench.kernel.prober.run(&frame, Ask::default());
            found.0 += 1;
            found.1 += u32::from(seen.expect("a test run").followed);
        }
        Some(found)
    }
}

/// Lanes, and the programs that drive them.
pub struct Rig {
    /// The programs.
    pub programs: Programs,
    /// The lanes.
    pub lanes: Vec<Lane>,
}

impl Rig {
    /// The floors of IPv4 on one workload: `tx` first.
    pub fn floors(programs: Programs, workload: Workload) -> Self {
        let floor = |name| Subject::Floor(programs.program(name), floor_node());
        let lanes = vec![
            Lane::new("tx", workload, Subject::Tx(programs.program("tx"))),
            Lane::new("stateless", workload, floor("stateless")),
            Lane::new("stateful", workload, floor("stateful")),
        ];
        Self { programs, lanes }
    }

    /// No lanes yet.
    pub const fn empty(programs: Programs) -> Self {
        Self {
            programs,
            lanes: Vec::new(),
        }
    }

    /// Adds a lane of `tx` on a workload.
    pub fn add_tx(&mut self, name: &'static str, workload: Workload) {
        let subject = Subject::Tx(self.programs.program("tx"));
        self.lanes.push(Lane::new(name, workload, subject));
    }

    /// Adds a lane of a balancer.
    pub fn add(&mut self, name: &'static str, workload: Workload, balancer: Balancer) {
        let subject = Subject::Balancer(Box::new(balancer));
        self.lanes.push(Lane::new(name, workload, subject));
    }

    /// The lane of this name.
    pub fn lane(&self, name: &str) -> &Lane {
        let lane = self.lanes.iter().find(|lane| lane.name == name);
        lane.unwrap_or_else(|| panic!("no lane {name}"))
    }

    /// Sends the flows of each lane once, in order, and looks at what comes of some.
    pub fn fill(&mut self) {
        for index in 0..self.lanes.len() {
            let outcome = self.fill_one(index);
            self.lanes[index].wrong = outcome.err();
        }
    }

    fn fill_one(&mut self, index: usize) -> Result<(), Wrong> {
        let workload = self.lanes[index].workload;
        for kind in workload.filled_by() {
            self.pass(index, &workload.with(*kind), 1, 0, &[workload.flows])?;
        }
        for flow in 0..LOOKED_AT {
            let place = if workload.flows == 0 {
                self.lanes[index].sent += 1;
                flow
            } else {
                flow.wrapping_mul(0x0101_0101)
            };
            self.pass(index, &workload, 1, place, &[1])?;
        }
        Ok(())
    }

    /// Times every lane once.
    pub fn round(&mut self, packets: u32) {
        for index in 0..self.lanes.len() {
            if self.lanes[index].wrong.is_some() {
                continue;
            }
            match self.time(index, packets) {
                Ok(time) => self.lanes[index].times.push(time),
                Err(wrong) => self.lanes[index].wrong = Some(wrong),
            }
        }
    }

    fn time(&mut self, index: usize, packets: u32) -> Result<f64, Wrong> {
        let packets = packets.div_ceil(RUNS);
        let lane = &mut self.lanes[index];
        let workload = lane.workload;
        let (stride, place) = if workload.flows == 0 {
            let place = lane.sent;
            lane.sent += packets * RUNS;
            (1, place)
        } else {
            (ELSEWHERE, 1)
        };
        let mut runs = vec![packets; RUNS as usize];
        if workload.flows != 0 {
            runs.insert(0, workload.flows.max(WARM_UP));
        }
        let times = self.pass(index, &workload, stride, place, &runs)?;
        let timed = times.iter().rev().take(RUNS as usize);
        Ok(timed.sum::<f64>() / f64::from(RUNS))
    }

    /// Runs packets through a lane, one run after another: whatever lets others have the CPU, and so
    /// makes its caches cold, comes before. The last packet of each run is looked at, and the
    /// balancer's counters are. ns a packet, by run.
    fn pass(
        &mut self,
        index: usize,
        workload: &Workload,
        stride: u32,
        place: u32,
        runs: &[u32],
    ) -> Result<Vec<f64>, Wrong> {
        stay_on_one_cpu();
        let lane = &mut self.lanes[index];
        self.programs.aim(lane.subject.program());
        self.programs.feed(&workload.traffic(stride, place));
        let before = lane.counted(workload);
        let length = workload.frame_length();
        let done = runs
            .iter()
            .map(|packets| self.programs.run(length, *packets, lane.interface));
        let done: Vec<Ran> = done.collect();
        let after = lane.counted(workload);
        let (mut sent, mut times) = (0_u32, Vec::new());
        for (packets, ran) in runs.iter().zip(&done) {
            sent += packets;
            let last = workload.flow(stride, place.wrapping_add(sent - 1));
            lane.subject.check(workload, last, ran)?;
            times.push(ran.ns);
        }
        match (before, after) {
            (Some(before), Some(after)) if after - before != u64::from(sent) => {
                let count = after - before;
                let why = format!("{count} of {sent} packets counted as they should be");
                Err(Wrong(format!("{}: {why}", workload.name)))
            }
            _ => Ok(times),
        }
    }
}
