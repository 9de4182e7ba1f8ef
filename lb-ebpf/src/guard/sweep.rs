//! Recycling backend numbers: a number may be given away only when no flow names it any more.
//!
//! A member that leaves its last slot notes how many sweeps were complete. One sweep may have been
//! under way then; after the second from there on, no entry of the flow table names it.

use lb_common::guard::{Refusal, SWEEPS};
use lb_common::slot::Member;
use zerocopy::FromZeros;

use super::{Call, Detail, Outcome};
use crate::maps::MEMBERS;
use crate::{flows, room};

/// Sweeps that must be complete beyond those that were when a member left.
const NEEDED: u32 = 2;

/// `Op::Sweep`.
#[inline(never)]
pub fn sweep(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let control = call.writer.control();
    room::sweep(control, call.record()?, SWEEPS)?;
    // SAFETY: the control element under the lock.
    unsafe {
        detail[0] = u64::from((*control).sweeps);
        detail[1] = u64::from(
            flows::shape()
                .lines()
                .saturating_sub((*control).sweep_place),
        );
    }
    Ok(())
}

/// `Op::FreeMember`.
#[inline(never)]
pub fn free_member(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let id = call.arg(0);
    detail[0] = u64::from(id);
    let member = MEMBERS.get_ptr_mut(id).ok_or(Refusal::OutOfRange)?;
    // SAFETY: map elements under the lock.
    unsafe {
        if (*member).slots != 0 {
            return Err(Refusal::InUse);
        }
        let (done, needed) = (
            (*call.writer.control()).sweeps,
            (*member).left_at.wrapping_add(NEEDED),
        );
        if done < needed {
            detail[1] = u64::from(done);
            detail[2] = u64::from(needed);
            return Err(Refusal::Unswept);
        }
        member.write(Member::new_zeroed());
    }
    Ok(())
}
