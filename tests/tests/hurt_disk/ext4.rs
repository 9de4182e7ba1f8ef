//! A disk error under an open journal.

use std::fs;
use std::path::{Path, PathBuf};

use lb_userspace::lab::until;

use crate::scene::{SOON, Scene};

/// ext4 on a loop device; `None` where there is none.
fn ext4(state: &Path) -> Option<PathBuf> {
    let image = state.with_extension("ext4");
    let run = |words: &[&str]| {
        let done = std::process::Command::new(words[0])
            .args(&words[1..])
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let (file, at) = (image.to_str().unwrap(), state.to_str().unwrap());
    let made = run(&["mkfs.ext4", "-q", file])
        && run(&["mount", "-o", "loop,errors=remount-ro", file, at]);
    made.then_some(image)
}

/// The loop device of a mount point.
fn device(state: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == state.to_str())
        .unwrap();
    line.split(' ').next().unwrap().replace("/dev/", "")
}

/// What ext4 does after a disk error: read-only from one moment to the next, under open files.
#[test]
fn a_disk_error_during_a_trial_keeps_what_forwards() {
    let scene = Scene::on(ext4);
    if scene.image.is_none() {
        println!("no loop device or no ext4 here: not run");
        return;
    }
    scene.instance.try_out(&scene.both(), "5s").unwrap();
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", device(&scene.state()));
    fs::write(trigger, "1").unwrap();
    let told = scene.instance.expect(&["confirm"], 3).unwrap();
    assert!(told.contains("read-only"), "{told}");
    assert!(scene.instance.on_trial());
    let over = || (!scene.instance.on_trial()).then_some(());
    until("the deadline", SOON, over).unwrap();
    assert_eq!(scene.instance.active(), Some(2));
    scene.refuses(&["read-only", "dmesg"]);
    scene.forwards();
}
