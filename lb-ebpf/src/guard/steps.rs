//! Steps of a trial whose flows are followed, and what the breaker goes by in each.

use lb_common::breaker::WATCHED;
use lb_common::control::{ControlRecord, SHARE_ALL, control_flag};
use lb_common::guard::{COMMAND_LEN, LONGEST_HANDSHAKE_MS, Refusal, STEPS, TrialPut};
use lb_common::wire::Frame;

use super::trial::{due, living, within};
use super::{Call, Detail, Outcome, policy};
use crate::breaker;
use crate::control::now;
use crate::maps::{BREAKER, SLOT_HEADERS};
use crate::packet::XdpFrame;

/// `Op::Step`.
#[inline(never)]
pub fn step(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let record = living(call, detail)?;
    if record.flags & control_flag::EVIDENCE == 0 {
        return Err(Refusal::NoEvidence);
    }
    let (share, salt, deadline_ms) = (call.arg(0), call.arg64(1), call.arg64(2));
    if share < record.share || share > SHARE_ALL {
        return Err(Refusal::BadShare);
    }
    if share == record.share {
        // The deadline stays: nothing extends a step.
        call.writer
            .publish(|record| ControlRecord { salt, ..record });
        return Ok(());
    }
    if record.stage + 1 >= STEPS {
        detail[0] = u64::from(STEPS);
        return Err(Refusal::TooManySteps);
    }
    // SAFETY: an element of the policy map under the lock.
    let longest = u64::from(unsafe { (*policy::held()?).max_deadline_ms });
    within(deadline_ms, longest, detail)?;
    let judged = judged_by(call, record.shadow.into(), detail)?;
    if !judged.is_some() {
        return Err(Refusal::Malformed);
    }
    let deadline_ns = due(now(), deadline_ms);
    call.writer.publish(|record| ControlRecord {
        share,
        salt,
        deadline_ns,
        stage: record.stage + 1,
        within_ms: judged.within_ms(),
        pace: judged.pace(),
        ..record
    });
    Ok(())
}

/// What packets have to know of how a step is judged, in one word: the verifier refuses to copy an `Option`
/// of more that is none. `within_ms` below, `pace` above; 0 = it is not judged.
#[derive(Clone, Copy)]
pub struct Judged(u32);

impl Judged {
    /// Whether the step's flows are followed.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Time that a handshake has, ms.
    #[inline(always)]
    pub const fn within_ms(self) -> u16 {
        self.0 as u16
    }

    /// How many of a VIP's new flows are followed, see [`lb_common::pace`].
    #[inline(always)]
    pub const fn pace(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Takes the breaker of a step from the payload, if the command has one.
#[inline(always)]
pub fn judged_by(call: &Call<'_>, slot: u32, detail: &mut Detail) -> Result<Judged, Refusal> {
    let Some(bytes) = XdpFrame::new(call.ctx).read::<[u8; size_of::<TrialPut>()]>(COMMAND_LEN)
    else {
        return Ok(Judged(0));
    };
    // SAFETY: TrialPut is made of integers: any bytes are one.
    let put: TrialPut = unsafe { core::mem::transmute(bytes) };
    if put.within_ms == 0 || put.within_ms > LONGEST_HANDSHAKE_MS {
        detail[0] = u64::from(put.within_ms);
        detail[1] = u64::from(LONGEST_HANDSHAKE_MS);
        return Err(Refusal::BadDeadline);
    }
    if put.pace > u32::from(u16::MAX) {
        detail[0] = u64::from(put.pace);
        return Err(Refusal::OutOfRange);
    }
    let header = SLOT_HEADERS.get(slot).ok_or(Refusal::OutOfRange)?;
    let state = BREAKER.get_ptr_mut(0).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock.
    let state = unsafe { &mut *state };
    state.breaker = put.breaker;
    state.watched = header.vips_changed.min(WATCHED);
    breaker::begin(state, now());
    Ok(Judged(put.within_ms | put.pace << 16))
}
