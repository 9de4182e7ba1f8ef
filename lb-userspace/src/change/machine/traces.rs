//! Random traces of events against the promises in the module's head.
//!
//! Two kinds. *Soup*: any event at any time, biased towards the straight road,
//! watched by a witness that knows nothing of the machine's insides. *Model*: a
//! small kernel that carries the effects out, loses answers, kills the agent and
//! lets it adopt; at the end machine, journal and kernel must agree.
//!
//! `LB_TRACES=1000000 cargo test -p lb-userspace traces` runs a million of each
//! instead of 100,000: minutes in a debug build, so not by default.

use super::testing::{SECOND, now_at, operator, spec, spec_with_evidence};
use super::*;
use crate::change::journal::{Chain, Record};
use crate::change::ledger::Ledger;
use crate::config::Digest;
use crate::exit::ExitCode;
use lb_common::control::Cause as Ended;

/// `SplitMix64` (Steele et al., OOPSLA 2014): a failing trace is its seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn traces() -> u64 {
    std::env::var("LB_TRACES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000)
}

fn any_spec(rng: &mut Rng) -> Spec {
    if rng.one_in(2) {
        spec()
    } else {
        spec_with_evidence()
    }
}

const MINE: u64 = 7;
const BASE: u64 = 6;

// ---- soup ----

fn any_event(rng: &mut Rng, now_ns: u64) -> Event {
    let text = || "x".to_owned();
    match rng.below(24) {
        0 => Event::CheckPassed,
        1 => Event::CheckFailed(text()),
        2 => Event::StageDone {
            digest: spec().digest,
        },
        3 => Event::StageDone {
            digest: Digest::of(b"other"),
        },
        4 => Event::StageRefused(text()),
        5 => Event::StageFailed(text()),
        6 => Event::GoldenPassed,
        7 => Event::GoldenFailed(text()),
        8 => Event::Armed {
            deadline_ns: now_ns + rng.below(200) * SECOND,
        },
        9 => Event::ArmRefused(text()),
        10 => Event::ArmFailed(text()),
        11 | 12 => Event::KernelObserved(any_view(rng)),
        13 => Event::ConfirmRequested {
            by: operator(),
            accept_unproven: rng.one_in(2),
        },
        14 => Event::ConfirmTaken,
        15 => Event::ConfirmRefused(text()),
        16 => Event::RevertRequested { by: operator() },
        17 => Event::RevertDone,
        18 => Event::RevertFailed(text()),
        19 => Event::JournalFailed(text()),
        20 => Event::Verdict(Verdict::Pass),
        21 => Event::Verdict(Verdict::Inconclusive(text())),
        22 => Event::CancelRequested,
        _ => Event::Tick,
    }
}

fn any_view(rng: &mut Rng) -> KernelView {
    let generation = if rng.one_in(4) { BASE } else { MINE };
    let trial = match rng.below(4) {
        0 => Trial::None,
        1 | 2 => Trial::Live {
            generation,
            deadline_ns: u64::MAX,
        },
        _ => Trial::Over {
            generation,
            cause: Ended::Lease,
            by: u32::MAX,
        },
    };
    KernelView {
        active: if rng.one_in(8) { MINE } else { BASE },
        trial,
    }
}

/// What a good change would meet next.
fn natural(change: &Change, now_ns: u64, rng: &mut Rng) -> Event {
    match change.state() {
        State::Draft => Event::CheckPassed,
        State::Validated => Event::StageDone {
            digest: change.spec().digest,
        },
        State::Staged => Event::GoldenPassed,
        State::Tested => Event::Armed {
            deadline_ns: now_ns + 120 * SECOND,
        },
        State::Canary { .. } if rng.one_in(2) => Event::Armed {
            deadline_ns: u64::MAX,
        },
        State::Canary { .. } => Event::Verdict(Verdict::Pass),
        State::Baking if change.spec().evidence && rng.one_in(2) => Event::Verdict(Verdict::Pass),
        State::Baking => Event::ConfirmRequested {
            by: operator(),
            accept_unproven: false,
        },
        State::Confirming => Event::KernelObserved(KernelView {
            active: MINE,
            trial: Trial::None,
        }),
        _ => Event::RevertDone,
    }
}

/// Sees events, effects and states; remembers what was proven.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a promise")]
struct Witness {
    checked: bool,
    staged: bool,
    golden: bool,
    arm_bound: u64,
    armed: bool,
    deadline: u64,
    passed: bool,
    confirmed: bool,
    flipped: bool,
    ended: bool,
    went_back: bool,
    last_final: Option<Entry>,
}

impl Witness {
    fn sees(&mut self, before: &State, event: &Event, now: Now, spec: &Spec) {
        match (before, event) {
            (State::Draft, Event::CheckPassed) => self.checked = true,
            (State::Validated, Event::StageDone { digest }) if *digest == spec.digest => {
                self.staged = self.checked;
            }
            (State::Staged, Event::GoldenPassed) => self.golden = self.staged,
            (State::Tested | State::Canary { .. }, Event::Armed { deadline_ns })
                if self.arm_bound > 0 =>
            {
                self.armed = self.golden;
                self.deadline = self.arm_bound.min(*deadline_ns);
                self.arm_bound = 0;
                self.passed = false;
            }
            (s, Event::Verdict(verdict)) if s.on_trial() && now.boot_ns < self.deadline => {
                self.passed = *verdict == Verdict::Pass;
            }
            (
                State::Baking,
                Event::ConfirmRequested {
                    accept_unproven, ..
                },
            ) => {
                let proven = !spec.evidence || self.passed || *accept_unproven;
                self.confirmed |= self.armed && proven && now.boot_ns < self.deadline;
            }
            (_, Event::KernelObserved(view)) => {
                self.flipped = view.active == MINE;
                self.ended |= !matches!(
                    view.trial,
                    Trial::Live {
                        generation: MINE,
                        ..
                    }
                );
            }
            _ => {}
        }
    }

    fn checks(&mut self, event: &Event, effects: &[Effect], after: &State, now: Now) {
        for (place, effect) in effects.iter().enumerate() {
            match effect {
                Effect::ArmTrial { within, .. } => {
                    assert!(self.golden, "armed untested");
                    self.arm_bound = later(now, *within);
                }
                Effect::Confirm { .. } => {
                    assert!(
                        self.confirmed && now.boot_ns < self.deadline,
                        "confirmed late"
                    );
                    assert!(matches!(effects[0], Effect::Journal(_)), "unrecorded");
                }
                Effect::RenewLease => {
                    assert!(
                        after.on_trial() && now.boot_ns < self.deadline,
                        "lease too long"
                    );
                    assert_eq!(place + 1, effects.len(), "not the last act");
                }
                Effect::Revert { trial_only, .. } => {
                    self.went_back = true;
                    assert_eq!(place, 0, "going back comes first");
                    assert!(
                        *trial_only || self.sees_flip(event),
                        "blind second step back"
                    );
                }
                Effect::Journal(entry) if entry.kind.is_final() => {
                    self.last_final = Some(entry.clone());
                }
                _ => {}
            }
        }
    }

    fn sees_flip(&self, event: &Event) -> bool {
        self.flipped && matches!(event, Event::KernelObserved(_))
    }

    fn judges_the_end(&self, state: &State) {
        let entry = self.last_final.as_ref().unwrap();
        assert_eq!(
            entry.kind.as_str(),
            state.name(),
            "journal and state disagree"
        );
        assert_eq!(
            state.exit_code(),
            exit_by_journal(entry),
            "journal and exit code disagree"
        );
        match state {
            State::Committed => {
                assert!(
                    self.checked && self.staged && self.golden && self.armed,
                    "unproven"
                );
                assert!(self.confirmed && self.flipped, "unconfirmed");
            }
            _ if self.armed => assert!(self.went_back || self.ended, "left on trial"),
            _ => {}
        }
    }
}

/// The exit code as somebody would derive it from the journal alone.
fn exit_by_journal(entry: &Entry) -> Option<ExitCode> {
    let cause = Cause::from_body(&entry.body);
    match (&entry.kind, cause) {
        (Kind::Committed, None) => Some(ExitCode::Done),
        (Kind::Rejected, Some(_)) => Some(ExitCode::Refused),
        (Kind::Aborted, Some(cause)) => Some(cause.exit_before_traffic()),
        (Kind::Reverted, Some(cause)) => match cause.kind {
            CauseKind::Inconclusive => Some(ExitCode::Inconclusive),
            _ => Some(ExitCode::Reverted),
        },
        _ => None,
    }
}

/// Runs one trace; returns the state it ended in.
fn soup(seed: u64) -> State {
    let mut rng = Rng(seed);
    let mut seconds = 0;
    let (mut change, effects) = Change::new(any_spec(&mut rng), now_at(0));
    let mut witness = Witness::default();
    witness.checks(&Event::Tick, &effects, change.state(), now_at(0));
    for _ in 0..40 {
        seconds += if rng.one_in(40) { 130 } else { rng.below(4) };
        let now = now_at(seconds);
        let straight = !rng.one_in(5);
        let event = if straight {
            natural(&change, now.boot_ns, &mut rng)
        } else {
            any_event(&mut rng, now.boot_ns)
        };
        let before = change.state().clone();
        witness.sees(&before, &event, now, change.spec());
        let effects = change.step(event.clone(), now);
        if before.is_final() {
            assert_eq!(change.state(), &before, "a final state changed");
            for effect in &effects {
                assert!(
                    matches!(effect, Effect::Journal(_) | Effect::Emit(_)),
                    "{effect:?}"
                );
            }
        }
        witness.checks(&event, &effects, change.state(), now);
        if change.state().is_final() && !before.is_final() {
            witness.judges_the_end(change.state());
        }
    }
    change.state().clone()
}

fn seeded(
    what: &str,
    seed: u64,
    trace: impl FnOnce(u64) -> State + std::panic::UnwindSafe,
) -> State {
    std::panic::catch_unwind(|| trace(seed)).unwrap_or_else(|_| panic!("{what}({seed}) failed"))
}

#[test]
fn no_soup_of_events_breaks_a_promise() {
    let mut ends = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..traces() {
        *ends.entry(seeded("soup", seed, soup).name()).or_default() += 1;
    }
    for name in ["committed", "rejected", "aborted", "reverted"] {
        let count = ends.get(name).copied().unwrap_or_default();
        assert!(
            count * 100 > traces(),
            "{name} only {count} times: the traces prove nothing"
        );
    }
}

// ---- model ----

/// The kernel side, as far as the machine can tell.
struct Kernel {
    /// Committed generations, the last one ACTIVE, the one before it LKG.
    line: Vec<u64>,
    /// Deadline and lease of the trial, boot-time ns.
    trial: Option<(u64, u64)>,
    last: Trial,
    staged: bool,
}

impl Kernel {
    fn new() -> Self {
        Self {
            line: vec![BASE - 1, BASE],
            trial: None,
            last: Trial::None,
            staged: false,
        }
    }

    fn active(&self) -> u64 {
        self.line.last().copied().unwrap()
    }

    fn end(&mut self, cause: Ended) {
        self.trial = None;
        self.last = Trial::Over {
            generation: MINE,
            cause,
            by: u32::MAX,
        };
    }

    fn deadman(&mut self, now_ns: u64) {
        match self.trial {
            Some((deadline, _)) if now_ns >= deadline => self.end(Ended::Deadline),
            Some((_, lease)) if now_ns >= lease => self.end(Ended::Lease),
            _ => {}
        }
    }

    fn view(&self) -> KernelView {
        let trial = match self.trial {
            Some((deadline_ns, _)) => Trial::Live {
                generation: MINE,
                deadline_ns,
            },
            None => self.last,
        };
        KernelView {
            active: self.active(),
            trial,
        }
    }

    fn revert(&mut self, trial_only: bool) -> Result<(), &'static str> {
        if self.trial.is_some() {
            self.end(Ended::Revert);
            return Ok(());
        }
        if trial_only {
            return Err("NoTrial");
        }
        self.line.pop();
        self.end(Ended::Revert);
        Ok(())
    }
}

/// Agent, disk and kernel in one.
struct World {
    rng: Rng,
    kernel: Kernel,
    chain: Chain,
    records: Vec<Record>,
    seconds: u64,
}

impl World {
    fn now(&self) -> Now {
        now_at(self.seconds)
    }

    /// Carries out one effect; the answer may get lost on the way.
    fn run(&mut self, effect: &Effect, digest: Digest) -> Option<Event> {
        let lost = self.rng.one_in(30);
        let now = self.now();
        self.kernel.deadman(now.boot_ns);
        match effect {
            Effect::Journal(_) if self.rng.one_in(60) => Some(Event::JournalFailed("full".into())),
            Effect::Journal(entry) => {
                let (record, _) = self.chain.extend(entry.clone(), now).unwrap();
                self.chain.advance(&record);
                self.records.push(record);
                None
            }
            Effect::Check if self.rng.one_in(30) => Some(Event::CheckFailed("rule".into())),
            Effect::Check => Some(Event::CheckPassed),
            Effect::Stage => {
                self.kernel.staged = true;
                Some(Event::StageDone { digest })
            }
            Effect::RunGolden => Some(Event::GoldenPassed),
            Effect::ArmTrial { within, .. } => {
                let deadline_ns = later(now, *within);
                self.kernel.trial = Some((deadline_ns, now.boot_ns + 3 * SECOND));
                Some(if lost {
                    Event::ArmFailed("lost".into())
                } else {
                    Event::Armed { deadline_ns }
                })
            }
            Effect::RenewLease => {
                if let Some((_, lease)) = &mut self.kernel.trial {
                    *lease = now.boot_ns + 3 * SECOND;
                }
                None
            }
            Effect::Confirm { .. } if self.kernel.trial.is_none() => {
                Some(Event::ConfirmRefused("TooLate".into()))
            }
            Effect::Confirm { .. } => {
                self.kernel.line.push(MINE);
                self.kernel.end(Ended::Confirmed);
                if lost {
                    None
                } else {
                    Some(Event::ConfirmTaken)
                }
            }
            Effect::Revert { trial_only, .. } => match self.kernel.revert(*trial_only) {
                Ok(()) if !lost => Some(Event::RevertDone),
                Ok(()) => Some(Event::RevertFailed("lost".into())),
                Err(refusal) => Some(Event::RevertFailed(refusal.into())),
            },
            Effect::ReleaseSlot => {
                self.kernel.staged = false;
                None
            }
            Effect::Emit(_) => None,
        }
    }

    fn run_all(&mut self, change: &mut Change, effects: Vec<Effect>) {
        let mut batches = vec![effects];
        while let Some(batch) = batches.pop() {
            for effect in batch {
                let Some(event) = self.run(&effect, change.spec().digest) else {
                    continue;
                };
                let failed = matches!(event, Event::JournalFailed(_));
                batches.push(change.step(event, self.now()));
                if failed {
                    break;
                }
            }
        }
    }

    /// What people do, now and then.
    fn person(&mut self) -> Option<Event> {
        match self.rng.below(40) {
            0..8 => Some(Event::ConfirmRequested {
                by: operator(),
                accept_unproven: true,
            }),
            8 => Some(Event::RevertRequested { by: operator() }),
            9 => Some(Event::CancelRequested),
            10 => Some(Event::Verdict(Verdict::Fail("S1".into()))),
            11 => Some(Event::Verdict(Verdict::Inconclusive("thin".into()))),
            12..28 => Some(Event::Verdict(Verdict::Pass)),
            _ => None,
        }
    }

    /// The agent dies, and another one adopts; `None` if there is nothing to do.
    fn restart(&mut self) -> Option<Change> {
        self.seconds += self.rng.below(6);
        self.kernel.deadman(self.now().boot_ns);
        let ledger = Ledger::of(&self.records);
        let adoption = adopt(&ledger, self.kernel.view(), self.now());
        let mut change = adoption.change?;
        self.run_all(&mut change, adoption.effects);
        Some(change)
    }
}

fn model(seed: u64) -> State {
    let mut rng = Rng(seed);
    let spec = any_spec(&mut rng);
    let (kernel, chain) = (Kernel::new(), Chain::default());
    let mut world = World {
        rng,
        kernel,
        chain,
        records: Vec::new(),
        seconds: 100,
    };
    let (mut change, effects) = Change::new(spec, world.now());
    world.run_all(&mut change, effects);
    // Two canary steps of ten minutes, the confirmation, and some to spare.
    for _ in 0..1500 {
        if change.state().is_final() && !change.unrecorded() {
            break;
        }
        world.seconds += 1;
        if world.rng.one_in(100) {
            if let Some(adopted) = world.restart() {
                change = adopted;
            }
            continue;
        }
        world.kernel.deadman(world.now().boot_ns);
        for event in [
            Some(Event::KernelObserved(world.kernel.view())),
            world.person(),
            Some(Event::Tick),
        ] {
            let Some(event) = event else { continue };
            let effects = change.step(event, world.now());
            world.run_all(&mut change, effects);
        }
    }
    agree(&world, &change);
    change.state().clone()
}

/// Machine, kernel and journal at the end.
fn agree(world: &World, change: &Change) {
    let state = change.state();
    assert!(state.is_final(), "still {}", state.name());
    assert!(world.kernel.trial.is_none(), "the trial is still on");
    let active = if *state == State::Committed {
        MINE
    } else {
        BASE
    };
    assert_eq!(
        world.kernel.active(),
        active,
        "{state:?}: the kernel has something else"
    );
    let ledger = Ledger::of(&world.records);
    if let Some(summary) = ledger.change_of(MINE) {
        assert_eq!(
            summary.kind.as_str(),
            state.name(),
            "the journal says something else"
        );
        assert_eq!(summary.cause.as_ref(), state.cause());
    }
    let finals = world
        .records
        .iter()
        .filter(|record| record.kind.is_final())
        .count();
    assert!(finals <= 1, "{finals} final records");
    let armed = world
        .records
        .iter()
        .any(|record| record.kind == Kind::Trial);
    if *state != State::Committed && armed {
        assert!(!world.kernel.staged, "the slot was not given back");
    }
}

#[test]
fn machine_journal_and_kernel_agree_over_lost_answers_and_dead_agents() {
    let mut ends = std::collections::BTreeMap::<&str, u64>::new();
    let count = traces() / 10;
    for seed in 0..count {
        *ends.entry(seeded("model", seed, model).name()).or_default() += 1;
    }
    for name in ["committed", "rejected", "aborted", "reverted"] {
        let ended = ends.get(name).copied().unwrap_or_default();
        assert!(
            ended * 100 > count,
            "{name} only {ended} times: the traces prove nothing"
        );
    }
}
