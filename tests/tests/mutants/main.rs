//! Slots drawn from a seed: good ones, none of which is refused, and mutated ones, each refused by
//! the invariant that it violates, ACTIVE and LKG the same afterwards, byte by byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

mod damage;
mod keeps;
mod pools;
mod services;
mod slots;

use std::collections::BTreeMap;

use lb_tests::bench::Bench;
use lb_tests::bpffs::Bpffs;
use lb_tests::draft::Draft;
use lb_tests::kept::{Keeper, Kept};
use lb_tests::seeded::Seeded;
use lb_userspace::kernel::KernelError;
use lb_userspace::kernel::numbers::Numbers;
use lb_userspace::kernel::stage::recycle;

use damage::{Mutation, suitable};
use services::{good, nearby};

/// Changes between two commits of another base.
const A_BASE: usize = 50;
/// A balancer with a random generation in ACTIVE and one in LKG.
struct Running {
    bpffs: Bpffs,
    bench: Bench,
    random: Seeded,
    /// ACTIVE's configuration.
    text: String,
}

impl Running {
    fn new(what: &str) -> Self {
        let bpffs = Bpffs::new();
        let mut running = Self {
            bench: Bench::pinned(&bpffs.pins()),
            bpffs,
            random: Seeded::announced(what),
            text: String::new(),
        };
        running.another_base();
        running.another_base();
        running
    }

    fn another_base(&mut self) {
        let text = good(&mut self.random);
        self.recycle();
        self.bench.commit(&text);
        self.text = text;
    }

    /// Numbers of backends that are in no slot any more are used again.
    fn recycle(&self) {
        let idle = Numbers::read(&self.bench.kernel.maps)
            .unwrap()
            .idle_members();
        recycle(&self.bench.kernel, &idle).expect("recycle");
    }

    /// What a refused change may not touch.
    fn kept(&self) -> Kept {
        let record = self.bench.record();
        Keeper::read(&self.bpffs.pins(), self.bench.kernel.node, &record)
    }

    /// Compares it with what it was.
    fn is_as(&self, before: &Kept, what: &str) {
        let after = self.kept();
        for (place, bytes) in before {
            assert_eq!(after.get(place), Some(bytes), "{what}: {place:?}");
        }
        assert_eq!(after.len(), before.len(), "{what}");
    }
}

/// A mutated slot: refused as it must be, and nothing of what runs has changed.
fn refused(running: &mut Running, mutation: &Mutation, what: &str) {
    let (text, mut draft) = loop {
        let text = good(&mut running.random);
        let draft = Draft::of(&running.bench, &text);
        if suitable(&draft) {
            break (text, draft);
        }
    };
    match (mutation.attempt)(&mut draft, &mut running.random) {
        Err(KernelError::Refused(refused)) => {
            let due = mutation.refusal;
            assert_eq!(refused.refusal, due, "{what}: {refused}\n{text}");
        }
        Err(other) => panic!("{what}: {other}\n{text}"),
        Ok(_) => panic!("{what}: taken\n{text}"),
    }
}

fn mutants(count: usize) {
    let mut running = Running::new("mutants");
    running.bench.set_hop(2, 1500, false);
    let all: Vec<&Mutation> = pools::MUTATIONS.iter().chain(slots::MUTATIONS).collect();
    let mut table = BTreeMap::<&str, (String, u32)>::new();
    let mut before = running.kept();
    for number in 0..count {
        if number % A_BASE == A_BASE - 1 {
            running.another_base();
            before = running.kept();
        }
        let mutation = all[number % all.len()];
        let what = format!("{number}, {}", mutation.name);
        refused(&mut running, mutation, &what);
        running.is_as(&before, &what);
        let row = table.entry(mutation.name);
        row.or_insert_with(|| (format!("{:?}", mutation.refusal), 0))
            .1 += 1;
    }
    for (name, (refusal, refused)) in &table {
        println!("{name:<44} {refusal:<16} {refused:>5} refused, 0 taken");
    }
    println!("{:<61} {count:>5} refused, 0 taken", "all");
}

fn good_ones(count: usize) {
    let mut running = Running::new("good slots");
    let (mut trials, mut classes) = (0, [0; 4]);
    for number in 0..count {
        let text = if running.random.below(2) == 0 {
            good(&mut running.random)
        } else {
            nearby(&running.text, &mut running.random)
        };
        let bench = &running.bench;
        let sealed = bench.stage(&bench.image(&text));
        let sealed = sealed.unwrap_or_else(|error| panic!("{number}: {error}\n{text}"));
        classes[usize::from(sealed.class)] += 1;
        if number % A_BASE == A_BASE - 1 {
            bench
                .trial(3)
                .unwrap_or_else(|error| panic!("{number}: {error}\n{text}"));
            trials += 1;
            if running.random.below(2) == 0 {
                bench.confirm().unwrap();
                running.text = text;
            } else {
                bench.revert().unwrap();
            }
            running.recycle();
        }
    }
    println!("good slots sealed {count:>6}, refused 0");
    println!("  of class R0 to R3 {classes:?}");
    println!("  put on trial      {trials:>6}, refused 0");
}

#[test]
fn mutated_slots_are_refused_by_the_invariant_they_violate() {
    mutants(96);
}

#[test]
fn good_slots_are_not_refused() {
    good_ones(60);
}

#[test]
#[ignore = "minutes; `cargo xtask soak guard` runs it"]
fn soak_guard_1000_mutated_slots() {
    mutants(1_080);
}

#[test]
#[ignore = "minutes; `cargo xtask soak guard` runs it"]
fn soak_guard_10000_good_slots() {
    good_ones(10_000);
}
