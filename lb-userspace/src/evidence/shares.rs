//! Backends of a pool in the new arm: S11, do flows follow the lookup table; S12, does one of them
//! say nothing.

use serde::Serialize;

use super::counts::{CONTROL, MemberCounts, Members, NEW};
use super::eprocess::ln_e_shares;
use super::number::{ratio, real};

/// A pool's backends as the new configuration has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PoolShares {
    /// Its name.
    pub pool: String,
    /// Every backend that has table entries or may get flows.
    pub members: Vec<MemberShare>,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemberShare {
    /// Member id.
    pub member: u32,
    /// Its name.
    pub name: String,
    /// Its share of the pool's lookup table in the new configuration, 0 to 1.
    pub share: f64,
    /// Whether the running configuration has it in this pool, too.
    pub in_control: bool,
}

/// Flows that do not follow the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlike {
    /// Flows looked at.
    pub flows: u64,
    /// Share of them that would have to go elsewhere (total variation).
    pub distance: f64,
    /// ln E against the table.
    pub ln_e: f64,
}

/// A backend that should have answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Silent<'a> {
    /// Which.
    pub member: &'a MemberShare,
    /// Its flows that had their time, none of which completed.
    pub flows: u64,
    /// The others' flows, or its own in the control arm.
    pub others: u64,
    /// Completed ones of these.
    pub completed: u64,
    /// ln of how much likelier that is if it is silent.
    pub ln_e: f64,
}

/// Flows of a backend below which its silence says nothing.
const SILENT_FLOWS: u64 = 20;

fn counts(members: &Members, member: u32, arm: usize) -> MemberCounts {
    let arms = members.get(&member);
    arms.and_then(|arms| arms.get(arm))
        .copied()
        .unwrap_or_default()
}

/// S11. `None` while flows look like the table, or differ by less than `floor`.
pub fn unlike(pool: &PoolShares, members: &Members, ln_needed: f64, floor: f64) -> Option<Unlike> {
    let classes: Vec<(u64, f64)> = pool
        .members
        .iter()
        .map(|m| (counts(members, m.member, NEW).started, m.share))
        .collect();
    let flows = classes.iter().fold(0_u64, |sum, c| sum.saturating_add(c.0));
    let off = |(n, share): &(u64, f64)| (ratio(*n, flows) - share).abs();
    let found = Unlike {
        flows,
        distance: classes.iter().map(off).sum::<f64>() / 2.0,
        ln_e: ln_e_shares(&classes),
    };
    (flows > 0 && found.ln_e >= ln_needed && found.distance > floor).then_some(found)
}

/// S12. A backend is silent if at least 20 of its new-arm flows have had their time, none
/// completed, and that is impossible at the rate at which the rest of the pool completes. A backend
/// that control has, too, must be completing there: else its silence is not the change's.
pub fn silent<'a>(pool: &'a PoolShares, members: &Members, ln_needed: f64) -> Option<Silent<'a>> {
    pool.members.iter().find_map(|member| {
        let own = counts(members, member.member, NEW);
        if own.completed > 0 || own.mature < SILENT_FLOWS {
            return None;
        }
        let (others, completed) = if member.in_control {
            let control = counts(members, member.member, CONTROL);
            (control.mature, control.completed)
        } else {
            rest(pool, members, member.member)
        };
        let completed = completed.min(others);
        let ln_e = real(own.mature) * -ln_failing(completed, others);
        (others >= SILENT_FLOWS && ln_e >= ln_needed).then_some(Silent {
            member,
            flows: own.mature,
            others,
            completed,
            ln_e,
        })
    })
}

/// The other backends of the pool, in the new arm.
fn rest(pool: &PoolShares, members: &Members, but: u32) -> (u64, u64) {
    pool.members
        .iter()
        .filter(|other| other.member != but)
        .map(|other| counts(members, other.member, NEW))
        .fold((0, 0), |(flows, completed), c| {
            (
                flows.saturating_add(c.mature),
                completed.saturating_add(c.completed),
            )
        })
}

/// ln of the share of flows that fail, taken too high rather than too low.
fn ln_failing(completed: u64, of: u64) -> f64 {
    let failed = real(of.saturating_sub(completed)) + 1.0;
    (failed / (real(of) + 1.0)).ln()
}
