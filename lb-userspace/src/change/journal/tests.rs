use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::change::actor::Actor;

fn entry(kind: Kind, change: u64, text: &str) -> Entry {
    Entry {
        kind,
        change: Some(change),
        generation: Some(change + 40),
        actor: Actor {
            uid: 0,
            user: "root".into(),
            pid: 7,
            command: "lbguard apply".into(),
        },
        why: Some(text.to_owned()),
        body: json!({"cause": text, "n": change}),
    }
}

fn now() -> Now {
    Now {
        boot_ns: 5,
        wall: "2026-11-20T03:00:00.123456789Z".parse().unwrap(),
    }
}

/// A directory with a journal of `count` records, closed again.
fn journal_of(count: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let (mut journal, _) = Journal::open(&path).unwrap();
    for number in 1..=count {
        let kind = Kind::ALL[usize::try_from(number).unwrap() % Kind::ALL.len()].clone();
        journal
            .append(entry(kind, number, &format!("why {number} ü\"\\")), now())
            .unwrap();
    }
    (dir, path)
}

fn lines(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    bytes
        .split_inclusive(|b| *b == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Number of the line that `offset` is in; its newline belongs to it.
fn line_of(bytes: &[u8], offset: usize) -> u64 {
    bytes[..offset].split(|byte| *byte == b'\n').count() as u64
}

/// What `verify` says about other content, with the head file of `path`.
fn verify_bytes(path: &Path, bytes: &[u8]) -> Report {
    Scan::new(bytes, head::read(path)).finish().unwrap()
}

#[test]
fn what_is_appended_reads_back_in_order_and_chained() {
    let (_dir, path) = journal_of(5);
    let (records, report) = read(&path).unwrap();
    assert_eq!(report.records, 5);
    assert_eq!(report.first_bad, None);
    assert_eq!(records[0].prev, GENESIS);
    for pair in records.windows(2) {
        assert_eq!(pair[1].prev, pair[0].hash);
        assert_eq!(pair[1].seq, pair[0].seq + 1);
    }
    assert_eq!(records[4].why.as_deref(), Some("why 5 ü\"\\"));
    assert_eq!(records[4].time.to_string(), "2026-11-20T03:00:00.123456Z");
}

#[test]
fn the_chain_goes_on_after_reopening() {
    let (_dir, path) = journal_of(2);
    let (mut journal, opened) = Journal::open(&path).unwrap();
    assert_eq!(opened.records.len(), 2);
    assert_eq!(opened.repair, None);
    let record = journal.append(entry(Kind::Draft, 9, "x"), now()).unwrap();
    assert_eq!(record.seq, 3);
    assert_eq!(verify(&path).unwrap().records, 3);
    assert_eq!(read(&path).unwrap().0.last(), Some(&record));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let (_dir, path) = journal_of(1);
    let (_journal, _) = Journal::open(&path).unwrap();
    assert!(matches!(
        Journal::open(&path),
        Err(JournalError::Locked { .. })
    ));
    assert_eq!(verify(&path).unwrap().records, 1);
}

#[test]
fn a_hash_can_be_checked_without_this_program() {
    let (_dir, path) = journal_of(1);
    let line = lines(&path).remove(0);
    let mut value: serde_json::Value = serde_json::from_slice(&line).unwrap();
    let hash = value.as_object_mut().unwrap().remove("hash").unwrap();
    // Ascii keys of one object, sorted by serde_json's own map.
    let sorted: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_value(value).unwrap();
    let bytes = serde_json::to_vec(&sorted).unwrap();
    assert_eq!(
        crate::config::Digest::of(&bytes).to_string(),
        hash.as_str().unwrap()
    );
}

#[test]
fn a_moved_journal_is_noticed_before_the_next_record_is_lost() {
    let (_dir, path) = journal_of(1);
    let (mut journal, _) = Journal::open(&path).unwrap();
    fs::rename(&path, path.with_extension("old")).unwrap();
    let error = journal
        .append(entry(Kind::Draft, 2, "x"), now())
        .unwrap_err();
    assert!(matches!(error, JournalError::Moved { .. }), "{error}");
}

proptest! {
    #[test]
    fn a_fraction_reads_back_bit_by_bit(x in any::<f64>()) {
        let chain = Chain::default();
        let mut given = entry(Kind::Draft, 1, "x");
        given.body = json!({"x": x});
        let (record, line) = chain.extend(given, now()).unwrap();
        prop_assert_eq!(chain.accept(line.trim_end().as_bytes()).unwrap(), record);
    }
}

#[test]
fn cutting_off_whole_records_is_noticed() {
    let (_dir, path) = journal_of(4);
    let all = lines(&path);
    for keep in 0..4 {
        let report = verify_bytes(&path, &all[..keep].concat());
        let bad = report.first_bad.unwrap();
        assert_eq!(bad.seq, keep as u64 + 1);
        assert_eq!(bad.why, Flaw::CutOff { upto: 4 });
    }
}

#[test]
fn an_altered_journal_is_refused_with_its_record_and_the_way_out() {
    let (_dir, path) = journal_of(3);
    let text = fs::read_to_string(&path)
        .unwrap()
        .replacen("why 2", "why 7", 1);
    fs::write(&path, text).unwrap();
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(error.contains("record 2, line 2: altered"), "{error}");
    assert!(error.contains("mv "), "{error}");
}

#[test]
fn a_torn_end_at_every_byte_is_repaired_and_no_whole_record_is_lost() {
    let (_dir, path) = journal_of(3);
    let all = lines(&path);
    let kept = all[..2].concat();
    for cut in 0..=all[2].len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        fs::write(&path, [&kept[..], &all[2][..cut]].concat()).unwrap();
        let (mut journal, opened) = Journal::open(&path).unwrap();
        let whole = if cut + 1 >= all[2].len() { 3 } else { 2 };
        assert_eq!(opened.records.len(), whole, "cut at {cut}");
        match (cut, opened.repair) {
            (0, None) => {}
            (cut, None) => assert_eq!(cut, all[2].len()),
            (cut, Some(Repair::Completed)) => assert_eq!(cut + 1, all[2].len()),
            (cut, Some(Repair::MovedTo(aside))) => {
                assert_eq!(fs::read(aside).unwrap(), &all[2][..cut]);
            }
        }
        journal
            .append(entry(Kind::Draft, 8, "next"), now())
            .unwrap();
        let report = verify(&path).unwrap();
        assert_eq!(
            (report.records, report.first_bad),
            (whole as u64 + 1, None),
            "cut at {cut}"
        );
    }
}

#[test]
fn torn_ends_are_kept_apart() {
    let (_dir, path) = journal_of(1);
    for number in 1..=3 {
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"act")
            .unwrap();
        let (_, opened) = Journal::open(&path).unwrap();
        let aside = path.with_extension(format!("torn-{number}"));
        assert_eq!(opened.repair, Some(Repair::MovedTo(aside)));
    }
}

#[test]
fn every_single_byte_flip_is_found_in_the_line_where_it_is() {
    let (_dir, path) = journal_of(3);
    let good = fs::read(&path).unwrap();
    for (offset, byte) in good.iter().enumerate() {
        let line = line_of(&good, offset);
        for mask in [0x01u8, 0x20, 0x80, byte ^ b'\n', byte ^ b' '] {
            if mask == 0 {
                continue;
            }
            let mut bad = good.clone();
            bad[offset] ^= mask;
            let found = verify_bytes(&path, &bad).first_bad;
            assert_eq!(
                found.map(|bad| bad.line),
                Some(line),
                "offset {offset}, mask {mask:#x}"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_flip_anywhere_in_a_longer_journal_is_found(
        count in 1u64..12, place in any::<prop::sample::Index>(), mask in 1u8..
    ) {
        let (_dir, path) = journal_of(count);
        let mut bytes = fs::read(&path).unwrap();
        let offset = place.index(bytes.len());
        let line = line_of(&bytes, offset);
        bytes[offset] ^= mask;
        let found = verify_bytes(&path, &bytes).first_bad;
        prop_assert_eq!(found.map(|bad| (bad.seq, bad.line)), Some((line, line)));
    }

    #[test]
    fn a_dropped_line_is_found(count in 1u64..12, place in any::<prop::sample::Index>()) {
        let (_dir, path) = journal_of(count);
        let mut all = lines(&path);
        let at = place.index(all.len());
        all.remove(at);
        let found = verify_bytes(&path, &all.concat()).first_bad;
        prop_assert_eq!(found.map(|bad| bad.seq), Some(at as u64 + 1));
    }

    #[test]
    fn a_repeated_line_is_found(
        count in 1u64..12, what in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()
    ) {
        let (_dir, path) = journal_of(count);
        let mut all = lines(&path);
        let (what, to) = (what.index(all.len()), to.index(all.len() + 1));
        let copy = all[what].clone();
        all.insert(to, copy);
        let found = verify_bytes(&path, &all.concat()).first_bad;
        // A copy put right before or after its original reads as the original;
        // the second of the two is then the bad one.
        let expected = if to == what { to + 1 } else { to };
        prop_assert_eq!(found.map(|bad| bad.line), Some(expected as u64 + 1));
    }

    #[test]
    fn swapped_lines_are_found(
        count in 2u64..12, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()
    ) {
        let (_dir, path) = journal_of(count);
        let mut all = lines(&path);
        let (a, b) = (a.index(all.len()), b.index(all.len()));
        prop_assume!(a != b);
        all.swap(a, b);
        let found = verify_bytes(&path, &all.concat()).first_bad;
        prop_assert_eq!(found.map(|bad| bad.line), Some(a.min(b) as u64 + 1));
    }

    #[test]
    fn any_text_can_be_journalled(text in any::<String>(), n in any::<u64>()) {
        let chain = Chain::default();
        let mut given = entry(Kind::Draft, 1, &text);
        given.body = json!({"n": n, "text": text, "deep": {"b": [n], "a": null}});
        let (record, line) = chain.extend(given, now()).unwrap();
        prop_assert_eq!(line.matches('\n').count(), 1);
        prop_assert_eq!(chain.accept(line.trim_end_matches('\n').as_bytes()).unwrap(), record);
    }
}

/// Record `seq` of the journal at `path` with another text and a fitting hash.
fn forged(path: &Path, seq: usize) -> Vec<u8> {
    let before = &read(path).unwrap().0[seq - 2];
    let chain = Chain {
        seq: before.seq,
        hash: before.hash.clone(),
    };
    let (_, line) = chain
        .extend(entry(Kind::Draft, 9, "forged"), now())
        .unwrap();
    line.into_bytes()
}

#[test]
fn a_forged_record_is_found_where_the_next_one_does_not_follow_from_it() {
    let (_dir, path) = journal_of(3);
    let mut all = lines(&path);
    all[1] = forged(&path, 2);
    let bad = Scan::new(&all.concat()[..], None)
        .finish()
        .unwrap()
        .first_bad
        .unwrap();
    assert_eq!((bad.seq, bad.why), (3, Flaw::Prev));
}

#[test]
fn a_forged_last_record_is_found_by_the_head_file() {
    let (_dir, path) = journal_of(3);
    let mut all = lines(&path);
    all[2] = forged(&path, 3);
    let bad = verify_bytes(&path, &all.concat()).first_bad.unwrap();
    assert_eq!((bad.seq, bad.why), (3, Flaw::Head));
}

#[test]
fn without_a_readable_head_file_the_journal_still_opens_and_the_head_is_made_anew() {
    let (_dir, path) = journal_of(2);
    for content in [&b""[..], b"garbage", b"00000000000000000009 xyz\n"] {
        fs::write(head::path_for(&path), content).unwrap();
        let (journal, opened) = Journal::open(&path).unwrap();
        assert_eq!(opened.records.len(), 2);
        assert_eq!(head::read(&path).as_ref(), Some(journal.end()));
    }
}

#[test]
fn a_wall_clock_that_jumps_is_written_down_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let (mut journal, _) = Journal::open(&path).unwrap();
    let seconds = [
        1_790_000_000,
        0,
        4_000_000_000,
        -3_000_000_000,
        1_790_000_001,
    ];
    for (number, second) in (1u64..).zip(seconds) {
        let now = Now {
            boot_ns: number,
            wall: jiff::Timestamp::from_second(second).unwrap(),
        };
        journal
            .append(entry(Kind::Draft, number, "x"), now)
            .unwrap();
    }
    drop(journal);
    let (_, opened) = Journal::open(&path).unwrap();
    let read: Vec<i64> = opened.records.iter().map(|r| r.time.as_second()).collect();
    assert_eq!(read, seconds);
    assert!(verify(&path).unwrap().first_bad.is_none());
}
