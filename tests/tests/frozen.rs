//! Every map is frozen: no process, root's included, writes it through `bpf(2)`. One exception,
//! the timer's, and what happens when that one is written.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use lb_common::control::Control;
use lb_tests::bench::{Bench, shop};
use lb_tests::bpf::{self, Cmd, Map};
use lb_tests::bpffs::{Bpffs, pins_below};
use lb_tests::bpftool::bpftool;
use lb_tests::child::{Part, part, tell, wait};
use lb_userspace::kernel::maps::{FROZEN, TIMER};
use zerocopy::{FromBytes, IntoBytes};

const WRITE_ONLY: u32 = 1 << 4;
/// `ENOTSUPP`, which has no name outside the kernel.
const NOT_SUPPORTED: i32 = 524;

/// What a map holds, without what the kernel's own timer keeps changing.
fn content(map: &Map, name: &str) -> Vec<u8> {
    let mut bytes = map.content();
    if name == "CONTROL" {
        let whole = Control::read_from_bytes(&bytes).expect("a control element");
        let lasting = Control {
            word: whole.word,
            lock: whole.lock,
            patience: whole.patience,
            started_ns: whole.started_ns,
            ..Control::default()
        };
        bytes = lasting.as_bytes().to_vec();
    }
    bytes
}

fn number_of(outcome: std::io::Result<()>) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().expect("an error number"),
    }
}

/// Everything that writes a map, on an open file descriptor. `(what, error number)`, 0 = it worked.
fn writes(map: &Map) -> Vec<(&'static str, i32)> {
    let last = map.elements - 1;
    let few = map.elements.min(4);
    vec![
        ("update", number_of(map.element(Cmd::Update, 0))),
        ("update last", number_of(map.element(Cmd::Update, last))),
        ("delete", number_of(map.element(Cmd::Delete, 0))),
        (
            "lookup and delete",
            number_of(map.element(Cmd::LookupAndDelete, 0)),
        ),
        ("update batch", number_of(map.batch(Cmd::UpdateBatch, few))),
        ("delete batch", number_of(map.batch(Cmd::DeleteBatch, few))),
        (
            "lookup and delete batch",
            number_of(map.batch(Cmd::LookupAndDeleteBatch, few)),
        ),
    ]
}

/// Plays another root process: attacks one map on every road and tells what came of it.
fn attack(path: &Path, name: &str) {
    let map = Map::pinned(path);
    let before = content(&map, name);
    let report = |road: &str, outcomes: Vec<(&'static str, i32)>| {
        for (what, error) in outcomes {
            let changed = content(&map, name) != before;
            tell(&format!("{name},{road},{what},{error},{changed}"));
        }
    };
    report("pin", writes(&map));
    let by_id = |flags| Map::of(bpf::open_id(Cmd::MapById, map.id(), flags).expect("map by id"));
    report("id", writes(&by_id(0)));
    let write_only = Map::of(bpf::open_pin(path, WRITE_ONLY).expect("pin, write only"));
    report(
        "write only pin",
        vec![("update", number_of(write_only.element(Cmd::Update, 0)))],
    );
    report(
        "write only id",
        vec![(
            "update",
            number_of(by_id(WRITE_ONLY).element(Cmd::Update, 0)),
        )],
    );
    if map.mappable {
        report("mmap", vec![("write", number_of(map.map_writable()))]);
    }
    report("freeze", vec![("again", number_of(map.freeze()))]);
}

#[test]
fn part_attack() {
    let Some(directory) = part() else { return };
    let pins = pins_below(&directory);
    for name in FROZEN.into_iter().chain([TIMER]) {
        attack(&pins.map(name), name);
    }
    tell("done");
    wait();
}

/// What each attempt must end in.
fn expected(name: &str, what: &str) -> i32 {
    match (name, what) {
        (TIMER, "update" | "update last" | "update batch") => 0,
        // Arrays know no deletion; that is all that keeps the timer's.
        (TIMER, "delete") => libc::EINVAL,
        (TIMER, _) => NOT_SUPPORTED,
        _ => libc::EPERM,
    }
}

#[test]
fn no_map_but_the_timers_is_written_by_another_root_process() {
    let bpffs = Bpffs::new();
    let bench = Bench::pinned(&bpffs.pins());
    bench.commit(&shop(4));
    let record = bench.record();

    let mut attacker = Part::start("part_attack", bpffs.path());
    let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let line = attacker.hear();
        if line == "done" {
            break;
        }
        let fields: Vec<&str> = line.split(',').collect();
        let [name, _, what, error, changed] = fields[..] else {
            panic!("{line}");
        };
        let error: i32 = error.parse().expect("an error number");
        // There is no command to thaw a map; freezing it again is refused, by older kernels as busy.
        let busy = name != TIMER && what == "again" && error == libc::EBUSY;
        assert!(busy || error == expected(name, what), "{line}");
        assert_eq!(changed, "false", "{line}");
        *attempts.entry(name.to_owned()).or_default() += 1;
    }
    attacker.end();
    assert_eq!(attempts.len(), FROZEN.len() + 1, "every map was attacked");
    assert!(attempts.values().all(|count| *count >= 17), "{attempts:?}");
    assert_eq!(
        bench.record(),
        record,
        "the control word points where it did"
    );
}

#[test]
fn the_timers_is_the_only_map_of_the_programs_that_is_not_frozen() {
    let bpffs = Bpffs::new();
    let bench = Bench::pinned(&bpffs.pins());
    let timer = Map::pinned(&bpffs.pins().map(TIMER)).id();
    let mut seen = 0;
    for name in ["lb", "guard"] {
        let program = bpf::open_pin(&bpffs.pins().program(name), 0).expect(name);
        for id in bpf::maps_of(&program) {
            let map = Map::of(bpf::open_id(Cmd::MapById, id, 0).expect("map by id"));
            assert_eq!(map.frozen(), id != timer, "{name}: map {id}");
            seen += 1;
        }
    }
    assert!(seen > FROZEN.len(), "{seen} maps, of both programs");
    drop(bench);
}

#[test]
fn bpftool_writes_no_map_but_the_timers() {
    let bpffs = Bpffs::new();
    let bench = Bench::pinned(&bpffs.pins());
    bench.commit(&shop(4));
    for name in FROZEN {
        let path = bpffs.pins().map(name);
        let map = Map::pinned(&path);
        let before = content(&map, name);
        let size = bpf_value_size(&path);
        let path = path.to_str().expect("a path");
        let key = ["key", "0", "0", "0", "0"];
        let value = vec!["0xff"; size];
        let id = map.id().to_string();
        for road in [["pinned", path], ["id", &id]] {
            let update = [&["map", "update"][..], &road, &key, &["value"], &value].concat();
            refused(name, &update);
            let delete = [&["map", "delete"][..], &road, &key].concat();
            refused(name, &delete);
        }
        assert!(content(&map, name) == before, "{name} has changed");
    }
}

/// Bytes of a value as bpftool takes it.
fn bpf_value_size(path: &Path) -> usize {
    let map = bpf::open_pin(path, 0).expect("pin");
    bpf::fact(&map, "value_size") as usize
}

fn refused(name: &str, arguments: &[&str]) {
    let output = bpftool(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success(),
        "{name}: {:?} worked",
        &arguments[..4]
    );
    assert!(said.contains("Operation not permitted"), "{name}: {said}");
}
