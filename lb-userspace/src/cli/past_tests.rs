//! `history`, `show` and `diff` on a journal and a store as an agent leaves them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::past::{Past, outcome};
use super::*;
use crate::change::cause::{Cause, CauseKind};
use crate::change::diff::tests::{backend_of, shop};
use crate::change::journal::{Entry, Journal, Kind};
use crate::change::machine::Spec;
use crate::change::machine::testing::{now_at, operator, spec};
use crate::change::store::{Generation, Meta, Store};
use crate::config::Config;

fn context(root: &Path) -> Context {
    Context {
        paths: Paths::under(root),
        flags: Overrides::default(),
        json: false,
        colour: false,
    }
}

fn put(store: &Store, number: u64, config: &Config) {
    let canonical = config.canonical_json();
    let meta = Meta {
        generation: number,
        digest: config.digest(),
        base: number - 1,
        author: operator(),
        why: "add web-3".into(),
        time: now_at(1).wall,
        outcome: None,
    };
    store
        .put(&Generation {
            meta,
            services: format!("# {number}\n"),
            canonical,
        })
        .unwrap();
}

fn append(journal: &mut Journal, kind: Kind, generation: u64, body: Value) {
    let entry = Entry {
        kind,
        change: Some(generation),
        generation: Some(generation),
        actor: operator(),
        why: Some("add web-3".into()),
        body,
    };
    journal.append(entry, now_at(generation)).unwrap();
}

/// Generation 1 committed, generation 2 put back.
fn lived_in() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let store = Store::open(paths.generations()).unwrap();
    let (mut journal, _) = Journal::open(&paths.journal()).unwrap();
    let mut wider = shop();
    wider.pools[0]
        .backends
        .push(backend_of("web-3", "10.0.1.13"));
    for (number, config) in [(1, shop()), (2, wider)] {
        put(&store, number, &config);
        let spec = Spec {
            change: number,
            generation: number,
            digest: config.digest(),
            ..spec()
        };
        append(&mut journal, Kind::Draft, number, json!(spec));
    }
    append(&mut journal, Kind::Committed, 1, Value::Null);
    append(
        &mut journal,
        Kind::Reverted,
        2,
        Cause::new(CauseKind::Deadline, "").body(),
    );
    root
}

fn run_line(root: &Path, line: &str) -> ExitCode {
    let words = ["lbguard", "--root", root.to_str().unwrap()];
    let cli = Cli::try_parse_from(words.into_iter().chain(line.split_whitespace())).unwrap();
    run(&cli)
}

#[test]
fn the_past_says_what_is_in_force_and_how_each_change_ended() {
    let root = lived_in();
    let past = Past::read(&context(root.path())).unwrap();
    assert!(past.in_force(1) && !past.in_force(2));
    let of = |generation| outcome(past.ledger.change_of(generation).unwrap()).0;
    assert!(of(1).starts_with("was committed 20"), "{}", of(1));
    assert!(of(2).starts_with("was put back 20"), "{}", of(2));
    assert_eq!(past.config(1).unwrap(), shop());
    assert_eq!(past.config(0).unwrap(), Config::default());
}

#[test]
fn every_read_out_works_without_an_agent() {
    let root = lived_in();
    for line in [
        "history",
        "history --json",
        "history --records -n 0",
        "history --records --json",
        "show 1",
        "show 2 --json",
        "show 2 --config",
        "show 0",
        "diff 1 2",
        "diff 0 1 --json",
    ] {
        assert_eq!(run_line(root.path(), line), ExitCode::Done, "{line}");
    }
    for line in ["show 9", "diff 1 9"] {
        assert_eq!(run_line(root.path(), line), ExitCode::Internal, "{line}");
    }
}

#[test]
fn a_host_without_a_journal_is_told_so() {
    let root = tempfile::tempdir().unwrap();
    let error = Past::read(&context(root.path())).unwrap_err().to_string();
    assert!(
        error.contains("no journal at") && error.contains("--root"),
        "{error}"
    );
}

#[test]
fn a_generation_that_is_no_longer_kept_still_has_its_end() {
    let root = lived_in();
    let paths = Paths::under(root.path());
    Store::at(paths.generations()).prune(1, &[]).unwrap();
    let past = Past::read(&context(root.path())).unwrap();
    let error = past.generation(1).unwrap_err().to_string();
    assert!(
        error.contains("not kept") && error.contains("was committed"),
        "{error}"
    );
}

#[test]
fn a_tampered_journal_is_shown_up_to_there_and_fails() {
    let root = lived_in();
    let path = Paths::under(root.path()).journal();
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("\"deadline\"", "\"breaker\"");
    fs::write(&path, text).unwrap();
    assert_eq!(run_line(root.path(), "history"), ExitCode::Internal);
    let past = Past::read(&context(root.path())).unwrap();
    assert_eq!(past.records.len(), 3);
    let error = past.check_intact().unwrap_err().to_string();
    assert!(error.contains("record 4"), "{error}");
}

#[test]
fn the_state_directory_of_agent_toml_is_followed() {
    let root = lived_in();
    let paths = Paths::under(root.path());
    let elsewhere = root.path().join("elsewhere");
    fs::rename(paths.state_dir(), &elsewhere).unwrap();
    fs::create_dir_all(paths.config_dir()).unwrap();
    let agent = format!(
        "version = 1\ninterfaces = [\"eth0\"]\nfleet_seed = \"tests only\"\nencap_source_v4 = \"192.0.2.1\"\nstate_dir = \"{}\"\n",
        elsewhere.display()
    );
    fs::write(paths.agent_toml(), agent).unwrap();
    assert_eq!(run_line(root.path(), "show 1"), ExitCode::Done);
}

#[test]
fn a_difference_is_one_line_with_its_names() {
    let mut wider = shop();
    wider.pools[0]
        .backends
        .push(backend_of("web-3", "10.0.1.13"));
    wider.pools[0].backends[0].weight = 50;
    let mut page = render::Page::new(false);
    diff::differences(&mut page, &crate::change::diff::diff(&shop(), &wider));
    assert_eq!(
        page.finish(),
        "~ backend web-1 of shop-web: weight 100 -> 50\n\
         + backend web-3 of shop-web: 10.0.1.13 weight 100 active\n"
    );
}

#[test]
fn check_needs_no_agent_toml_and_refuses_with_3() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("services.toml");
    fs::write(&file, "version = 1\nnonsense = true\n").unwrap();
    let line = format!("check {}", file.display());
    assert_eq!(run_line(root.path(), &line), ExitCode::Refused);
    assert_eq!(
        run_line(root.path(), "check /nowhere/services.toml"),
        ExitCode::Refused
    );
    let sound = r#"
version = 1
[[vip]]
name = "shop-v4"
service = "shop"
address = "203.0.113.10"
port = 80
protocol = "tcp"
pool = "shop-web"
[[pool]]
name = "shop-web"
service = "shop"
forward = "ipip"
[[pool.backend]]
name = "web-1"
address = "10.0.1.11"
[[pool.backend]]
name = "web-2"
address = "10.0.1.12"
"#;
    fs::write(&file, sound).unwrap();
    assert_eq!(run_line(root.path(), &line), ExitCode::Done);
    assert_eq!(
        run_line(root.path(), &format!("{line} --json")),
        ExitCode::Done
    );
}
