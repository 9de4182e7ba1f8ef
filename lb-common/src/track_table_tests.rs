//! Laws of the places of records, on a vector.

use super::*;
use core::cell::Cell;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

/// Records that begin at a time and are over so long after.
const LASTS: u64 = 50;

#[derive(Clone, Debug, Default)]
struct Place {
    key: Cell<u64>,
    away: Cell<u32>,
    since: Cell<u64>,
}

impl Record for &Place {
    fn key(self) -> u64 {
        self.key.get()
    }

    fn take_key(self, key: u64) -> bool {
        self.key.get() == key && {
            self.key.set(0);
            true
        }
    }

    fn away(self) -> u32 {
        self.away.get()
    }

    fn add_away(self, count: u32) {
        self.away.set(self.away.get().wrapping_add(count));
    }

    fn is_over(self, now: u64) -> bool {
        now - self.since.get() > LASTS
    }
}

struct Table(Vec<Place>);

impl<'a> Records for &'a Table {
    type Record = &'a Place;

    fn record(&self, number: u32) -> Option<&'a Place> {
        self.0.get(number as usize)
    }
}

impl Table {
    fn new() -> Self {
        Self(vec![Place::default(); TRACKS as usize])
    }

    fn find(&self, key: u64) -> u32 {
        find(&self, key)
    }

    /// Begins to follow a flow, if there is room; what it took the place of.
    fn begin(&self, key: u64, now: u64) -> Option<u64> {
        let number = room(&self, key, now).checked_sub(1)?;
        let before = self.0[number as usize].key.get();
        take(&self, number, key);
        let place = &self.0[number as usize];
        place.key.set(key);
        place.since.set(now);
        Some(before)
    }

    fn end(&self, key: u64) {
        let number = self.find(key).checked_sub(1).expect("it is followed");
        assert!(give_back(&self, number, key));
    }

    /// Flows that lie elsewhere, by their homes.
    fn away(&self) -> BTreeMap<u32, u32> {
        let mut away = BTreeMap::new();
        for (number, place) in (0_u32..).zip(&self.0) {
            let key = place.key.get();
            if key != 0 && home(key) != number {
                *away.entry(home(key)).or_default() += 1;
            }
        }
        away
    }
}

/// Keys of two groups, so that they are in each other's way.
fn a_key() -> impl Strategy<Value = u64> {
    (0_u64..2, 0_u64..8, 1_u64..40)
        .prop_map(|(group, seat, number)| key(group << 35 | seat << 32 | number << 1))
}

/// How many of these flows are of a key's group.
fn neighbours(followed: &BTreeMap<u64, u64>, key: u64) -> usize {
    let group = |key| home(key) / GROUP;
    followed
        .keys()
        .filter(|it| group(**it) == group(key))
        .count()
}

proptest! {
    #[test]
    fn who_is_followed_is_found_and_nobody_else(
        steps in prop::collection::vec((a_key(), any::<bool>(), 0_u64..8), 1..200),
    ) {
        let table = Table::new();
        let (mut followed, mut now) = (BTreeMap::new(), 0);
        for (key, begins, passes) in steps {
            now += passes;
            if followed.contains_key(&key) {
                if !begins {
                    table.end(key);
                    followed.remove(&key);
                }
            } else if begins {
                let there = neighbours(&followed, key);
                if let Some(before) = table.begin(key, now) {
                    let over = followed.remove(&before);
                    prop_assert!(over.is_none_or(|since| now - since > LASTS));
                    prop_assert!(over.is_none() || there == GROUP as usize, "taken, though one was free");
                    followed.insert(key, now);
                } else {
                    prop_assert_eq!(there, GROUP as usize, "refused though there was room");
                }
            }
            for key in followed.keys() {
                let place = &table.0[table.find(*key) as usize - 1];
                prop_assert_eq!(place.key.get(), *key);
            }
            if !followed.contains_key(&key) {
                prop_assert_eq!(table.find(key), 0);
            }
        }
        let counted: BTreeMap<u32, u32> = (0_u32..)
            .zip(&table.0)
            .filter(|(_, place)| place.away.get() != 0)
            .map(|(number, place)| (number, place.away.get()))
            .collect();
        prop_assert_eq!(counted, table.away());
    }
}

#[test]
fn a_record_that_is_given_back_twice_is_counted_once() {
    let table = Table::new();
    let keys = [2, 4, 6].map(|number| key(5 << 32 | number));
    for key in keys {
        table.begin(key, 0);
    }
    assert_eq!(table.0[5].away.get(), 2);
    let number = table.find(keys[2]) - 1;
    assert!(give_back(&&table, number, keys[2]));
    assert!(!give_back(&&table, number, keys[2]));
    assert!(!give_back(&&table, number, 0));
    assert_eq!(table.0[5].away.get(), 1);
    assert!(!give_back(&&table, TRACKS, keys[0]));
}
