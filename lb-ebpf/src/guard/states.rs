//! The overlay of a member's state: who holds it back, and how many a pool may lose (K10).

use lb_common::guard::Refusal;
use lb_common::invariant::{may_drain, may_eject};
use lb_common::slot::{Member, hold, member_state};

use super::policy;
use super::{Call, Detail, Outcome};
use crate::maps::{self, MEMBERS, NEXT_HOPS_MAX};
use crate::walk::walk;

/// `Op::SetMember`.
#[inline(never)]
pub fn set_member(call: &Call<'_>, detail: &mut Detail) -> Outcome {
    let (id, state, hop) = (call.arg(0), call.arg(1), call.arg(2));
    let (cause, withheld) = (call.arg(3), call.arg(4));
    detail[0] = u64::from(id);
    let one = matches!(
        cause as u8,
        0 | hold::NEXT_HOP | hold::HEALTH | hold::OPERATOR
    );
    if state > u32::from(member_state::DOWN)
        || hop >= NEXT_HOPS_MAX.load()
        || cause > u32::from(hold::ALL)
        || !one
        || withheld > u32::from(u8::MAX)
    {
        return Err(Refusal::OutOfRange);
    }
    let member = MEMBERS.get_ptr_mut(id).ok_or(Refusal::OutOfRange)?;
    // SAFETY: a map element under the lock; each field is one store, and readers take either value.
    unsafe {
        if (*member).identity == 0 {
            return Err(Refusal::OutOfRange);
        }
        let holds = holds((*member).holds, cause as u8, state as u8);
        let becomes = member_state::of(holds);
        bounded(call, &*member, becomes, cause as u8, detail)?;
        if cause as u8 & !hold::NEXT_HOP == 0 {
            (&raw mut (*member).next_hop).write_volatile(hop as u16);
        }
        if cause as u8 == hold::HEALTH {
            (&raw mut (*member).withheld).write_volatile(withheld as u8);
        }
        (&raw mut (*member).holds).write_volatile(holds);
        (&raw mut (*member).state).write_volatile(becomes);
    }
    Ok(())
}

/// What holds a member back after this.
#[inline(always)]
const fn holds(before: u8, cause: u8, state: u8) -> u8 {
    match (cause, state) {
        (0, state) => member_state::held(state),
        (cause, member_state::UP) => before & !cause,
        (cause, _) => before | cause,
    }
}

/// What counting the backends of a pool carries.
struct Census {
    first: u32,
    bit: u32,
    pool: u32,
    members: u32,
    down: u32,
    out: u32,
}

/// K10: health may take one backend of a pool out at once, and then no more than a share; an operator
/// also leaves the pool its minimum. Counted are backends of ACTIVE that new flows may go to.
#[inline(always)]
fn bounded(
    call: &Call<'_>,
    member: &Member,
    becomes: u8,
    cause: u8,
    detail: &mut Detail,
) -> Outcome {
    let drains = becomes == member_state::DRAIN && cause == hold::OPERATOR;
    let dies = becomes == member_state::DOWN;
    if becomes == member.state || !(drains || dies) {
        return Ok(());
    }
    let active = u32::from(call.record()?.active);
    let bit = 1 << active;
    if u32::from(member.slots) & bit == 0 || u32::from(member.drains) & bit != 0 {
        return Ok(());
    }
    let pool = maps::pool(active, u32::from(member.pool)).ok_or(Refusal::OutOfRange)?;
    let policy = policy::held()?;
    // SAFETY: map elements under the lock.
    let (first, limit, minimum, share) = unsafe {
        (
            (*pool).member_base,
            (*pool).member_limit,
            (*pool).min_backends,
            (*policy).ejected_ppm,
        )
    };
    let mut census = Census {
        first,
        bit,
        pool: u32::from(member.pool),
        members: 0,
        down: 0,
        out: 0,
    };
    walk(limit, take_census, &mut census)?;
    detail[2] = u64::from(census.members);
    if drains {
        if may_drain(census.out, census.members, minimum, share) {
            return Ok(());
        }
        detail[1] = u64::from(census.out);
        detail[3] = u64::from(minimum);
        detail[4] = u64::from(share);
        return Err(Refusal::TooFewLeft);
    }
    if may_eject(census.down, census.members, share) {
        return Ok(());
    }
    detail[1] = u64::from(census.down);
    detail[3] = u64::from(share);
    Err(Refusal::TooManyDown)
}

extern "C" fn take_census(turn: u32, census: *mut Census) -> i64 {
    // SAFETY: what `walk` was given.
    let census = unsafe { &mut *census };
    let Some(member) = MEMBERS.get(census.first.wrapping_add(turn).wrapping_add(1)) else {
        return 1;
    };
    let there = u32::from(member.slots) & census.bit != 0
        && u32::from(member.drains) & census.bit == 0
        && u32::from(member.pool) == census.pool;
    if there {
        census.members = census.members.wrapping_add(1);
        if member.state == member_state::DOWN {
            census.down = census.down.wrapping_add(1);
        }
        if member.state != member_state::UP {
            census.out = census.out.wrapping_add(1);
        }
    }
    0
}
