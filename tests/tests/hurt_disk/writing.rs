//! A disk that is full, read-only or gone.

use std::fs;

use lb_userspace::lab::until;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::scene::{NOTHING, SOON, Scene};

#[test]
fn a_full_disk_refuses_a_change_and_room_is_all_it_takes() {
    let scene = Scene::new();
    scene.fill();
    scene.refuses(&["disk full", "make room"]);
    scene.instance.expect(&["history"], 0).unwrap();
    scene.forwards();
    scene.make_room();
    // Status alone notices, too.
    assert_eq!(scene.warnings(), "");
    scene.accepts();
    scene.forwards();
}

#[test]
fn a_disk_that_fills_up_during_a_trial_keeps_what_forwards() {
    let scene = Scene::new();
    scene.instance.try_out(&scene.both(), "60s").unwrap();
    scene.fill();
    let told = scene.instance.expect(&["confirm"], 3).unwrap();
    assert!(told.contains("not confirmed"), "{told}");
    assert!(told.contains("disk full"), "{told}");
    assert!(scene.instance.on_trial());
    assert!(scene.warnings().contains("disk full"));
    scene.make_room();
    scene.instance.expect(&["confirm"], 0).unwrap();
    assert_eq!(scene.instance.active(), Some(3));

    scene.instance.try_out(&scene.one(), "60s").unwrap();
    scene.fill();
    scene.instance.expect(&["revert"], 0).unwrap();
    assert_eq!(scene.instance.active(), Some(3));
    let noticed = || scene.warnings().contains("disk full").then_some(());
    until("the warning", SOON, noticed).unwrap();
    scene.forwards();
    scene.make_room();
    let recorded = || {
        let history = scene.instance.expect(&["history", "-n", "1"], 0).unwrap();
        history.contains("put back").then_some(())
    };
    until("the record of the end", SOON, recorded).unwrap();
    assert_eq!(scene.warnings(), "");
    scene.whole();
}

#[test]
fn an_agent_starts_on_a_full_disk() {
    let mut scene = Scene::new();
    scene.stop();
    scene.fill();
    scene.start();
    assert_eq!(scene.instance.active(), Some(2));
    scene.refuses(&["disk full", "make room"]);
    scene.forwards();
    scene.instance.expect(&["revert"], 0).unwrap();
    assert_eq!(scene.instance.active(), Some(1));
    scene.instance.expect(&["freeze", "on"], 0).unwrap();
    scene.make_room();
    assert_eq!(scene.warnings(), "");
    // What was done meanwhile is written down now, or a reboot would undo it.
    scene.reboot();
    scene.start();
    assert_eq!(scene.instance.active(), Some(1));
    let status = scene.instance.status().unwrap();
    assert_eq!(status["kernel"]["frozen"], true);
    scene.instance.expect(&["freeze", "off"], 0).unwrap();
    scene.accepts();
}

#[test]
fn an_agent_starts_on_a_read_only_disk_and_adopts() {
    let mut scene = Scene::new();
    scene.stop();
    // What a crash has left cannot be cleared now.
    fs::create_dir(scene.state().join("generations/.new-9")).unwrap();
    scene.remount(MsFlags::MS_RDONLY);
    scene.start();
    assert_eq!(scene.instance.active(), Some(2));
    assert!(scene.warnings().contains(".new-9"));
    scene.refuses(&["read-only", "dmesg"]);
    scene.instance.expect(&["history"], 0).unwrap();
    scene.forwards();
    scene.remount(MsFlags::empty());
    scene.accepts();
}

#[test]
fn after_a_reboot_a_read_only_disk_is_enough_to_forward() {
    let mut scene = Scene::new();
    scene.reboot();
    scene.remount(MsFlags::MS_RDONLY);
    scene.start();
    assert_eq!(scene.instance.active(), Some(2));
    scene.watch();
    scene.refuses(&["read-only"]);
    scene.remount(MsFlags::empty());
    scene.accepts();
}

/// The journal's file vanishes under the agent, with the disk that it is on.
#[test]
fn a_disk_that_vanishes_during_a_trial_and_comes_back() {
    let scene = Scene::new();
    scene.instance.try_out(&scene.both(), "60s").unwrap();
    let flags = MsFlags::MS_RDONLY;
    mount(Some("hole"), &scene.state(), Some("tmpfs"), flags, NOTHING).unwrap();
    let told = scene.instance.expect(&["confirm"], 3).unwrap();
    assert!(told.contains("not confirmed"), "{told}");
    scene.instance.expect(&["revert"], 0).unwrap();
    scene.refuses(&["moved or deleted"]);
    scene.forwards();
    umount2(&scene.state(), MntFlags::empty()).unwrap();
    scene.accepts();
}
