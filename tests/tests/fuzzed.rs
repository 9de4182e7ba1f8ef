//! The fuzzers' properties on a few thousand inputs: bytes for the guard, the journal's reader and
//! the configuration's. The long versions are the targets in `fuzz/`.
#![allow(
    clippy::unwrap_used,
    reason = "a strategy that cannot be built fails the test"
)]

use std::cell::RefCell;

use lb_tests::bench::shop;
use lb_tests::fuzzing::{RawGuard, configuration, journal};
use proptest::prelude::*;

/// Random bytes, as long as commands are: short ones, and those with a payload.
fn commands() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..64),
        6 => prop::collection::vec(any::<u8>(), 65..80),
        3 => prop::collection::vec(any::<u8>(), 65..3_400),
    ]
}

/// A good text with bytes changed, cut out and doubled.
fn damaged(text: String) -> impl Strategy<Value = Vec<u8>> {
    let length = text.len();
    let edits = prop::collection::vec((0..length, any::<u8>(), 0usize..40), 0..4);
    edits.prop_map(move |edits| {
        let mut bytes = text.clone().into_bytes();
        for (place, byte, kind) in edits {
            let place = place.min(bytes.len().saturating_sub(1));
            match kind {
                0..20 => bytes[place] = byte,
                20..25 => bytes.truncate(place.max(1)),
                25..30 => bytes.extend_from_within(place..),
                _ => bytes.insert(place, byte),
            }
        }
        bytes
    })
}

/// A journal of two records.
fn good_journal() -> String {
    use lb_userspace::change::Now;
    use lb_userspace::change::actor::Actor;
    use lb_userspace::change::journal::{Entry, Journal, Kind};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let (mut journal, _) = Journal::open(&path).unwrap();
    for kind in [Kind::AgentStart, Kind::AgentStop] {
        let entry = Entry {
            kind,
            change: None,
            generation: None,
            actor: Actor::kernel(),
            why: Some("fuzz".to_owned()),
            body: serde_json::json!({"a": [1, null, "x"]}),
        };
        journal.append(entry, Now::read()).unwrap();
    }
    std::fs::read_to_string(path).unwrap()
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

fn guard_cases(count: u32) {
    let guard = RefCell::new(RawGuard::new());
    proptest!(cases(count), |(bytes in commands())| {
        guard.borrow_mut().feed(&bytes);
    });
}

#[test]
fn the_guard_answers_or_refuses_any_bytes() {
    guard_cases(2_000);
}

#[test]
#[ignore = "minutes; `cargo xtask soak guard` runs it"]
fn soak_guard_takes_200000_commands_of_any_bytes() {
    guard_cases(200_000);
}

#[test]
fn the_journals_reader_takes_any_bytes() {
    let good = good_journal();
    proptest!(cases(500), |(bytes in prop::collection::vec(any::<u8>(), 0..2_000))| {
        journal(&bytes);
    });
    proptest!(cases(1_000), |(bytes in damaged(good.clone()))| journal(&bytes));
}

#[test]
fn the_configurations_readers_take_any_bytes() {
    proptest!(cases(300), |(bytes in prop::collection::vec(any::<u8>(), 0..2_000))| {
        configuration(&bytes);
    });
    proptest!(cases(300), |(bytes in damaged(shop(3)))| configuration(&bytes));
}
