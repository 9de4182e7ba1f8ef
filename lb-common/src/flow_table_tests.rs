//! The laws of the flow table, on a vector instead of a map.

use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::*;
use std::vec::Vec;

use super::*;
use crate::flow::Birth;

/// Lines of the tables of these tests: two steps of growth.
const LINES: u32 = FIRST_BLOCKS * BLOCK_LINES * 16;

#[derive(Clone, Copy)]
struct Words<'a>(&'a [AtomicU64]);

impl Line for Words<'_> {
    fn get(self, place: usize) -> u64 {
        self.0[place].load(Ordering::SeqCst)
    }

    fn put(self, place: usize, word: u64) {
        self.0[place].store(word, Ordering::SeqCst);
    }

    fn swap(self, place: usize, old: u64, new: u64) -> bool {
        self.0[place]
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Borrows its words, so that threads share them.
struct Host<'a>(&'a [AtomicU64]);

impl<'a> Table for Host<'a> {
    type Line = Words<'a>;

    fn line(&self, number: u32) -> Option<Words<'a>> {
        let first = number as usize * LINE_ENTRIES;
        self.0.get(first..first + LINE_ENTRIES).map(Words)
    }

    fn lives(&self, _: Entry) -> bool {
        true
    }
}

fn words(lines: u32) -> Vec<AtomicU64> {
    (0..lines as usize * LINE_ENTRIES)
        .map(|_| AtomicU64::new(0))
        .collect()
}

/// The hash of flow number n: all differ, and no two tags agree in one line (asserted where it
/// matters by every flow being found with its own member).
fn hash(n: u64) -> u64 {
    crate::hash::finish(crate::hash::round(7, n))
}

fn member(n: u64) -> u32 {
    (n % 200_000) as u32 + 1
}

fn entry(n: u64) -> Entry {
    Entry::new(hash(n), member(n), 0, Birth::SETTLED)
}

fn has(table: &Host<'_>, shape: Shape, n: u64) -> bool {
    Entry(seek(table, shape, hash(n))).member() == member(n)
}

/// Puts a flow where it belongs, as the kernel does: what is in its way is moved first.
fn put_flow(table: &Host<'_>, shape: Shape, n: u64) -> Put {
    let done = admit(table, shape, hash(n), entry(n), How::Anyhow);
    if done != Put::Not {
        return done;
    }
    clear_way(table, shape, hash(n));
    admit(table, shape, hash(n), entry(n), How::Anyhow)
}

/// One who inserts as the kernel does: grows when it is crowded, moves lines meanwhile.
struct Filler<'a> {
    table: Host<'a>,
    shape: Shape,
    moved: u32,
    entries: u64,
}

impl<'a> Filler<'a> {
    fn new(words: &'a [AtomicU64]) -> Self {
        let lines = (words.len() / LINE_ENTRIES) as u32;
        Self {
            table: Host(words),
            shape: Shape::first(lines),
            moved: 0,
            entries: 0,
        }
    }

    fn lines(&self) -> u32 {
        (self.table.0.len() / LINE_ENTRIES) as u32
    }

    fn insert(&mut self, n: u64) -> Put {
        let done = put_flow(&self.table, self.shape, n);
        self.entries += u64::from(done == Put::Added);
        if self.shape.is_moving() {
            self.advance(1);
        } else if self.entries > self.shape.crowded() {
            self.become_shape(self.shape.grown(self.lines()));
        }
        done
    }

    fn become_shape(&mut self, shape: Shape) {
        self.shape = shape;
        self.moved = 0;
    }

    fn advance(&mut self, lines: u32) {
        let (first, count) = self.shape.moving();
        for _ in 0..lines {
            if self.moved < count {
                move_line(&self.table, first + self.moved, self.shape);
                self.moved += 1;
            }
        }
        if self.moved >= count {
            self.shape = self.shape.moved();
        }
    }
}

/// As many flows as the table is meant for, remembered at once: each is found at every moment, through
/// two steps of growth, and afterwards.
#[test]
fn growing_loses_no_flow() {
    let words = words(LINES);
    let mut filler = Filler::new(&words);
    let meant = u64::from(LINES) * u64::from(LOAD);
    for n in 0..meant {
        assert_eq!(filler.insert(n), Put::Added, "flow {n}");
        // One from long ago, and one from just now.
        for earlier in [n / 2, n - n.min(1_000)] {
            assert!(
                has(&filler.table, filler.shape, earlier),
                "{earlier} after {n}"
            );
        }
    }
    assert_eq!(filler.shape.lines(), LINES, "it has grown to its capacity");
    for n in 0..meant {
        assert!(has(&filler.table, filler.shape, n), "flow {n}");
    }
}

/// Few flows use a small part of it, and so do few that are left of many.
#[test]
fn shrinking_loses_no_flow() {
    let words = words(LINES);
    let mut filler = Filler::new(&words);
    let many = filler.shape.crowded() * 3;
    for n in 0..many {
        filler.insert(n);
    }
    filler.advance(LINES);
    assert!(filler.shape.lines() > Shape::first(LINES).lines());
    // All but every eighth are gone.
    for line in 0..filler.shape.lines() {
        let words = filler.table.line(line).unwrap();
        for place in 0..LINE_ENTRIES {
            let found = Entry(words.get(place));
            if !(found.member() - u32::from(!found.is_empty())).is_multiple_of(8) {
                words.put(place, 0);
            }
        }
    }
    let left: Vec<u64> = (0..many)
        .filter(|n| (member(*n) - 1).is_multiple_of(8))
        .collect();
    assert!((left.len() as u64) < filler.shape.sparse(), "few enough");
    filler.become_shape(filler.shape.shrunk());
    while filler.shape.is_moving() {
        filler.advance(1_000);
        for n in left.iter().step_by(97) {
            assert!(has(&filler.table, filler.shape, *n), "flow {n}");
        }
    }
    assert_eq!(filler.shape, Shape::first(LINES));
    for n in left {
        assert!(has(&filler.table, filler.shape, n), "flow {n}");
    }
}

/// Threads insert and look up while another moves lines: nothing is lost, and what is there is found.
#[test]
fn growing_under_concurrent_use_loses_no_flow() {
    const THREADS: u64 = 3;
    let words = words(LINES);
    let mut filler = Filler::new(&words);
    let old = filler.shape.crowded();
    for n in 0..old {
        filler.insert(n);
    }
    let shape = Shape::first(LINES).grown(LINES);
    let new = old;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let words = &words;
            scope.spawn(move || {
                let table = Host(words);
                for n in (thread..new).step_by(THREADS as usize) {
                    assert_eq!(put_flow(&table, shape, old + n), Put::Added);
                    assert!(has(&table, shape, old + n), "new flow {n}");
                    assert!(has(&table, shape, n), "old flow {n}");
                }
            });
        }
        scope.spawn(|| {
            let table = Host(&words);
            let (first, count) = shape.moving();
            for line in first..first + count {
                move_line(&table, line, shape);
            }
        });
    });
    let table = Host(&words);
    for n in 0..old + new {
        assert!(has(&table, shape.moved(), n), "flow {n}");
    }
}

/// A flow that comes anew replaces its entry, also one that has not been moved yet.
#[test]
fn the_newest_entry_is_the_one_that_is_found() {
    let words = words(LINES);
    let mut filler = Filler::new(&words);
    let many = filler.shape.crowded() + 1;
    for n in 0..many {
        filler.insert(n);
    }
    assert!(filler.shape.is_moving());
    let newer = |n: u64| Entry::new(hash(n), 200_001 + member(n) % 50_000, 3, Birth::SETTLED);
    for n in 0..many {
        admit(&filler.table, filler.shape, hash(n), newer(n), How::Anyhow);
    }
    let found = |filler: &Filler<'_>, n| seek(&filler.table, filler.shape, hash(n));
    for n in 0..many {
        assert_eq!(
            found(&filler, n),
            newer(n).0,
            "flow {n} while lines are moved"
        );
    }
    filler.advance(LINES);
    assert!(!filler.shape.is_moving());
    for n in 0..many {
        assert_eq!(found(&filler, n), newer(n).0, "flow {n} afterwards");
    }
}

#[test]
fn what_is_full_takes_no_more() {
    let words = words(BLOCK_LINES);
    let table = Host(&words);
    let shape = Shape::first(BLOCK_LINES);
    let added = (0..1_000)
        .filter(|n| admit(&table, shape, hash(*n), entry(*n), How::Anyhow) == Put::Added)
        .count();
    assert!(added <= BLOCK_LINES as usize * LINE_ENTRIES);
    let found = (0..1_000).filter(|n| has(&table, shape, *n)).count();
    assert_eq!(found, added);
    assert_eq!(
        admit(&table, shape, hash(1_000), entry(1_000), How::Anyhow),
        Put::Not
    );
    assert_eq!(
        admit(&table, shape, hash(1_000), entry(1_000), How::IfKnown),
        Put::Not
    );
    assert_eq!(
        admit(&table, shape, hash(0), entry(0), How::IfKnown),
        Put::Known
    );
}

proptest! {
    /// Where an entry belongs follows from where it lies and from what it keeps of the hash.
    #[test]
    fn an_entry_tells_where_it_belongs(hash: u64, from in 0u32..=12, to in 0u32..=12) {
        let blocks = |grown: u32| (FIRST_BLOCKS << grown) - 1;
        let (from, to) = (blocks(from), blocks(to));
        let entry = Entry::new(hash, 1, 0, Birth::SETTLED);
        let (old, new) = (home(hash, from), home(hash, to));
        prop_assert_eq!(belongs(entry, old, to), new);
        prop_assert_eq!(belongs(entry, spill(old), to), spill(new));
        prop_assert_eq!(belongs(entry, last(old), to), last(new));
        prop_assert!(old < spill(old), "a spill line is no home");
        prop_assert!(old < (from + 1) * BLOCK_LINES);
    }

    /// A small table is as it is; a large one grows to its size, step by step, and back.
    #[test]
    fn shapes_stay_within_the_table(bits in 3u32..=28) {
        let lines = 1u32 << bits;
        let mut shape = Shape::first(lines);
        let mut steps = std::vec![shape];
        loop {
            let next = shape.grown(lines);
            if next == shape {
                break;
            }
            prop_assert!(next.is_moving() && next.grown(lines) == next && next.shrunk() == next);
            prop_assert!(next.lines() <= lines && next.crowded() > shape.crowded());
            prop_assert!(next.sparse() < shape.crowded(), "it does not shrink to grow again");
            prop_assert_eq!(next.moving(), (0, shape.lines()));
            shape = next.moved();
            steps.push(shape);
        }
        prop_assert_eq!(shape.lines(), lines);
        prop_assert!(shape.crowded() > u64::from(lines) * u64::from(LOAD));
        while steps.len() > 1 {
            let next = shape.shrunk();
            prop_assert!(next.is_moving() && next.now() < shape.now());
            let (first, count) = next.moving();
            prop_assert_eq!((first, first + count), (next.moved().lines(), shape.lines()));
            shape = next.moved();
            steps.pop();
            if shape == Shape::first(lines) {
                break;
            }
        }
        prop_assert_eq!(shape, Shape::first(lines));
    }
}
