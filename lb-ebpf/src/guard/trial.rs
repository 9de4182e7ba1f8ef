//! The trial: armed, kept alive, confirmed, ended. Going back is always allowed.

use lb_common::control::{Cause, ControlRecord, NO_SLOT, SHARE_ALL, control_flag};
use lb_common::flow::MAX_CHANGE;
use lb_common::guard::Refusal;
use lb_common::invariant::Class;
use lb_common::slot::slot_state;

use super::begin::stale_base;
use super::{Call, Detail, Outcome, shadow};
use crate::control::now;
use crate::deadman;

const NS_PER_MS: u64 = 1_000_000;

/// `Op::Trial`.
#[inline(never)]
pub fn trial(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let shadow = shadow(call, slot_state::SEALED, detail)?;
    let record = call.record()?;
    if record.flags & control_flag::FROZEN != 0 {
        return Err(Refusal::Frozen);
    }
    stale_base(call, record, detail)?;
    // SAFETY: a map element under the lock.
    let (base, class) = unsafe { ((*shadow.header).base, (*shadow.header).class) };
    if base != record.active_generation {
        detail[0] = record.active_generation;
        detail[1] = base;
        return Err(Refusal::StaleBase);
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
    let longest = u64::from(record.max_deadline_ms);
    within(deadline_ms, longest, detail)?;
    if lease_ms != 0 {
        within(lease_ms, longest, detail)?;
    }
    let now = now();
    let due = |ms: u64| {
        if ms == 0 {
            0
        } else {
            now.wrapping_add(ms.wrapping_mul(NS_PER_MS))
        }
    };
    call.writer.publish(|record| ControlRecord {
        flags: record.flags | control_flag::TRIAL,
        share,
        salt,
        change: change as u8,
        lease_ns: due(lease_ms),
        deadline_ns: due(deadline_ms),
        cause: Cause::None as u32,
        ..record
    });
    // The timer may have been stopped from outside while nothing depended on it.
    deadman::start();
    Ok(())
}

#[inline(always)]
fn within(ms: u64, longest: u64, detail: &mut Detail) -> Outcome {
    if ms == 0 || ms > longest {
        detail[0] = ms;
        detail[1] = longest;
        return Err(Refusal::BadDeadline);
    }
    Ok(())
}

/// The trial that lives; one whose deadman is due has ended, whether the timer has run or not.
#[inline(always)]
fn living(call: &Call<'_>, detail: &mut Detail) -> Result<&'static ControlRecord, Refusal> {
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
    let record = living(call, detail)?;
    let ms = call.arg64(0);
    within(ms, u64::from(record.max_deadline_ms), detail)?;
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
    if record.flags & control_flag::FROZEN != 0 {
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
