//! After a crash or a restart: the kernel's control state wins, and the journal
//! is completed from it.

use serde_json::{Value, json};

use super::{Change, Effect, KernelView, State, Trial, kernel_cause};
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::cause::{Cause, CauseKind};
use crate::change::journal::{Entry, Kind};
use crate::change::ledger::{Ledger, Summary};

/// What a started agent finds.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The change to go on with; final if the journal only had to be completed.
    pub change: Option<Change>,
    /// What to do first, in order.
    pub effects: Vec<Effect>,
}

/// Brings journal and kernel together at the start of an agent.
///
/// `view` is what the pinned control record says, or what a freshly loaded
/// kernel side says (`active` 0) after a reboot: loading the committed
/// generation again is the caller's part, and no change of the journal.
/// `evidence` is what the kernel tells of a trial that it has ended, or null.
pub fn adopt(ledger: &Ledger, view: KernelView, evidence: Value, now: Now) -> Adoption {
    match ledger.in_flight() {
        Some(open) => finish(open, view, evidence, now),
        None => Adoption {
            change: None,
            effects: without_a_change(ledger, view),
        },
    }
}

/// A change was in flight when the last agent ended.
fn finish(open: &Summary, view: KernelView, evidence: Value, now: Now) -> Adoption {
    let mine = open.spec.generation;
    let mut change = Change::at(open.spec.clone(), State::Baking, now.boot_ns);
    change.evidence = evidence;
    change.confirmed_by.clone_from(&open.confirmed_by);
    change.ended_by = Actor::kernel();
    change.proven = open.proven;
    let traffic = matches!(open.kind, Kind::Trial | Kind::Verdict | Kind::Confirmed);
    let effects = match view.trial {
        _ if view.active == mine => change.end(State::Committed),
        Trial::Live {
            generation,
            deadline_ns,
        } if generation == mine => change.resume(open, deadline_ns),
        Trial::Over {
            generation,
            cause,
            by,
        } if generation == mine => change.over(kernel_cause(cause, by), by),
        _ if traffic => {
            let kind = if rebooted(open, view, now) {
                CauseKind::HostRestart
            } else {
                CauseKind::Lost
            };
            change.end(State::Reverted(Cause::new(kind, "")))
        }
        _ => change.end(State::Aborted(Cause::new(CauseKind::AgentRestart, ""))),
    };
    Adoption {
        change: Some(change),
        effects,
    }
}

impl Change {
    /// The trial still runs: go on where the last agent was.
    fn resume(&mut self, open: &Summary, deadline_ns: u64) -> Vec<Effect> {
        self.armed = true;
        self.ended_by = self.spec.author.clone();
        self.deadline_ns = deadline_ns;
        // A crash between arming and its record leaves the first step.
        self.step = open.step.unwrap_or(0);
        self.state = self.waiting();
        let body = json!({"trial": true, "deadline_ns": deadline_ns});
        vec![
            self.journal(Kind::Adopted, body),
            self.emit("a restarted agent goes on"),
        ]
    }
}

/// The boot-time clock went back, or the kernel side is new.
fn rebooted(open: &Summary, view: KernelView, now: Now) -> bool {
    open.boot_ns > now.boot_ns || (view.active == 0 && open.spec.base != 0)
}

fn without_a_change(ledger: &Ledger, view: KernelView) -> Vec<Effect> {
    if let Trial::Live { generation, .. } = view.trial {
        let cause = Cause::new(CauseKind::Lost, "a trial that the journal does not know");
        let entry = by_hand(Kind::Reverted, generation, Actor::kernel(), cause.body());
        let revert = Effect::Revert {
            generation,
            cause,
            trial_only: true,
        };
        return vec![revert, Effect::Journal(entry)];
    }
    match ledger.committed {
        Some(from) if view.active != 0 && view.active != from => {
            let actor = match view.trial {
                Trial::Over { by, .. } => Actor::by_uid(by),
                _ => Actor::kernel(),
            };
            let body = json!({"from": from, "found": "at the start of the agent"});
            vec![Effect::Journal(by_hand(
                Kind::RolledBack,
                view.active,
                actor,
                body,
            ))]
        }
        // A journal that was begun anew: a reboot must bring back what forwards.
        None if view.active != 0 => vec![Effect::Journal(by_hand(
            Kind::Adopted,
            view.active,
            Actor::kernel(),
            json!({"found": "at the start of the journal"}),
        ))],
        _ => Vec::new(),
    }
}

fn by_hand(kind: Kind, generation: u64, actor: Actor, body: Value) -> Entry {
    Entry {
        kind,
        change: None,
        generation: Some(generation),
        actor,
        why: None,
        body,
    }
}
