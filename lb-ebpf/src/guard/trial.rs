//! The trial: armed, kept alive, confirmed, ended. Going back is always allowed.

use lb_common::SLOTS;
use lb_common::control::{Cause, ControlRecord, NO_SLOT, SHARE_ALL, control_flag};
use lb_common::flow::MAX_CHANGE;
use lb_common::guard::Refusal;
use lb_common::guard::trial_flag::{REMOVES, RESTORES};
use lb_common::invariant::{Class, velocity};
use lb_common::policy::{HardEvents, Policy};
use lb_common::slot::slot_state;

use super::begin::stale_base;
use super::steps::judged_by;
use super::{Call, Detail, Outcome, policy, shadow};
use crate::control::now;
use crate::deadman;
use crate::maps::HARD_EVENTS;

const NS_PER_MS: u64 = 1_000_000;

/// `Op::Trial`.
#[inline(never)]
pub fn trial(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::SEALED, detail)?;
    let record = call.record()?;
    let restores = restores(record, call.arg64(4) & RESTORES != 0);
    if !restores {
        allowed(record)?;
    }
    stale_base(call, record, detail)?;
    // SAFETY: a map element under the lock.
    let (base, class) = unsafe { ((*shadow.header).base, (*shadow.header).class) };
    if base != record.active_generation {
        detail[0] = record.active_generation;
        detail[1] = base;
        return Err(Refusal::StaleBase);
    }
    // What has ended is final: a retry is a new change.
    if record.ended_ns != 0 && record.ended_generation == record.shadow_generation {
        detail[0] = u64::from(slot_state::EMPTY);
        return Err(Refusal::SlotState);
    }
    let (share, salt) = (call.arg(0), call.arg64(1));
    let (lease_ms, deadline_ms, change) = (call.arg64(2), call.arg64(3), call.arg(4));
    if share == 0 || share > SHARE_ALL {
        return Err(Refusal::BadShare);
    }
    if change == 0 || change > MAX_CHANGE {
        detail[0] = u64::from(change);
        return Err(Refusal::OutOfRange);
    }
    // K4, K7: every trial has a deadline; one that may move everything has both deadmen.
    if class >= Class::R3 as u32 && lease_ms == 0 {
        detail[0] = u64::from(class);
        return Err(Refusal::NeedsDeadmen);
    }
    let policy = policy::held()?;
    // SAFETY: an element of the policy map under the lock.
    let longest = u64::from(unsafe { (*policy).max_deadline_ms });
    within(deadline_ms, longest, detail)?;
    if lease_ms != 0 {
        within(lease_ms, longest, detail)?;
    }
    let judged = judged_by(call, shadow.slot, detail)?;
    let now = now();
    if !restores {
        spend(policy, now, detail)?;
    }
    clear_hard_events();
    let evidence = if judged.is_some() {
        control_flag::EVIDENCE
    } else {
        0
    };
    call.writer.publish(|record| ControlRecord {
        flags: record.flags | control_flag::TRIAL | evidence,
        stage: 0,
        within_ms: judged.within_ms(),
        pace: judged.pace(),
        tripped_vip: 0,
        share,
        salt,
        change: change as u8,
        lease_ns: due(now, lease_ms),
        deadline_ns: due(now, deadline_ms),
        cause: Cause::None as u32,
        removes: u32::from(call.arg64(4) & REMOVES != 0),
        ..record
    });
    // The timer may have been stopped from outside while nothing depended on it.
    deadman::start();
    Ok(())
}

/// When a deadman is due, boot-clock ns; 0 ms is none.
#[inline(always)]
pub fn due(now: u64, ms: u64) -> u64 {
    if ms == 0 {
        0
    } else {
        now.wrapping_add(ms.wrapping_mul(NS_PER_MS))
    }
}

/// Whether this is the flip that brings back what forwarded before a reboot: it asks to be, and
/// nothing forwards yet.
#[inline(always)]
fn restores(record: &ControlRecord, asked: bool) -> bool {
    asked && record.active_generation == 0
}

/// K8, K9: what keeps a trial from beginning.
#[inline(always)]
fn allowed(record: &ControlRecord) -> Outcome {
    if record.flags & control_flag::FROZEN != 0 {
        return Err(Refusal::Frozen);
    }
    if record.flags & control_flag::LATCHED != 0 {
        return Err(Refusal::Latched);
    }
    Ok(())
}

/// K6: takes one trial out of the bucket.
#[inline(always)]
fn spend(policy: *mut Policy, now: u64, detail: &mut Detail) -> Outcome {
    // SAFETY: an element of the policy map under the lock.
    let held = unsafe { &mut *policy };
    let every_ns = u64::from(held.flip_every_ms).wrapping_mul(NS_PER_MS);
    match velocity(held.spent_ns, now, held.flips, every_ns) {
        Ok(spent_ns) => {
            held.spent_ns = spent_ns;
            Ok(())
        }
        Err(wait_ns) => {
            detail[0] = wait_ns / NS_PER_MS + 1;
            Err(Refusal::Velocity)
        }
    }
}

/// Hard events count from the beginning of a trial, in both arms.
#[inline(always)]
fn clear_hard_events() {
    for slot in 0..SLOTS as u32 {
        if let Some(events) = HARD_EVENTS.get_ptr_mut(slot) {
            // SAFETY: a map element; packets may add one meanwhile, and none matters before a trial.
            unsafe {
                events.write(HardEvents {
                    events: 0,
                    sources: 0,
                });
            };
        }
    }
}

#[inline(always)]
pub fn within(ms: u64, longest: u64, detail: &mut Detail) -> Outcome {
    if ms == 0 || ms > longest {
        detail[0] = ms;
        detail[1] = longest;
        return Err(Refusal::BadDeadline);
    }
    Ok(())
}

/// The trial that lives; one whose deadman is due has ended, whether the timer has run or not.
#[inline(always)]
pub fn living(call: &Call<'_>, detail: &mut Detail) -> Result<&'static ControlRecord, Refusal> {
    let record = call.record()?;
    if record.flags & control_flag::TRIAL == 0 {
        detail[0] = u64::from(record.cause);
        return Err(Refusal::NoTrial);
    }
    match record.overdue(now()) {
        Cause::None => Ok(record),
        cause => {
            detail[0] = cause as u64;
            Err(Refusal::TooLate)
        }
    }
}

/// `Op::Lease`.
#[inline(never)]
pub fn lease(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    living(call, detail)?;
    let ms = call.arg64(0);
    // SAFETY: an element of the policy map under the lock.
    let longest = u64::from(unsafe { (*policy::held()?).max_deadline_ms });
    within(ms, longest, detail)?;
    let due = now().wrapping_add(ms.wrapping_mul(NS_PER_MS));
    call.writer.publish(|record| ControlRecord {
        lease_ns: due,
        ..record
    });
    Ok(())
}

/// `Op::Confirm`: the flip.
#[inline(never)]
pub fn confirm(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let record = living(call, detail)?;
    if record.flags & control_flag::FROZEN != 0 && !restores(record, call.arg(1) != 0) {
        return Err(Refusal::Frozen);
    }
    stale_base(call, record, detail)?;
    let (by, now) = (call.arg(0), now());
    call.writer.publish(|record| record.flipped(by, now));
    Ok(())
}

/// `Op::Revert`: ends the trial, else goes back to LKG.
#[inline(never)]
pub fn revert(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let record = call.record()?;
    let by = call.arg(0);
    let cause = match call.arg(1) {
        code if code == Cause::Agent as u32 => Cause::Agent,
        _ => Cause::Revert,
    };
    let now = now();
    let meant = call.arg64(3);
    if record.flags & control_flag::TRIAL != 0 {
        detail[0] = record.shadow_generation;
        detail[1] = record.active_generation;
        if meant != 0 && meant != record.shadow_generation {
            return Err(Refusal::OtherGeneration);
        }
        call.writer
            .publish(|record| record.trial_over(cause, by, now));
        return Ok(());
    }
    if call.arg(2) != 0 {
        return Err(Refusal::NoTrial);
    }
    if record.lkg == NO_SLOT {
        return Err(Refusal::NoLkg);
    }
    detail[0] = record.active_generation;
    detail[1] = record.lkg_generation;
    if meant != 0 && meant != record.active_generation {
        return Err(Refusal::OtherGeneration);
    }
    call.writer.publish(|record| record.gone_back(by, now));
    Ok(())
}
