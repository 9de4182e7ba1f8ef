//! Policy (limits that a change cannot alter), freeze and latch.

use lb_common::control::{ControlRecord, control_flag};
use lb_common::guard::{COMMAND_LEN, Refusal};
use lb_common::policy::Policy;
use lb_common::wire::Frame;

use super::{Call, Detail, Outcome};
use crate::maps::POLICY;
use crate::packet::XdpFrame;

/// Largest bucket of K6: with the longest interval its time still fits 64 bits.
const MOST_FLIPS: u32 = 1_000;

/// The policy that holds; refused as long as none has been set.
#[inline(always)]
pub fn held() -> Result<*mut Policy, Refusal> {
    let policy = POLICY.get_ptr_mut(0).ok_or(Refusal::OutOfRange)?;
    // SAFETY: an element of the policy map under the lock.
    if unsafe { (*policy).max_deadline_ms } == 0 {
        return Err(Refusal::NoPolicy);
    }
    Ok(policy)
}

/// `Op::SetPolicy`.
#[inline(never)]
pub fn set_policy(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let record = call.record()?;
    if record.flags & control_flag::TRIAL != 0 {
        return Err(Refusal::TrialOn);
    }
    let bytes: [u8; size_of::<Policy>()] = XdpFrame::new(call.ctx)
        .read(COMMAND_LEN)
        .ok_or(Refusal::Malformed)?;
    // SAFETY: Policy is made of integers: any bytes are one.
    let put: Policy = unsafe { core::mem::transmute(bytes) };
    if put.max_deadline_ms == 0 || put.r1_ppm > put.r2_ppm || put.flips > MOST_FLIPS {
        detail[0] = u64::from(put.max_deadline_ms);
        return Err(Refusal::OutOfRange);
    }
    let policy = POLICY.get_ptr_mut(0).ok_or(Refusal::OutOfRange)?;
    // SAFETY: an element of the policy map under the lock. What is spent stays spent.
    unsafe {
        let spent_ns = (*policy).spent_ns;
        policy.write(Policy { spent_ns, ..put });
    }
    Ok(())
}

/// `Op::Freeze`. Freezing is always allowed, thawing is the agent's.
#[inline(never)]
pub fn freeze(call: &Call<'_>) -> Outcome {
    let record = call.record()?;
    let on = call.arg(0) != 0;
    if !on && (call.session() == 0 || call.session() != record.session) {
        return Err(Refusal::Session);
    }
    set_flag(call, control_flag::FROZEN, on);
    Ok(())
}

/// `Op::Ack`.
#[inline(never)]
pub fn acknowledge(call: &Call<'_>) -> Outcome {
    call.record()?;
    set_flag(call, control_flag::LATCHED, call.arg(0) != 0);
    Ok(())
}

#[inline(always)]
fn set_flag(call: &Call<'_>, flag: u32, on: bool) {
    call.writer.publish(|record| ControlRecord {
        flags: if on {
            record.flags | flag
        } else {
            record.flags & !flag
        },
        ..record
    });
}
