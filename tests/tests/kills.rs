//! The agent killed at random points of changes, ways back and restarts, under live traffic: what
//! forwards is always one committed generation, trials end by themselves, the journal is completed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_common::control::{Cause, ControlRecord, NO_SLOT, control_flag};
use lb_common::slot::slot_state;
use lb_tests::loaded::bpf_pins;
use lb_tests::seeded::Seeded;
use lb_tests::segments::retransmissions;
use lb_tests::services;
use lb_userspace::change::journal::{self, Kind};
use lb_userspace::change::ledger::Ledger;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::lab::{
    ConnectionOptions, Connections, Host, HttpLoop, HttpOptions, Instance, Lab, Process, VIP_V4,
    until,
};
use lb_userspace::sys::boot_ns;
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(30);
const LINES: u16 = 7000;
const CONNECTIONS: usize = 100;
const LEASE: Duration = Duration::from_secs(1);
/// The timer's period and then some.
const GRACE: Duration = Duration::from_millis(200);
/// Confirmed by hand, whatever the traffic says: that trials are ended well is another test's.
const POLICY: &str = "version = 1\n[limits]\nlease = \"1s\"\nchanges = 1000\n\
                      change_every = \"1ms\"\n[evidence]\nenabled = false\n";

/// What the agent is killed in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum During {
    Apply,
    Trial,
    Confirm,
    RevertOfTrial,
    RevertOfCommit,
    Restart,
}

const DURING: [During; 6] = [
    During::Apply,
    During::Confirm,
    During::RevertOfTrial,
    During::Restart,
    During::Trial,
    During::RevertOfCommit,
];

/// What was seen, for the table.
#[derive(Debug, Default)]
struct Seen {
    kills: BTreeMap<During, u32>,
    committed: u32,
    put_back: u32,
    live_trials: u32,
    adopted: u32,
    longest_ms: u64,
}

struct Scene<'a> {
    lab: &'a Lab,
    instance: Instance,
    maps: Maps,
    held: Connections,
    requests: HttpLoop,
    seen: Seen,
    random: Seeded,
    round: usize,
}

/// Every backend is in each of these, so that no request may fail, whatever ends when.
fn configurations(hosts: &[&Host]) -> Vec<String> {
    let plain = services::shop(hosts);
    let last = plain.rfind("weight = 100").expect("a backend");
    let heavier = format!("{}weight = 300\n", &plain[..last]);
    let drained = format!("{plain}state = \"drain\"\n");
    vec![plain, heavier, drained]
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, random: Seeded) -> Self {
        let file = lab.root().join("etc/lbguard/policy.toml");
        std::fs::write(file, POLICY).unwrap();
        let mut instance = Instance::new(lab).unwrap();
        instance.start_agent().unwrap();
        let hosts: Vec<&Host> = lab.backends().collect();
        for text in configurations(&hosts).iter().take(2) {
            instance.commit(text).unwrap();
        }
        let target = |port| SocketAddr::new(VIP_V4.into(), port);
        let options = ConnectionOptions {
            count: CONNECTIONS,
            interval: Duration::from_millis(250),
            timeout: Duration::from_secs(5),
            ..ConnectionOptions::default()
        };
        let held = lab.client().connections(target(LINES), &options).unwrap();
        held.wait_established(SOON).unwrap();
        let options = HttpOptions {
            rate: 50,
            ..HttpOptions::default()
        };
        let requests = lab.client().http_loop(target(80), &options).unwrap();
        requests.wait(20, SOON).unwrap();
        Self {
            lab,
            instance,
            maps: Maps::open(&bpf_pins(lab)).unwrap(),
            held,
            requests,
            seen: Seen::default(),
            random,
            round: 0,
        }
    }

    fn record(&self) -> ControlRecord {
        self.maps.record().unwrap().expect("started")
    }

    fn on_trial(&self) -> bool {
        self.record().flags & control_flag::TRIAL != 0
    }

    /// The next configuration's file: another than ACTIVE's, as far as one knows.
    fn file(&mut self) -> String {
        let hosts: Vec<&Host> = self.lab.backends().collect();
        let all = configurations(&hosts);
        self.round += 1;
        let text = &all[self.round % all.len()];
        let path = self.instance.write("kill.toml", text).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn try_out(&mut self) {
        let file = self.file();
        let words = ["apply", &file, "-m", "soak", "--detach"];
        self.instance.expect(&words, 0).unwrap();
        assert!(self.on_trial());
    }

    /// Starts what the kill comes into; how long it may last, so that kills fall all over it.
    fn begin(&mut self, during: During) -> (Option<Process>, Duration) {
        let words: Vec<String> = match during {
            During::Apply => {
                let file = self.file();
                ["apply", &file, "-m", "killed"].map(str::to_owned).into()
            }
            During::Trial | During::Restart => {
                self.try_out();
                Vec::new()
            }
            During::Confirm => {
                self.try_out();
                vec!["confirm".to_owned()]
            }
            During::RevertOfTrial => {
                self.try_out();
                vec!["revert".to_owned()]
            }
            During::RevertOfCommit => {
                self.try_out();
                self.instance.expect(&["confirm"], 0).unwrap();
                vec!["revert".to_owned()]
            }
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let lasts = match during {
            During::Apply => Duration::from_millis(400),
            During::Trial => Duration::from_millis(1_500),
            During::Restart => Duration::from_millis(200),
            _ => Duration::from_millis(60),
        };
        let command = (!words.is_empty()).then(|| self.instance.spawn(&words).unwrap());
        (command, lasts)
    }

    /// Kills the agent somewhere in `during`; boot-clock ns of its end.
    fn kill(&mut self, during: During) -> (u64, Option<Process>) {
        let (command, lasts) = self.begin(during);
        if during == During::Restart {
            self.instance.stop_agent(Signal::SIGTERM).unwrap();
            let mut young = self.instance.spawn(&["agent"]).unwrap();
            std::thread::sleep(self.random.span(lasts));
            let _ = young.signal(Signal::SIGKILL);
            young.wait(SOON).unwrap();
        } else {
            std::thread::sleep(self.random.span(lasts));
            self.instance.stop_agent(Signal::SIGKILL).unwrap();
        }
        (boot_ns(), command)
    }

    /// Control record and slots are of one piece.
    fn never_mixed(&self, what: &str) {
        let record = self.record();
        let sealed = |slot: u8, generation: u64| {
            let header = self.maps.header(slot).unwrap();
            assert_eq!(header.state, slot_state::SEALED, "{what}: slot {slot}");
            assert_eq!(header.generation, generation, "{what}: slot {slot}");
        };
        sealed(record.active, record.active_generation);
        assert_ne!(record.active, record.lkg, "{what}");
        assert_ne!(record.active, record.shadow, "{what}");
        if record.lkg != NO_SLOT {
            assert_ne!(record.lkg, record.shadow, "{what}");
            sealed(record.lkg, record.lkg_generation);
        }
        if record.flags & control_flag::TRIAL == 0 {
            let armed = (record.share, record.lease_ns, record.deadline_ns);
            assert_eq!(armed, (0, 0, 0), "{what}: ended is ended");
        } else {
            assert_ne!((record.share, record.lease_ns), (0, 0), "{what}");
            assert_ne!(record.deadline_ns, 0, "{what}");
            sealed(record.shadow, record.shadow_generation);
        }
        assert_eq!(record.flags & control_flag::LATCHED, 0, "{what}: breaker");
    }

    /// A trial is over within the lease.
    fn ends_by_itself(&mut self, what: &str, killed_ns: u64) {
        let limit = LEASE + GRACE;
        let over = until("the lease", SOON, || (!self.on_trial()).then_some(()));
        over.unwrap();
        let record = self.record();
        let cause = Cause::from_code(record.cause);
        let late = Duration::from_nanos(record.ended_ns.saturating_sub(killed_ns));
        assert!(late <= limit, "{what}: over {late:?} after the kill");
        assert_eq!(cause, Cause::Lease, "{what}");
        let millis = u64::try_from(late.as_millis()).unwrap();
        self.seen.longest_ms = self.seen.longest_ms.max(millis);
    }

    /// What must hold once a new agent runs and nothing is on trial.
    fn complete(&mut self, what: &str, before: &ControlRecord) {
        let path = self.lab.root().join("var/lib/lbguard/journal.jsonl");
        let report = journal::verify(&path).unwrap();
        assert!(report.first_bad.is_none(), "{what}: {report:?}");
        assert!(report.torn.is_none(), "{what}: {report:?}");
        let (records, _) = journal::read(&path).unwrap();
        let ledger = Ledger::of(&records);
        assert!(
            ledger.in_flight().is_none(),
            "{what}: {:?}",
            ledger.in_flight()
        );
        let now = self.record();
        assert_eq!(ledger.committed, Some(now.active_generation), "{what}");
        let last = ledger.changes.last().expect("a change");
        let mine = last.spec.generation;
        let committed = last.kind == Kind::Committed && !last.rolled_back;
        assert_eq!(committed, now.active_generation == mine, "{what}: {last:?}");
        let known = [before.active_generation, before.lkg_generation, mine];
        assert!(known.contains(&now.active_generation), "{what}: {now:?}");
        let count = if committed {
            &mut self.seen.committed
        } else {
            &mut self.seen.put_back
        };
        *count += 1;
    }

    fn traffic_is_whole(&self, what: &str) {
        let breaks = self.held.breaks();
        assert!(breaks.is_empty(), "{what}: {:?}", breaks.first());
        let requests = self.requests.requests();
        let failed = |request: &&lb_userspace::lab::Request| {
            matches!(request.outcome, lb_userspace::lab::Outcome::Failed(_))
        };
        assert_eq!(self.requests.failed(), 0, "{what}: {:?}", {
            requests.iter().find(failed)
        });
    }

    /// One kill and all that follows.
    fn round(&mut self, during: During) {
        let what = format!("round {}, {during:?}", self.round);
        let before = self.record();
        let (killed_ns, mut command) = self.kill(during);
        self.never_mixed(&what);
        if matches!(during, During::RevertOfTrial | During::RevertOfCommit) {
            // Going back needs no agent.
            let end = command.take().expect("revert").wait(SOON).unwrap();
            assert!(end.success(), "{what}: {end}");
            assert!(!self.on_trial(), "{what}");
        }
        *self.seen.kills.entry(during).or_default() += 1;
        let mut adopt = false;
        if self.on_trial() {
            self.seen.live_trials += 1;
            adopt = self.random.below(4) == 0;
            if !adopt {
                self.ends_by_itself(&what, killed_ns);
                self.never_mixed(&what);
            }
        }
        if let Some(mut command) = command.filter(|_| !adopt) {
            let begun = Instant::now();
            command.wait(SOON).unwrap();
            assert!(begun.elapsed() < SOON, "{what}");
        }
        self.instance.start_agent().unwrap();
        if self.on_trial() {
            self.seen.adopted += 1;
            std::thread::sleep(LEASE + GRACE);
            assert!(
                self.on_trial(),
                "{what}: the new agent renews the lease: {:?}",
                Cause::from_code(self.record().cause)
            );
            let ways = ["confirm", "revert"];
            let way = ways[self.random.index(2)];
            self.instance.expect(&[way], 0).unwrap();
        }
        // The agent looks every 100 ms; a command makes it look at once.
        let _ = self.instance.status();
        let settled = || {
            let status = self.instance.status()?;
            status.pointer("/agent/change")?.is_null().then_some(())
        };
        until("the agent has no change", SOON, settled).unwrap();
        self.never_mixed(&what);
        self.complete(&what, &before);
        self.traffic_is_whole(&what);
    }
}

fn kills(count: usize) {
    let lab = Lab::builder().backends("web", 4).build().unwrap();
    let servers: Vec<_> = lab
        .backends()
        .map(|host| host.serve_lines(LINES).unwrap())
        .collect();
    let mut scene = Scene::new(&lab, Seeded::announced("kills"));
    let resent = || -> u64 { lab.hosts().iter().map(retransmissions).sum() };
    let before = resent();
    for number in 0..count {
        scene.round(DURING[number % DURING.len()]);
    }
    let again = resent() - before;
    println!("agent killed          {count:>8}");
    for (during, kills) in &scene.seen.kills {
        println!("  during {during:<15?}{kills:>6}");
    }
    println!("left a live trial     {:>8}", scene.seen.live_trials);
    println!("  of these adopted    {:>8}", scene.seen.adopted);
    println!("  longest to its end  {:>5} ms", scene.seen.longest_ms);
    println!("ended committed       {:>8}", scene.seen.committed);
    println!("ended put back        {:>8}", scene.seen.put_back);
    println!("held connections      {CONNECTIONS:>8}");
    println!("  broken              {:>8}", scene.held.breaks().len());
    println!("requests              {:>8}", scene.requests.ended());
    println!("  failed              {:>8}", scene.requests.failed());
    println!("segments sent again   {again:>8}");
    drop(servers);
}

#[test]
fn the_agent_may_be_killed_anywhere() {
    kills(12);
}

#[test]
#[ignore = "minutes; `cargo xtask soak guard` runs it"]
fn soak_guard_agent_killed_at_200_points() {
    kills(200);
}
