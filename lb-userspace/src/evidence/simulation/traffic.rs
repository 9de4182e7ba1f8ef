//! Made-up traffic of one VIP, flow by flow, counted as the kernel counts it.

use lb_common::evidence::{Evidence, MemberEvidence, bin};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Normal, Poisson};
use zerocopy::FromZeros;

use crate::evidence::counts::Raw;

pub(super) const SLICE_NS: u64 = 100_000_000;
pub(super) const VIP: u16 = 1;
/// Slices that an event can lie ahead.
const AHEAD: usize = 64;
/// Slices after which a SYN comes again, and again.
const RETRY: usize = 10;
const RETRY_AGAIN: usize = 30;
const SALT_SLICES: u64 = 100;

/// What the new arm does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// This share of flows gets no answer.
    Dead(f64),
    /// Another service's pool answers.
    OtherAnswers,
}

/// Traffic and what disturbs it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Model {
    /// New flows a second, on average.
    pub(super) rate: f64,
    /// Share of the new arm.
    pub(super) share_ppm: u32,
    /// Share of handshakes that fail anyhow.
    pub(super) failing: f64,
    pub(super) fault: Fault,
    /// Slice in which the fault begins.
    pub(super) fault_at: u64,
    /// Log-AR(1) rate, changing sizes of responses.
    pub(super) drift: bool,
    /// 5 x the rate for 5 s, 80 % of it failing, about every two minutes.
    pub(super) floods: bool,
    /// One of ten backends dead for 5 s, about every two minutes; clients try again.
    pub(super) churn: bool,
    /// A SYN that comes again after three seconds counts as another flow.
    pub(super) counted_again: bool,
    /// Backends that are counted; 0 = none.
    pub(super) members: u32,
}

/// What will be counted in a later slice, by arm.
#[derive(Clone)]
struct Later {
    arms: [Evidence; 2],
    members: [Vec<MemberEvidence>; 2],
    /// SYNs that come again, with their label.
    again: Vec<(bool, u64)>,
    /// Whether there is anything.
    any: bool,
}

pub(super) struct Traffic {
    model: Model,
    random: SmallRng,
    slice: u64,
    /// Log of the rate, and how much longer floods and dead backends last.
    level: f64,
    flood: u32,
    dead: u32,
    shape: usize,
    later: Vec<Later>,
    raw: Raw,
}

/// Buckets by 1/256: cumulative.
type Shape = &'static [(u16, usize)];
const RESPONSES: [Shape; 3] = [
    &[(50, 3), (150, 5), (215, 7), (245, 9), (256, 12)],
    &[(30, 3), (110, 5), (195, 7), (245, 9), (256, 12)],
    // Another service's.
    &[(20, 2), (140, 4), (230, 6), (256, 10)],
];
const WAITS: Shape = &[(80, 0), (180, 1), (230, 2), (246, 3), (251, 4), (256, 6)];
const ENDS: Shape = &[(180, 1), (249, 0), (251, 2), (256, 3)];
const RESENTS: Shape = &[(244, 0), (252, 1), (255, 2), (256, 3)];

fn draw(shape: Shape, byte: u8) -> usize {
    let found = shape.iter().find(|(below, _)| u16::from(byte) < *below);
    found.map_or(0, |(_, bucket)| *bucket)
}

impl Traffic {
    pub(super) fn new(model: Model, seed: u64) -> Self {
        let none = Later {
            arms: [Evidence::new_zeroed(); 2],
            members: [
                vec![MemberEvidence::default(); model.members as usize],
                vec![MemberEvidence::default(); model.members as usize],
            ],
            again: Vec::new(),
            any: false,
        };
        let mut random = SmallRng::seed_from_u64(seed);
        // A host has been up for a while; slices do not begin with bins.
        let slice = 1_000 + random.next_u64() % 1_000;
        let mut raw = Raw::default();
        raw.vips.insert(VIP, [Evidence::new_zeroed(); 2]);
        for member in 0..model.members {
            raw.members.insert(member + 1, Default::default());
        }
        let level = normal(&mut random) * LEVEL_SD;
        Self {
            model,
            random,
            slice,
            level,
            flood: 0,
            dead: 0,
            shape: 0,
            later: vec![none; AHEAD],
            raw,
        }
    }

    /// Boot-clock ns at the end of the slices so far.
    pub(super) fn now_ns(&self) -> u64 {
        self.slice * SLICE_NS
    }

    /// What the kernel's counters say now.
    pub(super) fn raw(&self) -> &Raw {
        &self.raw
    }

    /// One slice of traffic. `age`: slices since the trial began.
    pub(super) fn slice(&mut self, age: u64) {
        self.weather();
        let mut mean = self.model.rate * 0.1;
        if self.model.drift {
            mean *= (self.level - LEVEL_SD * LEVEL_SD / 2.0).exp();
        }
        let place = self.slice as usize % AHEAD;
        let again = std::mem::take(&mut self.later[place].again);
        for (label, epoch) in again {
            let label = if epoch == self.slice / SALT_SLICES {
                label
            } else {
                self.label()
            };
            self.flow(label, age, true);
        }
        for _ in 0..self.count(mean) {
            let label = self.label();
            self.flow(label, age, false);
        }
        if self.flood > 0 {
            for _ in 0..self.count(mean * 5.0) {
                let label = self.label();
                self.flood_flow(label);
            }
        }
        self.collect();
        self.slice += 1;
    }

    fn weather(&mut self) {
        let often = |random: &mut SmallRng| random.random_bool(1.0 / 1200.0);
        self.level = LEVEL_KEEP * self.level
            + (1.0 - LEVEL_KEEP * LEVEL_KEEP).sqrt() * LEVEL_SD * normal(&mut self.random);
        self.flood = self.flood.saturating_sub(1);
        self.dead = self.dead.saturating_sub(1);
        if self.model.floods && often(&mut self.random) {
            self.flood = 50;
        }
        if self.model.churn && often(&mut self.random) {
            self.dead = 50;
        }
        if self.model.drift && often(&mut self.random) {
            self.shape = 1 - self.shape;
        }
    }

    fn count(&mut self, mean: f64) -> u64 {
        Poisson::new(mean).map_or(0, |poisson| poisson.sample(&mut self.random) as u64)
    }

    fn label(&mut self) -> bool {
        (u64::from(self.random.next_u32()) * 1_000_000) >> 32 < u64::from(self.model.share_ppm)
    }

    fn place(&mut self, ahead: usize) -> &mut Later {
        let later = &mut self.later[(self.slice as usize + ahead) % AHEAD];
        later.any = true;
        later
    }

    fn start(&mut self, new: bool, member: usize) -> (u64, usize) {
        let began = self.slice * SLICE_NS + self.random.next_u64() % SLICE_NS;
        let arm = usize::from(new);
        let members = self.model.members > 0;
        let later = self.place(0);
        later.arms[arm].started[bin(began)] += 1;
        later.arms[arm].flows += 1;
        if members {
            later.members[arm][member].started += 1;
        }
        (began, bin(began))
    }

    fn flow(&mut self, new: bool, age: u64, again: bool) {
        let arm = usize::from(new);
        let dice = self.random.next_u64();
        let [size, wait, end, resent, backend, rtt, lasts, _] = dice.to_le_bytes();
        let member = usize::from(backend) % self.model.members.max(1) as usize;
        let (began, bin) = self.start(new, member);
        let faulty = new && age >= self.model.fault_at;
        let hit = self.random.random::<f64>();
        let dead = match self.model.fault {
            Fault::Dead(share) if faulty => hit < share,
            _ => false,
        } || (self.dead > 0 && backend < 26)
            || (again && self.dead > 0);
        if dead || hit > 1.0 - self.model.failing {
            self.place(RETRY).arms[arm].retried += 1;
            if dead && !faulty && self.model.counted_again {
                let epoch = self.slice / SALT_SLICES;
                self.place(RETRY_AGAIN).again.push((new, epoch));
            }
            return;
        }
        let rtt = 5_000_000 + u64::from(rtt) * 600_000;
        let members = self.model.members > 0;
        let done = ((began + rtt) / SLICE_NS - self.slice) as usize;
        let later = self.place(done);
        later.arms[arm].completed[bin] += 1;
        if members {
            later.members[arm][member].completed += 1;
        }
        let end = draw(ENDS, end);
        let shape = match self.model.fault {
            Fault::OtherAnswers if faulty => 2,
            _ => self.shape,
        };
        let lasts = if end == 0 {
            21 + usize::from(lasts % 8)
        } else {
            done + usize::from(lasts % 4)
        };
        let later = &mut self.place(lasts).arms[arm];
        later.end[end] += 1;
        later.response[draw(RESPONSES[shape], size)] += 1;
        later.wait[draw(WAITS, wait)] += 1;
        later.resent[draw(RESENTS, resent)] += 1;
    }

    fn flood_flow(&mut self, new: bool) {
        let arm = usize::from(new);
        let dice = self.random.next_u32();
        let member = (dice >> 16) as usize % self.model.members.max(1) as usize;
        let (_, bin) = self.start(new, member);
        let members = self.model.members > 0;
        if dice % 10 < 2 {
            let later = self.place(1);
            later.arms[arm].completed[bin] += 1;
            if members {
                later.members[arm][member].completed += 1;
            }
        }
    }

    /// Counts what is due in this slice.
    fn collect(&mut self) {
        let place = self.slice as usize % AHEAD;
        let Self { raw, later, .. } = self;
        let due = &mut later[place];
        if !std::mem::take(&mut due.any) {
            return;
        }
        raw.add_vip(VIP, &due.arms[0], &due.arms[1]);
        due.arms = [Evidence::new_zeroed(); 2];
        let [control, new] = &mut due.members;
        for (member, (control, new)) in (1..).zip(control.iter_mut().zip(new)) {
            raw.add_member(member, control, new);
            (*control, *new) = Default::default();
        }
    }
}

/// Standard deviation of the log rate, and what of it is left after a slice: 30 s of memory.
const LEVEL_SD: f64 = 0.4;
const LEVEL_KEEP: f64 = 0.9967;

fn normal(random: &mut SmallRng) -> f64 {
    Normal::new(0.0, 1.0).map_or(0.0, |normal| normal.sample(random))
}
