use super::*;
use crate::change::machine::testing::{now_at, operator};

fn generation(number: u64) -> Generation {
    let canonical = format!("{{\"n\":{number}}}");
    let meta = Meta {
        generation: number,
        digest: Digest::of(canonical.as_bytes()),
        base: number - 1,
        author: operator(),
        why: "because".into(),
        time: now_at(1).wall,
        outcome: None,
    };
    Generation {
        meta,
        services: format!("# {number}\n\n"),
        canonical,
    }
}

fn store_of(numbers: impl IntoIterator<Item = u64>) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("generations")).unwrap();
    for number in numbers {
        store.put(&generation(number)).unwrap();
    }
    (dir, store)
}

#[test]
fn what_is_put_loads_byte_for_byte() {
    let (_dir, store) = store_of([1, 2, 10]);
    assert_eq!(store.list().unwrap(), [1, 2, 10]);
    assert_eq!(store.load(2).unwrap(), generation(2));
    store.set_outcome(2, "committed").unwrap();
    assert_eq!(
        store.load(2).unwrap().meta.outcome.as_deref(),
        Some("committed")
    );
}

#[test]
fn a_generation_is_never_written_twice_nor_with_another_digest() {
    let (_dir, store) = store_of([1]);
    assert!(matches!(
        store.put(&generation(1)),
        Err(StoreError::Exists(1))
    ));
    let wrong = Generation {
        canonical: "{}".into(),
        ..generation(2)
    };
    assert!(matches!(store.put(&wrong), Err(StoreError::Altered { .. })));
    assert_eq!(store.list().unwrap(), [1]);
}

#[test]
fn what_was_altered_on_disk_is_not_loaded() {
    let (_dir, store) = store_of([1]);
    fs::write(store.place(1).join(CANONICAL), "{\"n\":2}").unwrap();
    let error = store.load(1).unwrap_err();
    assert!(error.to_string().contains("altered"), "{error}");
    fs::remove_file(store.place(1).join(META)).unwrap();
    assert!(matches!(store.load(1), Err(StoreError::Altered { .. })));
    assert!(matches!(
        store.load(5),
        Err(StoreError::Absent { generation: 5, .. })
    ));
}

#[test]
fn pruning_keeps_the_newest_and_what_is_in_use() {
    let (_dir, store) = store_of(1..=6);
    assert_eq!(store.prune(3, &[1, 6]).unwrap(), [2, 3, 4]);
    assert_eq!(store.list().unwrap(), [1, 5, 6]);
    assert!(store.prune(0, &[1, 5, 6]).unwrap().is_empty());
    assert!(store.prune(9, &[]).unwrap().is_empty());
}

#[test]
fn half_written_generations_are_not_seen_and_cleared_at_the_start() {
    let (_dir, store) = store_of([1]);
    for name in [".new-2", ".old-3", "lost+found", "007"] {
        fs::create_dir(store.dir.join(name)).unwrap();
    }
    assert_eq!(store.list().unwrap(), [1]);
    Store::open(&store.dir).unwrap();
    assert!(!store.dir.join(".new-2").exists() && !store.dir.join(".old-3").exists());
    assert!(store.dir.join("lost+found").exists(), "not ours");
    store.put(&generation(2)).unwrap();
}

#[test]
fn a_store_that_was_never_written_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path().join("none"));
    assert!(store.list().unwrap().is_empty());
    assert!(matches!(store.load(1), Err(StoreError::Absent { .. })));
}
