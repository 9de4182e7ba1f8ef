//! Recycling backend numbers: a number may be given away only when no flow names it any more.
//!
//! A member that leaves its last slot notes how many sweeps were complete. One sweep may have been
//! under way then; after the second from there on, no entry of the flow table names it.

use lb_common::control::control_flag;
use lb_common::flow::{BUCKET_ENTRIES, Birth, Entry};
use lb_common::guard::{Refusal, SWEEPS};
use lb_common::slot::Member;
use zerocopy::FromZeros;

use super::{Call, Detail, Outcome};
use crate::maps::{FLOW_BUCKETS, FLOWS, MEMBERS};
use crate::walk::walk;

/// Sweeps that must be complete beyond those that were when a member left.
const NEEDED: u32 = 2;

/// What a sweep carries.
struct Sweeping {
    first: u32,
    /// With no trial on, no flow is of a change any more: its short id may come round.
    settle: bool,
}

/// `Op::Sweep`.
#[inline(never)]
pub fn sweep(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let control = call.writer.control();
    let buckets = FLOW_BUCKETS.load();
    // SAFETY: the control element under the lock.
    let place = unsafe { (*control).sweep_place };
    let turns = buckets.saturating_sub(place).min(SWEEPS);
    let settle = call.record()?.flags & control_flag::TRIAL == 0;
    let mut sweeping = Sweeping {
        first: place,
        settle,
    };
    walk(turns, sweep_bucket, &mut sweeping)?;
    // SAFETY: as above.
    unsafe {
        (*control).sweep_place = place.wrapping_add(turns);
        if (*control).sweep_place >= buckets {
            (*control).sweep_place = 0;
            (*control).sweeps = (*control).sweeps.wrapping_add(1);
        }
        detail[0] = u64::from((*control).sweeps);
        detail[1] = u64::from(buckets.saturating_sub((*control).sweep_place));
    }
    Ok(())
}

extern "C" fn sweep_bucket(turn: u32, sweep: *mut Sweeping) -> i64 {
    // SAFETY: what `walk` was given.
    let sweep = unsafe { &*sweep };
    let Some(bucket) = FLOWS.get_ptr_mut(sweep.first.wrapping_add(turn)) else {
        return 1;
    };
    for index in 0..BUCKET_ENTRIES {
        // SAFETY: a bucket has BUCKET_ENTRIES words; packets may write them meanwhile, whole.
        unsafe {
            let word = bucket.cast::<u64>().add(index);
            let entry = Entry(word.read_volatile());
            let member = entry.member();
            let gone = MEMBERS.get(member).is_none_or(|member| member.slots == 0);
            if member != 0 && gone {
                word.write_volatile(0);
            } else if sweep.settle && entry.birth() != Birth::SETTLED {
                word.write_volatile(entry.settled().0);
            }
        }
    }
    0
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
