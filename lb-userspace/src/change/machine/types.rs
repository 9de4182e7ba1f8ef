//! What goes into the machine and what comes out of it.

use std::time::Duration;

use lb_common::control::{self, ControlRecord};
use serde::{Deserialize, Serialize};

use crate::change::actor::Actor;
use crate::change::cause::Cause;
use crate::change::journal::Entry;
use crate::config::Digest;
use crate::exit::ExitCode;

/// Everything that is fixed about a change before it starts. It is the body of
/// the journal's `draft` record, so that an agent started later knows it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Number of the change on this host.
    pub change: u64,
    /// Generation that it would make.
    pub generation: u64,
    /// Generation that it starts from.
    pub base: u64,
    /// Digest of the configuration.
    pub digest: Digest,
    /// Who asked.
    pub author: Actor,
    /// Why.
    pub why: String,
    /// Whether errors of the checks are passed over; the guard's never are.
    pub forced: bool,
    /// Share of new flows while waiting for the confirmation, ppm, 1 to 1,000,000.
    pub share_ppm: u32,
    /// Shares of the canary steps before that, ppm; empty without evidence.
    pub canary_ppm: Vec<u32>,
    /// Whether evidence is judged: then only a pass, or a person who accepts it
    /// unproven, can commit.
    pub evidence: bool,
    /// Whether a pass of the last step confirms it.
    #[serde(default)]
    pub confirm_auto: bool,
    /// Time to confirm in, from the last step on, ms. Nothing extends it.
    pub confirm_within_ms: u64,
    /// Longest time of one canary step, ms.
    pub step_within_ms: u64,
    /// Longest time from the start to the trial, ms.
    pub prepare_within_ms: u64,
}

impl Spec {
    /// Ten minutes: the cap of a canary step, and of preparing a trial.
    pub const TEN_MINUTES_MS: u64 = 600_000;

    /// Share and cap of trial step `step`; the last one waits for the confirmation.
    pub fn step(&self, step: usize) -> (u32, Duration) {
        match self.canary_ppm.get(step) {
            Some(share) => (*share, Duration::from_millis(self.step_within_ms)),
            None => (
                self.share_ppm,
                Duration::from_millis(self.confirm_within_ms),
            ),
        }
    }
}

/// Where a change is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Being checked.
    Draft,
    /// Checked; being written to the kernel.
    Validated,
    /// Sealed in the kernel; golden packets are run.
    Staged,
    /// Tested; the trial is being armed. From here on flows may be affected.
    Tested,
    /// On trial with the share of step `step`, waiting for a verdict.
    Canary {
        /// Index into [`Spec::canary_ppm`].
        step: usize,
    },
    /// On trial with the last share, waiting for the confirmation.
    Baking,
    /// Confirmed in time; waiting for the kernel to say that it flipped.
    Confirming,
    /// Being put back; waiting for the kernel to say so.
    Reverting(Cause),
    /// Final: in force.
    Committed,
    /// Final: refused before any traffic.
    Rejected(Cause),
    /// Final: given up before any traffic.
    Aborted(Cause),
    /// Final: put back.
    Reverted(Cause),
}

impl State {
    /// The word in events and read-outs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Validated => "validated",
            Self::Staged => "staged",
            Self::Tested => "tested",
            Self::Canary { .. } => "canary",
            Self::Baking => "baking",
            Self::Confirming => "confirming",
            Self::Reverting(_) => "reverting",
            Self::Committed => "committed",
            Self::Rejected(_) => "rejected",
            Self::Aborted(_) => "aborted",
            Self::Reverted(_) => "reverted",
        }
    }

    /// Whether nothing can change it any more.
    pub fn is_final(&self) -> bool {
        self.exit_code().is_some()
    }

    /// Whether flows may be on the new configuration, and the kernel's deadmen armed.
    pub fn on_trial(&self) -> bool {
        matches!(self, Self::Canary { .. } | Self::Baking | Self::Confirming)
    }

    /// What `apply` exits with, once final.
    pub fn exit_code(&self) -> Option<ExitCode> {
        match self {
            Self::Committed => Some(ExitCode::Done),
            Self::Rejected(_) => Some(ExitCode::Refused),
            Self::Aborted(cause) => Some(cause.exit_before_traffic()),
            Self::Reverted(cause) => Some(cause.exit_after_traffic()),
            _ => None,
        }
    }

    /// Why it did not commit.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Reverting(c) | Self::Rejected(c) | Self::Aborted(c) | Self::Reverted(c) => {
                Some(c)
            }
            _ => None,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The checks found nothing, or were passed over ([`Spec::forced`]).
    CheckPassed,
    /// The checks found errors.
    CheckFailed(String),
    /// The slot is sealed, and this is the digest read back from the kernel.
    StageDone {
        /// Of what the kernel holds.
        digest: Digest,
    },
    /// The guard refused to write or seal the slot.
    StageRefused(String),
    /// This host can't carry it, which the agent has found without asking the guard.
    StageUnfit(String),
    /// The generation could not be stored.
    StoreFailed(String),
    /// Something else failed while writing the slot.
    StageFailed(String),
    /// All golden packets came out right.
    GoldenPassed,
    /// A golden packet came out wrong, or could not be run.
    GoldenFailed(String),
    /// Golden packets are right, but a new backend did not answer as it should.
    ProbeFailed(String),
    /// The guard armed the trial, or moved it to its next step.
    Armed {
        /// The kernel's own deadline for this step, boot-time ns.
        deadline_ns: u64,
    },
    /// The guard refused: nothing was armed or moved.
    ArmRefused(String),
    /// It is unknown whether the trial was armed or moved.
    ArmFailed(String),
    /// What the kernel's control record says now.
    KernelObserved(KernelView),
    /// Somebody wants to keep it.
    ConfirmRequested {
        /// Who.
        by: Actor,
        /// Without a passed verdict.
        accept_unproven: bool,
    },
    /// The guard took the confirmation; the flip is still to be seen.
    ConfirmTaken,
    /// The guard refused the confirmation, or it is unknown what became of it.
    ConfirmRefused(String),
    /// Somebody wants to go back.
    RevertRequested {
        /// Who.
        by: Actor,
    },
    /// The guard went back.
    RevertDone,
    /// Going back failed; it is tried again at each tick.
    RevertFailed(String),
    /// The journal could not be written; the rest of that batch was not run.
    JournalFailed(String),
    /// The evidence has been judged.
    Verdict(Verdict),
    /// The numbers that the next verdict, or the end, goes by; kept until others come.
    Evidence(serde_json::Value),
    /// The client went away, or gave up.
    CancelRequested,
    /// The end of a completed round of the agent's loop.
    Tick,
}

/// Judgement over the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Proven good enough.
    Pass,
    /// Proven worse: what.
    Fail(String),
    /// Neither, so far: why. Never a pass.
    Inconclusive(String),
}

/// What the machine wants done, in this order.
///
/// Run the effects of a batch one after the other and feed each result back as
/// an event. If a [`Effect::Journal`] fails, feed [`Event::JournalFailed`] and
/// drop the rest of its batch: nothing goes forward unrecorded. Going back is
/// never behind a journal write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append to the journal.
    Journal(Entry),
    /// Run the checks: [`Event::CheckPassed`], [`Event::CheckFailed`].
    Check,
    /// Write and seal the slot: [`Event::StageDone`] and its failures.
    Stage,
    /// Run the golden packets: [`Event::GoldenPassed`], [`Event::GoldenFailed`].
    RunGolden,
    /// Arm the trial, or move it to this step: [`Event::Armed`] and its failures.
    ArmTrial {
        /// Share of new flows, ppm.
        share_ppm: u32,
        /// The kernel's deadline, from now on.
        within: Duration,
    },
    /// Renew the lease; a failure needs no event: the kernel ends the trial.
    RenewLease,
    /// Ask the guard to commit: [`Event::ConfirmTaken`], [`Event::ConfirmRefused`].
    Confirm {
        /// For whom.
        uid: u32,
    },
    /// Go back: [`Event::RevertDone`], [`Event::RevertFailed`].
    Revert {
        /// The generation to leave.
        generation: u64,
        /// Why.
        cause: Cause,
        /// End the trial only. `false` is asked only when the kernel was seen to
        /// have committed `generation`: then ACTIVE goes back to LKG.
        trial_only: bool,
    },
    /// Give the slot back: it is not used any more.
    ReleaseSlot,
    /// Tell whoever follows the change.
    Emit(Progress),
}

/// One line of progress, for people and for `apply --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of the change.
    pub change: u64,
    /// Its generation.
    pub generation: u64,
    /// [`State::name`].
    pub state: String,
    /// A sentence.
    pub text: String,
    /// Share of new flows that the new configuration gets now, ppm.
    pub share_ppm: u32,
    /// Boot-time ns at which this step ends by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline_ns: Option<u64>,
    /// Why it does not go on.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<Cause>,
    /// What `apply` exits with; there once the change is final.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<u8>,
}

/// What the kernel says is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelView {
    /// Generation in ACTIVE; 0 is the empty one.
    pub active: u64,
    /// The trial.
    pub trial: Trial,
}

/// What the kernel says about a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// There is none, and none has ended since the programs were loaded.
    None,
    /// It gets new flows.
    Live {
        /// On trial.
        generation: u64,
        /// Boot-time ns; 0 if none is armed.
        deadline_ns: u64,
    },
    /// The last one is over.
    Over {
        /// That was on trial.
        generation: u64,
        /// How it ended.
        cause: control::Cause,
        /// User id that ended it, or `u32::MAX` for the kernel.
        by: u32,
    },
}

impl KernelView {
    /// Reads a control record at boot-time `now_ns`. A trial whose deadman is
    /// due counts as over: the packet path treats it so, even before the timer
    /// has written it down.
    pub fn of(record: &ControlRecord, now_ns: u64) -> Self {
        let on = record.flags & control::control_flag::TRIAL != 0;
        let trial = match record.overdue(now_ns) {
            control::Cause::None if on => Trial::Live {
                generation: record.shadow_generation,
                deadline_ns: record.deadline_ns,
            },
            cause if on => Trial::Over {
                generation: record.shadow_generation,
                cause,
                by: u32::MAX,
            },
            _ if record.ended_ns == 0 => Trial::None,
            _ => Trial::Over {
                generation: record.ended_generation,
                cause: control::Cause::from_code(record.cause),
                by: record.ended_by,
            },
        };
        Self {
            active: record.active_generation,
            trial,
        }
    }
}
