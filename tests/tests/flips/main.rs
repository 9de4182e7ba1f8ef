//! Flips and ways back under load, through the real program over veth: every packet is decided by
//! one of the two generations, none is lost, no flow moves that need not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

mod connections;
mod datagrams;
mod field;
mod frames;
mod model;
mod sender;
mod servers;
mod worker;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lb_common::control::SHARE_ALL;
use lb_tests::seeded::Seeded;
use lb_tests::segments::retransmissions;
use lb_userspace::lab::{ConnectionOptions, Connections};

use connections::{Dialer, LINES};
use datagrams::{Verdicts, each_once};
use field::Field;
use model::{Client, FAMILIES, Family, Generation, Pair, number};
use sender::Sender;
use servers::Servers;

const SOON: Duration = Duration::from_secs(30);
const HELD: usize = 200;
/// What the long run must come to, packets a second.
const RATE: u64 = 100_000;
/// Flips between two countings.
const A_RUN: usize = 50;

/// Packets and flips of all runs.
#[derive(Debug, Default)]
struct Totals {
    flips: usize,
    reverts: usize,
    sent: u64,
    forwarded: u64,
    took: Duration,
}

impl Totals {
    /// Datagrams a second.
    fn rate(&self) -> u64 {
        let millis = u64::try_from(self.took.as_millis()).unwrap();
        self.sent * 1_000 / millis.max(1)
    }
}

struct Load {
    field: Field,
    random: Seeded,
    /// Which of the pair ACTIVE is, and LKG.
    active: usize,
    change: u64,
    totals: Totals,
}

/// The two generations: backends 1 to 3, and 2 to 4.
const FROM: [usize; 2] = [0, 1];

impl Load {
    fn new() -> (Self, Pair) {
        let mut load = Self {
            field: Field::new(),
            random: Seeded::announced("flips"),
            active: 0,
            change: 0,
            totals: Totals::default(),
        };
        let mut generations = Vec::new();
        for index in [1, 0] {
            let image = load.field.image(FROM[index], FROM[index] + 3);
            load.field.stage(&image);
            load.trial(u64::from(SHARE_ALL));
            load.field.confirm();
            let key = load.field.kernel.node.fleet_key;
            generations.insert(0, Generation::new(&image, key));
        }
        let pair = generations.try_into().ok().expect("two generations");
        (load, Pair(pair))
    }

    fn trial(&mut self, share: u64) {
        self.change = self.change % u64::from(lb_common::flow::MAX_CHANGE) + 1;
        self.field.trial(share, self.change);
    }

    /// The other generation on trial, then committed or not, then perhaps put back. How many flips
    /// and ways back.
    fn round(&mut self) -> usize {
        let other = 1 - self.active;
        let image = self.field.image(FROM[other], FROM[other] + 3);
        self.field.stage(&image);
        let share = 1 + self.random.below(2 * u64::from(SHARE_ALL));
        self.trial(share);
        std::thread::sleep(self.random.span(Duration::from_millis(20)));
        if self.random.below(3) == 0 {
            self.field.revert();
            self.totals.reverts += 1;
            return 1;
        }
        self.field.confirm();
        self.totals.flips += 1;
        std::thread::sleep(self.random.span(Duration::from_millis(20)));
        if self.random.below(3) == 0 {
            self.field.revert();
            self.totals.reverts += 1;
            return 2;
        }
        self.active = other;
        1
    }

    /// Up to `count` flips under load; packets sent.
    fn run(&mut self, count: usize, servers: &Servers, fresh: u64) -> u64 {
        let before = (self.field.forwarded(), self.field.lost());
        let begun = Instant::now();
        let sender = Sender::start(&self.field.lab, servers, fresh, self.random.draw());
        let mut done = 0;
        while done < count {
            done += self.round();
        }
        let sent = sender.end();
        self.totals.took += begun.elapsed();
        std::thread::sleep(Duration::from_millis(100));
        let forwarded = self.field.forwarded() - before.0;
        assert_eq!(self.field.lost(), before.1, "dropped or passed on");
        assert_eq!(forwarded, sent, "forwarded of those sent");
        self.totals.sent += sent;
        self.totals.forwarded += forwarded;
        sent
    }
}

/// Connections of a family that stay, from its first client.
fn held(field: &Field, family: Family) -> Connections {
    let first = Client {
        family,
        host: 2,
        port: 0,
    };
    let options = ConnectionOptions {
        count: HELD / FAMILIES.len(),
        interval: Duration::from_millis(250),
        timeout: Duration::from_secs(5),
        sources: vec![first.address()],
    };
    let target = (family.vip(), LINES).into();
    let held = field.lab.client().connections(target, &options).unwrap();
    held.wait_established(SOON).unwrap();
    held
}

fn flips(count: usize) -> u64 {
    let (mut load, pair) = Load::new();
    let lines: Vec<_> = load
        .field
        .lab
        .backends()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect();
    let servers = Servers::new(&load.field.lab);
    let held = FAMILIES.map(|family| held(&load.field, family));
    // Servers send again what belongs to connections that another backend has now.
    let resent = |load: &Load| retransmissions(load.field.lab.client());
    let before = resent(&load);
    let dialer = Dialer::start(load.field.lab.client());
    let (mut verdicts, mut known) = (Verdicts::default(), HashMap::new());
    let mut fresh = Sender::FIRST;
    let mut left = count;
    while left > 0 {
        let now = left.min(A_RUN);
        left -= now;
        let sent = load.run(now, &servers, fresh);
        let arrived = servers.take();
        fresh = Sender::fresh_after(fresh, sent);
        each_once(sent, &arrived);
        verdicts.judge(&pair, &mut known, arrived);
        assert_eq!((verdicts.mixed, verdicts.moved), (0, 0), "{verdicts:?}");
    }
    let dialled = connections::judge(&pair, dialer.end());
    let breaks: Vec<_> = held.iter().flat_map(Connections::breaks).collect();
    let broken = |backend: &Option<String>| {
        let backend = backend.as_deref().map(number);
        backend.is_none_or(|backend| pair.in_both(backend))
    };
    let broken: Vec<_> = breaks.iter().filter(|b| broken(&b.backend)).collect();
    let resent = resent(&load) - before;
    report(
        &load.totals,
        &verdicts,
        &dialled,
        (broken.len(), breaks.len()),
    );
    println!("segments clients sent again     {resent:>10}");
    assert_eq!(dialled.mixed, 0);
    assert!(dialled.failed.is_empty(), "{:?}", dialled.failed.first());
    assert!(broken.is_empty(), "{:?}", broken.first());
    assert!(
        verdicts.chosen.iter().all(|flows| *flows > 0),
        "{verdicts:?}"
    );
    assert!(verdicts.followed > 0, "{verdicts:?}");
    drop(lines);
    load.totals.rate()
}

fn report(
    totals: &Totals,
    verdicts: &Verdicts,
    dialled: &connections::Verdicts,
    (broken, ended): (usize, usize),
) {
    let rate = totals.rate();
    println!("flips                           {:>10}", totals.flips);
    println!("ways back                       {:>10}", totals.reverts);
    println!("datagrams sent                  {:>10}", totals.sent);
    println!("  a second                      {rate:>10}");
    println!("  forwarded                     {:>10}", totals.forwarded);
    println!("  at a backend, each once       {:>10}", verdicts.packets);
    println!("    of these over IPv6          {:>10}", verdicts.v6);
    println!("  decided by no one generation  {:>10}", verdicts.mixed);
    println!("flows                           {:>10}", verdicts.flows);
    println!("  new, chosen by one or other   {:>10?}", verdicts.chosen);
    println!("  moved without need            {:>10}", verdicts.moved);
    println!("  moved, backend taken away     {:>10}", verdicts.followed);
    println!("TCP connections answered        {:>10}", dialled.answered);
    println!("  by no one generation          {:>10}", dialled.mixed);
    println!(
        "  failed                        {:>10}",
        dialled.failed.len()
    );
    println!("  failed, backend taken away    {:>10}", dialled.excused);
    println!("held connections                {HELD:>10}");
    println!("  broken                        {broken:>10}");
    println!("  broken, backend taken away    {:>10}", ended - broken);
}

#[test]
fn no_packet_is_lost_or_decided_by_two_generations() {
    let _whatever_a_debug_build_makes = flips(20);
}

#[test]
#[ignore = "minutes; `cargo xtask soak guard` runs it"]
fn soak_guard_1000_flips_under_load() {
    let rate = flips(1_000);
    assert!(rate >= RATE, "{rate} packets a second, {RATE} at least");
}
