//! A small kernel that carries the effects out, loses answers, and whose agent
//! dies and is started again.

use lb_common::control::Cause as Ended;

use super::super::testing::{SECOND, now_at, operator};
use super::*;
use crate::change::journal::{Chain, Record};
use crate::change::ledger::Ledger;
use crate::config::Digest;

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
        let adoption = adopt(&ledger, self.kernel.view(), Value::Null, self.now());
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
