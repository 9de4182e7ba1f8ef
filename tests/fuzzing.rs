//! What fuzzers feed: each takes bytes from outside, must come to an end, and panics if what may
//! not happen has happened. Shared by the short property tests and by the targets in `fuzz/`.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use lb_common::control::{ControlRecord, NO_SLOT};
use lb_common::guard::{COMMAND_LEN, Command, MAGIC, MAX_LEN, Op, Reply};
use lb_userspace::change::journal::{GENESIS, Scan};
use lb_userspace::change::ledger::Ledger;
use lb_userspace::check::{SENSE_RULES, check_bytes};
use lb_userspace::config::{Digest, Finding, NodeConfig, Policy};
use lb_userspace::kernel::object::Kernel;
use serde_json::{Map, Value};
use zerocopy::{FromBytes, IntoBytes};

use crate::bench::{Bench, LIMITS, node, shop};
use crate::bpf::{open_pin, test_run};
use crate::bpffs::Bpffs;

/// Fewest bytes of a test run: an Ethernet header.
const LEAST: usize = 14;
/// Far above what any command takes.
const LONGEST: Duration = Duration::from_millis(500);

/// The real guard, with a generation in ACTIVE and one in LKG.
pub struct RawGuard {
    bpffs: Bpffs,
    bench: Bench,
    program: OwnedFd,
    /// What it was started with: how long the timer may be late, and which object it is.
    started: [u64; 2],
}

/// The control record and the headers of ACTIVE and LKG, byte by byte.
type Standing = (Vec<u8>, Vec<u8>, Vec<u8>);

impl RawGuard {
    /// Loads it.
    pub fn new() -> Self {
        let bpffs = Bpffs::new();
        let bench = Bench::pinned(&bpffs.pins());
        bench.commit(&shop(3));
        bench.commit(&shop(4));
        let program = open_pin(&bpffs.pins().program("guard"), 0).expect("the pinned guard");
        let control = bench.kernel.maps.control().expect("the control element");
        Self {
            bpffs,
            bench,
            program,
            started: [control.patience, control.object],
        }
    }

    /// Gives the guard these bytes and looks at what has become of what runs. The magic number is
    /// written over the first bytes when they ask for it, and this instance's session, which nobody
    /// guesses: so that more than the first branches are reached. Returns the command's number and the
    /// guard's answer, if there was one.
    ///
    /// # Panics
    /// If the guard neither answers nor leaves the bytes alone, takes long, or changes what runs
    /// without having been told to by a command that may.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<(u32, u32)> {
        let (how, rest) = bytes.split_first()?;
        let mut data = rest[..rest.len().min(MAX_LEN)].to_vec();
        data.resize(data.len().max(LEAST), 0);
        let record = self.bench.record();
        let known = dress(&mut data, *how, &record);
        let before = self.standing(&record);
        let begun = Instant::now();
        let out = test_run(&self.program, &data).expect("a test run");
        let took = begun.elapsed();
        assert!(took < LONGEST, "{took:?} for {data:?}");
        let after = self.standing(&self.bench.record());
        let Some(command) = command(&data) else {
            assert_eq!(after, before, "no command: {data:?}");
            return None;
        };
        let reply = Reply::read_from_prefix(&out)
            .expect("as long as a command")
            .0;
        let answered = reply.magic == !MAGIC;
        assert!(answered || out[..data.len()] == data[..], "{data:?}");
        self.judge(command, known, &before, &after);
        answered.then_some((command.op, reply.status))
    }

    fn judge(&mut self, command: Command, known: bool, before: &Standing, after: &Standing) {
        let op = Op::from_code(command.op);
        match op {
            // Free for everybody: these do change the record.
            Some(Op::Start | Op::Revert | Op::Freeze) => {
                if op != Some(Op::Revert) {
                    assert_eq!((&after.1, &after.2), (&before.1, &before.2), "{op:?}");
                }
                self.again();
            }
            // With the session, the flip is taken, and preparing one changes the record.
            Some(Op::Confirm) if known => self.again(),
            _ if known => {
                assert_eq!((&after.1, &after.2), (&before.1, &before.2), "{op:?}");
            }
            _ => assert_eq!(after, before, "{op:?}"),
        }
    }

    /// Two generations, no trial, and this instance in charge.
    fn again(&mut self) {
        let record = self.bench.record();
        let frozen = record.flags != 0;
        // A start by any bytes names another object: whoever adopts the pins would replace the programs,
        // each time, which takes the verifier a second.
        let Kernel { guard, node, .. } = &self.bench.kernel;
        guard
            .call(Op::Start, 0, &self.started, node.as_bytes())
            .expect("start");
        self.bench.kernel = Kernel::adopt(&self.bpffs.pins(), LIMITS).expect("open");
        let guard = &self.bench.kernel.guard;
        if frozen {
            let back = [0, 1, 1, 0];
            let _ = guard.call(Op::Revert, 0, &back, &[]);
            guard.call(Op::Freeze, 0, &[0], &[]).expect("thaw");
            guard.call(Op::Ack, 0, &[0], &[]).expect("ack");
        }
        if self.bench.record().lkg == NO_SLOT {
            self.bench.commit(&shop(3));
            self.bench.set_hop(1, 1500, true);
            self.bench.commit(&shop(4));
        }
    }

    fn standing(&self, record: &ControlRecord) -> Standing {
        let header = |slot: u8| {
            if slot == NO_SLOT {
                return Vec::new();
            }
            let header = self.bench.kernel.maps.header(slot).expect("a header");
            header.as_bytes().to_vec()
        };
        let lkg = header(record.lkg);
        (record.as_bytes().to_vec(), header(record.active), lkg)
    }
}

impl Default for RawGuard {
    fn default() -> Self {
        Self::new()
    }
}

/// Helps the bytes; whether they have the session.
fn dress(data: &mut [u8], how: u8, record: &ControlRecord) -> bool {
    if how & 1 == 0 || data.len() < COMMAND_LEN {
        return false;
    }
    data[..4].copy_from_slice(&MAGIC.to_ne_bytes());
    let ops = u32::try_from(Op::ALL.len()).expect("few");
    if how & 2 != 0 {
        let op = u32::from(data[4]) % ops + 1;
        data[4..8].copy_from_slice(&op.to_ne_bytes());
    }
    if how & 8 != 0 {
        // Small arguments reach further than large ones.
        for word in data[24..COMMAND_LEN].chunks_mut(8) {
            word[2..].fill(0);
        }
        data[16..24].copy_from_slice(&record.active_generation.to_ne_bytes());
    }
    if how & 4 == 0 {
        return false;
    }
    data[8..16].copy_from_slice(&record.session.to_ne_bytes());
    true
}

fn command(data: &[u8]) -> Option<Command> {
    let (command, _) = Command::read_from_prefix(data).ok()?;
    (command.magic == MAGIC).then_some(command)
}

/// The journal's reader: every record that it takes can be added up. Bytes are tried as they are,
/// and once more with numbers and hashes that fit, which nobody guesses.
pub fn journal(bytes: &[u8]) {
    read_journal(bytes);
    read_journal(&chained(bytes));
}

/// Each line that is a JSON object, chained to the one before.
fn chained(bytes: &[u8]) -> Vec<u8> {
    let mut prev = GENESIS.to_owned();
    let mut out = Vec::new();
    let lines = bytes.split(|byte| *byte == b'\n');
    let objects = lines.filter_map(|line| serde_json::from_slice::<Map<String, Value>>(line).ok());
    for (number, mut object) in (1u64..).zip(objects) {
        object.remove("hash");
        object.insert("seq".to_owned(), number.into());
        object.insert("prev".to_owned(), prev.as_str().into());
        let text = Value::from(object.clone()).to_string();
        prev = Digest::of(text.as_bytes()).to_string();
        object.insert("hash".to_owned(), prev.as_str().into());
        out.extend_from_slice(Value::from(object).to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

fn read_journal(bytes: &[u8]) {
    let mut scan = Scan::new(bytes, None);
    let records: Vec<_> = scan.by_ref().map_while(Result::ok).collect();
    let report = scan.report();
    assert!(report.good_bytes <= bytes.len() as u64, "{report:?}");
    assert_eq!(report.records, records.len() as u64, "{report:?}");
    let _ = Ledger::of(&records);
}

/// The readers of all three configuration files: what is refused says why, what is taken has a
/// canonical form that reads back as the same.
pub fn configuration(bytes: &[u8]) {
    let report = check_bytes(bytes, "services.toml", &node());
    assert!(report.errors > 0 || report.config.is_some(), "{report:?}");
    let form = |finding: &Finding| !SENSE_RULES.iter().any(|rule| rule.id == finding.rule.id);
    let malformed = report.findings.iter().any(|f| f.is_error() && form(f));
    assert!(!malformed || report.config.is_none(), "{report:?}");
    if let Some(config) = &report.config {
        let again = lb_userspace::config::Config::from_canonical_json(&config.canonical_json());
        assert_eq!(again.as_ref().ok(), Some(config));
    }
    let _ = NodeConfig::parse(bytes, "agent.toml");
    let _ = Policy::parse(bytes, "policy.toml");
}
