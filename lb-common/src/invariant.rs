//! The guard's rules as pure functions: the kernel runs them over maps, tests over arrays.
//!
//! K3 (a slot is sane) is [`tally`] over every element of a table, then [`judge_member`] over every
//! backend of the pool and [`judge_pool`] over the whole. K4 (a step is bounded) is [`moved`] over
//! two tables and [`classify`] over the sum.

use crate::guard::Refusal;
use crate::policy::HardEvents;
use crate::slot::{
    CHUNK_ENTRIES, Chunk, Member, NextHop, PoolEntry, forward_mode, member_state, next_hop_flag,
};

/// Parts in a million.
pub const MILLION: u64 = 1_000_000;

/// Something K3 or K4 refuses, with up to four numbers.
pub type Verdict = Result<(), (Refusal, [u64; 4])>;

/// Classes of a change (DESIGN 5), by how much they can hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Class {
    /// Nothing moves.
    R0 = 0,
    /// One VIP, a small share of its table, no VIP in or out, no encap change.
    R1 = 1,
    /// A medium share, or a VIP added.
    R2 = 2,
    /// A VIP removed, more than a medium share, or another encap.
    R3 = 3,
}

/// What a slot does to ACTIVE's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// VIPs only the new slot has.
    pub added: u32,
    /// VIPs only ACTIVE has.
    pub removed: u32,
    /// VIPs in both of which something moves.
    pub changed: u32,
    /// VIPs whose forwarding mode differs.
    pub encap: u32,
    /// Largest share of one VIP's table that moves, ppm.
    pub moved_ppm: u32,
}

/// The class of a step under limits in ppm (K4).
#[inline(always)]
pub const fn classify(step: &Step, r1_ppm: u32, r2_ppm: u32) -> Class {
    if step.removed > 0 || step.encap > 0 || step.moved_ppm > r2_ppm {
        Class::R3
    } else if step.added > 0 || step.moved_ppm > r1_ppm || step.changed > 1 {
        Class::R2
    } else if step.changed > 0 {
        Class::R1
    } else {
        Class::R0
    }
}

/// Entries that differ between two elements of tables, the first `entries` of them.
#[inline(always)]
pub fn moved(old: &Chunk, new: &Chunk, entries: u32) -> u32 {
    let mut count = 0;
    let mut index = 0;
    while index < CHUNK_ENTRIES {
        if (index as u32) < entries && old[index] != new[index] {
            count += 1;
        }
        index += 1;
    }
    count
}

/// Parts per million that `count` is of `size`, rounded up so that "some" is never "none".
#[inline(always)]
pub const fn ppm(count: u32, size: u32) -> u32 {
    if size == 0 {
        return 0;
    }
    (count as u64 * MILLION).div_ceil(size as u64) as u32
}

/// What a walk over a table collects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Entries that name no backend.
    pub holes: u32,
    /// Backends that have an entry.
    pub distinct: u32,
}

/// Mixes one element into the checksum of a table.
#[inline(always)]
pub fn checksum(state: u64, chunk: &Chunk) -> u64 {
    let mut state = state;
    let mut index = 0;
    while index < CHUNK_ENTRIES {
        let word = (chunk[index] as u64)
            | (chunk[index + 1] as u64) << 16
            | (chunk[index + 2] as u64) << 32
            | (chunk[index + 3] as u64) << 48;
        state = crate::hash::round(state, word);
        index += 4;
    }
    state
}

/// Whether a pool's backend may carry `count` of `size` entries (K3).
///
/// `number` is relative to the pool. `slot` is the bit of the slot that is sealed.
#[inline(always)]
pub fn judge_member(
    pool: u16,
    number: u32,
    entry: &PoolEntry,
    member: &Member,
    hop: Option<&NextHop>,
    slot: u8,
) -> Verdict {
    let details = [pool as u64, number as u64, 0, 0];
    if member.slots & slot == 0 || member.pool != pool {
        return Err((Refusal::BadEntry, details));
    }
    let backend_is_v4 = member.address.is_v4();
    let fits = match entry.forward {
        forward_mode::L2 => {
            (backend_is_v4 || entry.serves_v4 == 0) && (!backend_is_v4 || entry.serves_v6 == 0)
        }
        forward_mode::IPIP | forward_mode::GUE => !backend_is_v4 || entry.serves_v6 == 0,
        _ => false,
    };
    if !fits || member.forward != entry.forward {
        return Err((Refusal::Family, details));
    }
    if member.state == member_state::UP {
        match hop {
            Some(hop) if hop.flags & next_hop_flag::RESOLVED != 0 && hop.interface != 0 => {}
            _ => return Err((Refusal::NextHopMissing, details)),
        }
    }
    Ok(())
}

/// Whether a backend's share of the table is within the pool's cap (K3).
#[inline(always)]
pub const fn judge_share(pool: u16, number: u32, count: u32, size: u32, cap_ppm: u32) -> Verdict {
    let share = ppm(count, size);
    if cap_ppm != 0 && share > cap_ppm {
        return Err((
            Refusal::AboveCap,
            [pool as u64, number as u64, share as u64, cap_ppm as u64],
        ));
    }
    Ok(())
}

/// Whether a table as a whole is sane (K3).
#[inline(always)]
pub const fn judge_pool(pool: u16, entry: &PoolEntry, tally: &Tally) -> Verdict {
    if tally.holes > 0 {
        return Err((Refusal::Hole, [pool as u64, tally.holes as u64, 0, 0]));
    }
    if tally.distinct < entry.min_backends || tally.distinct == 0 {
        let need = if entry.min_backends == 0 {
            1
        } else {
            entry.min_backends
        };
        return Err((
            Refusal::TooFewBackends,
            [pool as u64, tally.distinct as u64, need as u64, 0],
        ));
    }
    Ok(())
}

/// K6: whether one more trial may begin now, as a token bucket kept in one number (GCRA): `spent`
/// is the time up to which trials are spent, `burst` may begin at once, and one more every `every_ns`.
///
/// # Returns
/// The new `spent`, or the ns to wait.
#[inline(always)]
pub const fn velocity(spent: u64, now: u64, burst: u32, every_ns: u64) -> Result<u64, u64> {
    if every_ns == 0 {
        return Ok(spent);
    }
    // Both are bounded where the policy is set; BPF has no multiplication that saturates.
    let ahead = every_ns.wrapping_mul(burst as u64);
    let full = now.saturating_sub(ahead);
    let start = if spent < full { full } else { spent };
    let next = start.saturating_add(every_ns);
    if next > now {
        Err(next - now)
    } else {
        Ok(next)
    }
}

/// K10: whether one more of `members` backends may be taken out by health when `down` are already:
/// the first always, unless it is the only one, then up to the share.
#[inline(always)]
pub const fn may_eject(down: u32, members: u32, share_ppm: u32) -> bool {
    let after = down as u64 + 1;
    (after <= 1 && members > 1) || after * MILLION <= members as u64 * share_ppm as u64
}

/// K10: whether an operator may drain one more of `members` backends when `out` take no new flows
/// already: as [`may_eject`], and never below the pool's minimum.
#[inline(always)]
pub const fn may_drain(out: u32, members: u32, minimum: u32, share_ppm: u32) -> bool {
    let least = if minimum == 0 { 1 } else { minimum as u64 };
    members as u64 > out as u64
        && (members - out) as u64 > least
        && may_eject(out, members, share_ppm)
}

/// K8: whether hard events of the new arm end a trial: enough of them, from as many sources, and
/// none in control.
#[inline(always)]
pub const fn trips(new: &HardEvents, control: &HardEvents, limit: u32) -> bool {
    limit != 0 && new.events >= limit as u64 && ones(new.sources) >= limit && control.events == 0
}

/// Bits that are set; BPF has no instruction for it.
#[inline(always)]
const fn ones(word: u64) -> u32 {
    let pairs = word - ((word >> 1) & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + ((pairs >> 2) & 0x3333_3333_3333_3333);
    let bytes = (fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn member(address: Address, forward: u8) -> Member {
        Member {
            address,
            pool: 3,
            slots: 2,
            forward,
            ..Member::new_zeroed()
        }
    }

    fn pool(forward: u8, v4: u8, v6: u8) -> PoolEntry {
        PoolEntry {
            forward,
            serves_v4: v4,
            serves_v6: v6,
            min_backends: 2,
            ..PoolEntry::new_zeroed()
        }
    }

    fn resolved() -> NextHop {
        NextHop {
            interface: 2,
            flags: next_hop_flag::RESOLVED,
            ..NextHop::new_zeroed()
        }
    }

    #[test]
    fn families_and_modes() {
        let v4 = Address::v4([10, 0, 0, 1]);
        let v6 = Address::v6([0xfd; 16]);
        // (backend, mode, serves v4, serves v6, fits)
        let cases = [
            (v4, forward_mode::IPIP, 1, 0, true),
            (v6, forward_mode::IPIP, 1, 0, true),
            (v6, forward_mode::IPIP, 0, 1, true),
            (v4, forward_mode::IPIP, 0, 1, false),
            (v6, forward_mode::IPIP, 1, 1, true),
            (v4, forward_mode::IPIP, 1, 1, false),
            (v4, forward_mode::GUE, 1, 0, true),
            (v6, forward_mode::GUE, 1, 1, true),
            (v4, forward_mode::GUE, 0, 1, false),
            (v4, forward_mode::L2, 1, 0, true),
            (v6, forward_mode::L2, 0, 1, true),
            (v6, forward_mode::L2, 1, 0, false),
            (v4, forward_mode::L2, 0, 1, false),
            (v4, 9, 1, 0, false),
        ];
        for (backend, mode, serves_v4, serves_v6, fits) in cases {
            let entry = pool(mode, serves_v4, serves_v6);
            let verdict = judge_member(3, 1, &entry, &member(backend, mode), Some(&resolved()), 2);
            assert_eq!(
                verdict.is_ok(),
                fits,
                "{backend:?} mode {mode} v4 {serves_v4} v6 {serves_v6}"
            );
        }
    }

    #[test]
    fn a_backend_needs_its_slot_its_pool_and_its_next_hop() {
        let entry = pool(forward_mode::IPIP, 1, 0);
        let good = member(Address::v4([10, 0, 0, 1]), forward_mode::IPIP);
        let judge = |m: &Member, h: Option<&NextHop>, slot| {
            judge_member(3, 1, &entry, m, h, slot).map_err(|(refusal, _)| refusal)
        };
        assert_eq!(judge(&good, Some(&resolved()), 2), Ok(()));
        assert_eq!(judge(&good, Some(&resolved()), 1), Err(Refusal::BadEntry));
        assert_eq!(
            judge(&Member { pool: 4, ..good }, Some(&resolved()), 2),
            Err(Refusal::BadEntry)
        );
        assert_eq!(judge(&good, None, 2), Err(Refusal::NextHopMissing));
        let unresolved = NextHop {
            flags: 0,
            ..resolved()
        };
        assert_eq!(
            judge(&good, Some(&unresolved), 2),
            Err(Refusal::NextHopMissing)
        );
        let down = Member {
            state: member_state::DOWN,
            ..good
        };
        assert_eq!(
            judge(&down, None, 2),
            Ok(()),
            "a backend that is down takes no flow"
        );
    }

    #[test]
    fn classes_as_the_design_says() {
        let step = |added, removed, changed, encap, moved_ppm| Step {
            added,
            removed,
            changed,
            encap,
            moved_ppm,
        };
        let cases = [
            (step(0, 0, 0, 0, 0), Class::R0),
            (step(0, 0, 1, 0, 100_000), Class::R1),
            (step(0, 0, 2, 0, 1), Class::R2),
            (step(0, 0, 1, 0, 100_001), Class::R2),
            (step(1, 0, 0, 0, 0), Class::R2),
            (step(0, 0, 1, 0, 340_001), Class::R3),
            (step(0, 1, 0, 0, 0), Class::R3),
            (step(0, 0, 1, 1, 0), Class::R3),
        ];
        for (step, class) in cases {
            assert_eq!(classify(&step, 100_000, 340_000), class, "{step:?}");
        }
    }

    #[test]
    fn velocity_is_a_bucket() {
        let (burst, every) = (3, 1_000);
        let (mut spent, mut now) = (0, 1_000_000);
        for _ in 0..3 {
            spent = velocity(spent, now, burst, every).unwrap();
        }
        assert_eq!(velocity(spent, now, burst, every), Err(1_000));
        now += 999;
        assert_eq!(velocity(spent, now, burst, every), Err(1));
        now += 1;
        spent = velocity(spent, now, burst, every).unwrap();
        assert!(velocity(spent, now, burst, every).is_err());
        assert_eq!(velocity(77, 0, 0, 0), Ok(77), "no limit");
    }

    #[test]
    fn hard_events_need_sources_and_a_clean_control() {
        let events = |events, sources| HardEvents { events, sources };
        let clean = HardEvents::default();
        assert!(trips(&events(3, 0b111), &clean, 3));
        assert!(!trips(&events(3, 0b11), &clean, 3), "two sources");
        assert!(!trips(&events(2, 0b111), &clean, 3), "two events");
        assert!(
            !trips(&events(9, u64::MAX), &events(1, 1), 3),
            "control has it too"
        );
        assert!(!trips(&events(9, u64::MAX), &clean, 0), "off");
    }

    proptest! {
        #[test]
        fn never_more_than_the_bucket_holds(burst in 1u32..20, every in 1u64..1_000, steps in proptest::collection::vec(0u64..500, 1..200)) {
            let (mut spent, mut now, mut begun) = (0u64, 1_000_000u64, 0u64);
            let started = now;
            for step in steps {
                now += step;
                if let Ok(next) = velocity(spent, now, burst, every) {
                    spent = next;
                    begun += 1;
                }
            }
            prop_assert!(begun <= u64::from(burst) + (now - started) / every);
        }

        #[test]
        fn ejection_keeps_its_share(down in 0u32..200, members in 1u32..200, share in 0u32..=1_000_000) {
            let may = may_eject(down, members, share);
            let expected = (down == 0 && members > 1) || f64::from(down + 1) / f64::from(members) <= f64::from(share) / 1e6 + 1e-9;
            prop_assert_eq!(may, expected);
        }

        #[test]
        fn a_drain_leaves_the_minimum(out in 0u32..20, members in 0u32..20, minimum in 0u32..5, share in 0u32..=1_000_000) {
            let may = may_drain(out, members, minimum, share);
            let enough = members.saturating_sub(out + 1) >= minimum.max(1);
            prop_assert_eq!(may, enough && may_eject(out, members, share));
        }

        #[test]
        fn a_share_that_grows_takes_no_flow_away(hash: u64, less: u8, more: u8) {
            let member = |withheld| Member { withheld, ..Member::new_zeroed() };
            let (less, more) = (member(less.max(more)), member(less.min(more)));
            prop_assert!(!less.takes(hash) || more.takes(hash));
            prop_assert!(member(0).takes(hash));
        }

        #[test]
        fn ones_are_counted(word: u64) {
            prop_assert_eq!(ones(word), word.count_ones());
        }
    }

    proptest! {
        #[test]
        fn class_never_falls_when_a_step_grows(added in 0u32..3, removed in 0u32..2, changed in 0u32..4, encap in 0u32..2, moved in 0u32..1_000_000) {
            let small = Step { added, removed, changed, encap, moved_ppm: moved / 2 };
            let large = Step { added: added + 1, removed, changed: changed + 1, encap, moved_ppm: moved };
            prop_assert!(classify(&small, 100_000, 340_000) <= classify(&large, 100_000, 340_000));
        }

        #[test]
        fn moved_counts_what_differs(old in proptest::array::uniform32(0u16..4), new in proptest::array::uniform32(0u16..4), entries in 0u32..=32) {
            let expected = (0..entries as usize).filter(|i| old[*i] != new[*i]).count();
            prop_assert_eq!(moved(&old, &new, entries) as usize, expected);
        }

        #[test]
        fn one_entry_is_never_nothing(count in 1u32..2_000_000, size in 1u32..2_000_000) {
            prop_assert!(ppm(count.min(size), size) >= 1);
            prop_assert!(ppm(count.min(size), size) <= 1_000_000);
        }

        #[test]
        fn share_above_cap_is_refused(count in 0u32..=1000, cap in 1u32..1_000_000) {
            let refused = judge_share(1, 1, count, 1000, cap).is_err();
            prop_assert_eq!(refused, count * 1000 > cap);
        }
    }
}
