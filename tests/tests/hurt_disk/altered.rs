//! A journal or a generation that is not what was written.

use std::fs;

use lb_userspace::lab::until;

use crate::scene::{SOON, Scene};

#[test]
fn an_altered_journal_is_located_and_what_is_pinned_goes_on() {
    let mut scene = Scene::new();
    scene.stop();
    let line = scene.alter();
    scene.start();
    assert_eq!(scene.instance.active(), Some(2));
    let place = format!("record {line}, line {line}");
    scene.refuses(&["was altered", &place, "mv "]);
    let told = scene.instance.expect(&["history"], 1).unwrap();
    assert!(told.contains(&place), "{told}");
    assert!(told.contains("journal.jsonl"), "{told}");
    scene.forwards();
    scene.instance.expect(&["revert"], 0).unwrap();
    scene.move_journal_away();
    scene.accepts();
    scene.forwards();
    // The new journal knows what forwards, although its beginning is lost.
    scene.reboot();
    scene.start();
    assert_eq!(scene.instance.active(), Some(3));
}

#[test]
fn a_new_journal_remembers_what_was_adopted() {
    let mut scene = Scene::new();
    scene.stop();
    scene.alter();
    scene.move_journal_away();
    scene.start();
    scene.reboot();
    scene.start();
    assert_eq!(scene.instance.active(), Some(2));
    scene.accepts();
}

#[test]
fn after_a_reboot_the_intact_part_of_an_altered_journal_is_restored() {
    let mut scene = Scene::new();
    scene.reboot();
    scene.alter();
    scene.start();
    assert_eq!(scene.instance.active(), Some(1), "the last that is proven");
    scene.watch();
    let warnings = scene.warnings();
    assert!(warnings.contains("was altered"), "{warnings}");
    assert!(warnings.contains("names generation 2"), "{warnings}");
    scene.refuses(&["was altered", "mv "]);
    scene.move_journal_away();
    let mut revert = scene.instance.spawn(&["revert", "2"]).unwrap();
    let trial = || scene.instance.on_trial().then_some(());
    until("the trial of what was committed", SOON, trial).unwrap();
    scene.instance.expect(&["confirm"], 0).unwrap();
    assert!(revert.wait(SOON).unwrap().success());
    assert_eq!(scene.instance.active(), Some(3));
    let file = scene.instance.expect(&["show", "3", "--config"], 0);
    assert_eq!(file.unwrap().trim(), scene.one().trim());
}

#[test]
fn a_generation_that_was_altered_on_disk_is_not_restored() {
    let mut scene = Scene::new();
    scene.reboot();
    let file = scene.state().join("generations/2/canonical.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"weight\":100", "\"weight\":900")).unwrap();
    scene.start();
    assert_eq!(scene.instance.active(), Some(1));
    scene.watch();
    let warnings = scene.warnings();
    assert!(warnings.contains("generation 2"), "{warnings}");
    scene.apply(&scene.one(), 0);
    scene.instance.expect(&["confirm"], 0).unwrap();
}

#[test]
fn without_any_generation_the_agent_starts_and_takes_a_change() {
    let mut scene = Scene::new();
    scene.reboot();
    fs::remove_dir_all(scene.state().join("generations")).unwrap();
    scene.start();
    assert_eq!(scene.instance.active(), Some(0));
    let warnings = scene.warnings();
    assert!(warnings.contains("nothing is forwarded"), "{warnings}");
    scene.accepts();
    scene.watch();
}

#[test]
fn a_torn_last_record_is_repaired_and_told() {
    let mut scene = Scene::new();
    scene.stop();
    let mut bytes = fs::read(scene.journal()).unwrap();
    bytes.extend_from_slice(b"{\"actor\":{\"comm");
    fs::write(scene.journal(), bytes).unwrap();
    scene.start();
    let warnings = scene.warnings();
    assert!(warnings.contains("torn"), "{warnings}");
    scene.whole();
}
