//! How many flows of the flow table still go to a backend.
//!
//! Nobody tells the balancer that a flow has ended: it sees one direction, and an entry stays until
//! another flow takes its place. So a flow counts as gone when it has been silent for long enough. An
//! entry says when it was used last in steps of 17 s that come round after 18 minutes, which is why
//! [`LiveFlows`] looks at entries that change, and does not believe an old one that looks young.

use std::collections::BTreeMap;

use lb_common::flow::{AGE_NS_SHIFT, AGES, Entry};
use lb_common::flow_table::Shape;

use super::KernelError;
use super::maps::Maps;

/// One step of an entry's age, ns.
const STEP_NS: u64 = 1 << AGE_NS_SHIFT;
/// The longest silence that ages can tell.
const LONGEST_NS: u64 = STEP_NS * (AGES as u64 / 2);

/// An entry of the flow table and where it lies.
type Placed = (u64, Entry);

/// Entries of the flow table that name one of `members`.
pub fn entries(maps: &Maps, members: &[u32]) -> Result<Vec<Placed>, KernelError> {
    let lines = Shape(maps.control()?.shape).lines();
    let mut found = Vec::new();
    for index in 0..lines {
        let Some(line) = maps.flow_line(index) else {
            break;
        };
        for (place, word) in (0_u64..).zip(line) {
            let entry = Entry(word);
            if !entry.is_empty() && members.contains(&entry.member()) {
                let position = u64::from(index).saturating_mul(8).saturating_add(place);
                found.push((position, entry));
            }
        }
    }
    Ok(found)
}

/// Flows of one look, by what their entries say of their age.
pub fn count(maps: &Maps, members: &[u32], idle_ns: u64) -> Result<usize, KernelError> {
    let age = maps.control()?.age;
    let entries = entries(maps, members)?;
    let young = entries
        .iter()
        .filter(|(_, entry)| looks_young(*entry, age, idle_ns));
    Ok(young.count())
}

fn looks_young(entry: Entry, age: u32, idle_ns: u64) -> bool {
    u64::from(entry.idle(age)).saturating_mul(STEP_NS) < idle_ns.saturating_add(STEP_NS)
}

/// The flows of a backend, watched until they are gone.
#[derive(Debug)]
pub struct LiveFlows {
    idle_ns: u64,
    /// By place: the entry, and since when it has not changed, boot-clock ns.
    seen: BTreeMap<u64, (u64, u64)>,
    begun: bool,
}

impl LiveFlows {
    /// Flows count as gone after `idle_ns` of silence.
    pub fn new(idle_ns: u64) -> Self {
        Self {
            idle_ns: idle_ns.min(LONGEST_NS),
            seen: BTreeMap::new(),
            begun: false,
        }
    }

    /// How many live, by all entries of the backend as they are at `now_ns`.
    pub fn round(&mut self, entries: &[Placed], age: u32, now_ns: u64) -> usize {
        let mut seen = BTreeMap::new();
        for (place, entry) in entries {
            let word = entry.settled().0;
            let since = match self.seen.get(place) {
                Some((before, since)) if *before == word => *since,
                None if !self.begun && !looks_young(*entry, age, self.idle_ns) => 0,
                _ => now_ns,
            };
            seen.insert(*place, (word, since));
        }
        self.begun = true;
        self.seen = seen;
        // Packets of one step leave an entry as it is, so that its step is on top.
        let limit = self.idle_ns.saturating_add(STEP_NS);
        let lives = |since: &u64| *since != 0 && now_ns.saturating_sub(*since) < limit;
        self.seen.values().filter(|(_, since)| lives(since)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::flow::Birth;

    const SECOND: u64 = 1_000_000_000;

    fn entry(hash: u64, age: u32) -> Entry {
        Entry::new(hash << 40, 7, age, Birth::SETTLED)
    }

    fn at(now_ns: u64) -> u32 {
        u32::try_from(now_ns >> AGE_NS_SHIFT).unwrap() % AGES
    }

    #[test]
    fn a_silent_flow_is_gone_after_its_time_and_a_busy_one_never() {
        let start = 1_000 * SECOND;
        let mut live = LiveFlows::new(10 * SECOND);
        let silent = (1, entry(1, at(start)));
        for second in 0..120 {
            let now = start + second * SECOND;
            let busy = (2, entry(2, at(now)));
            let expected = if second < 28 { 2 } else { 1 };
            assert_eq!(
                live.round(&[silent, busy], at(now), now),
                expected,
                "{second}"
            );
        }
    }

    #[test]
    fn an_old_flow_that_looks_young_is_gone_after_its_time_too() {
        let start = 5_000 * SECOND;
        let mut live = LiveFlows::new(20 * SECOND);
        // Used 64 steps ago: it looks as if it were used now, and then as if it were used just now.
        let all: Vec<Placed> = (0..4)
            .map(|n| (u64::from(n), entry(9, at(start) + n)))
            .collect();
        assert!(live.round(&all, at(start), start) >= 1);
        let later = start + 38 * SECOND;
        assert_eq!(live.round(&all, at(later), later), 0);
    }

    #[test]
    fn that_a_sweep_forgets_a_birth_is_no_sign_of_life() {
        let start = 1_000 * SECOND;
        let mut live = LiveFlows::new(SECOND);
        let born = Entry::new(1 << 40, 7, at(start), Birth::in_arm(3, true));
        assert_eq!(live.round(&[(1, born)], at(start), start), 1);
        let later = start + 19 * SECOND;
        assert_eq!(live.round(&[(1, born.settled())], at(later), later), 0);
    }
}
