//! The state directory on a hurt disk: full, read-only, gone, or with a journal that somebody has
//! altered. Forwarding goes on, changes are refused or put back, and the operator is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is tests"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lb_tests::services;
use lb_userspace::change::journal;
use lb_userspace::lab::{Host, HttpLoop, HttpOptions, Instance, Lab, VIP_V4, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const NOTHING: Option<&str> = None;

/// A lab with the state directory on a disk of its own, and requests that must not notice anything.
struct Scene {
    lab: Lab,
    instance: Instance,
    requests: Option<HttpLoop>,
    image: Option<PathBuf>,
}

impl Scene {
    /// On a tmpfs of half a megabyte, with generations 1 (both backends) and 2 (the first).
    fn new() -> Self {
        Self::on(|state| {
            let options = Some("size=512k");
            mount(
                Some("hurt"),
                state,
                Some("tmpfs"),
                MsFlags::empty(),
                options,
            )
            .unwrap();
            None
        })
    }

    fn on(disk: impl FnOnce(&PathBuf) -> Option<PathBuf>) -> Self {
        let lab = Lab::builder().backends("web", 2).build().unwrap();
        let state = lab.root().join("var/lib/lbguard");
        fs::create_dir_all(&state).unwrap();
        let image = disk(&state);
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let mut scene = Self {
            lab,
            instance,
            requests: None,
            image,
        };
        scene.instance.commit(&scene.both()).unwrap();
        scene.instance.commit(&scene.one()).unwrap();
        scene.watch();
        scene
    }

    fn watch(&mut self) {
        let options = HttpOptions {
            rate: 50,
            ..HttpOptions::default()
        };
        let vip = SocketAddr::new(VIP_V4.into(), 80);
        self.requests = Some(self.lab.client().http_loop(vip, &options).unwrap());
        self.forwards();
    }

    /// More requests have been answered, and none has failed.
    fn forwards(&self) {
        let requests = self.requests.as_ref().unwrap();
        requests.wait(20, SOON).unwrap();
        assert_eq!(requests.failed(), 0);
    }

    fn hosts(&self) -> Vec<&Host> {
        self.lab.backends().collect()
    }

    fn both(&self) -> String {
        services::shop(&self.hosts())
    }

    fn one(&self) -> String {
        services::shop(&self.hosts()[..1])
    }

    fn state(&self) -> PathBuf {
        self.lab.root().join("var/lib/lbguard")
    }

    fn journal(&self) -> PathBuf {
        self.state().join("journal.jsonl")
    }

    /// Not a byte is left, not even behind the journal's end.
    fn fill(&self) {
        if self.instance.agent().is_some() {
            self.fill_last_page();
        }
        let mut left = fs::File::create(self.state().join("filler")).unwrap();
        let block = [0u8; 512];
        while std::io::Write::write_all(&mut left, &block).is_ok() {}
    }

    /// Less of the journal's last page is left than the shortest record takes.
    fn fill_last_page(&self) {
        let length = || fs::metadata(self.journal()).unwrap().len();
        loop {
            let before = length();
            self.instance.expect(&["freeze", "off"], 0).unwrap();
            let record = length() - before;
            if 4096 - length() % 4096 < record {
                return;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.state().join("filler")).unwrap();
    }

    fn remount(&self, flags: MsFlags) {
        let flags = MsFlags::MS_REMOUNT | flags;
        mount(NOTHING, &self.state(), NOTHING, flags, NOTHING).unwrap();
    }

    fn stop(&mut self) {
        self.instance.stop_agent(Signal::SIGKILL).unwrap();
    }

    /// The agent dies and the pins go, as in a reboot; nothing is forwarded until a new one runs.
    fn reboot(&mut self) {
        self.stop();
        self.requests = None;
        self.instance.expect(&["unload", "--yes"], 0).unwrap();
    }

    fn start(&mut self) {
        self.instance.start_agent().unwrap();
    }

    fn warnings(&self) -> String {
        let status = self.instance.status().unwrap();
        let warnings = status.pointer("/agent/warnings").unwrap();
        let warnings: Vec<&str> = warnings
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let text = self.instance.expect(&["status"], 0).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for warning in &warnings {
            assert!(text.contains(warning), "{warning} is not in {text}");
        }
        warnings.join("\n")
    }

    fn apply(&self, services: &str, exit: i32) -> String {
        let file = self.instance.write("next.toml", services).unwrap();
        let file = file.to_string_lossy().into_owned();
        let words = ["apply", &file, "-m", "hurt", "--detach"];
        self.instance.expect(&words, exit).unwrap()
    }

    /// A change is refused before it begins, with a sentence that has all of `words`.
    fn refuses(&self, words: &[&str]) {
        let before = self.instance.active();
        let told = self.apply(&self.both(), 3);
        for word in words {
            assert!(told.contains(word), "no {word:?} in: {told}");
        }
        assert_eq!(self.instance.active(), before);
        assert!(!self.instance.on_trial());
        let warnings = self.warnings();
        assert!(
            words.iter().any(|word| warnings.contains(word)),
            "{warnings}"
        );
    }

    /// A change goes through with no restart before it, and the journal is whole.
    fn accepts(&self) {
        self.apply(&self.both(), 0);
        self.instance.expect(&["confirm"], 0).unwrap();
        assert_eq!(self.warnings(), "");
        self.whole();
    }

    fn whole(&self) {
        let report = journal::verify(&self.journal()).unwrap();
        assert_eq!((report.first_bad, report.torn), (None, None));
        self.instance.expect(&["history"], 0).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.journal()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Alters who committed last; the number of that line.
    fn alter(&self) -> usize {
        let mut lines = self.lines();
        let committed = |line: &String| line.contains("\"kind\":\"committed\"");
        let place = lines.iter().rposition(committed).unwrap();
        let other = lines[place].replace("\"uid\":0", "\"uid\":7");
        assert_ne!(other, lines[place]);
        lines[place] = other;
        fs::write(self.journal(), lines.join("\n") + "\n").unwrap();
        place + 1
    }

    /// What the sentence about an altered journal tells to do.
    fn move_journal_away(&self) {
        for name in ["journal.jsonl", "journal.head"] {
            let path = self.state().join(name);
            fs::rename(&path, self.state().join(format!("{name}.bad"))).unwrap();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.image.is_some() {
            let _ = self.instance.stop_agent(Signal::SIGKILL);
            let _ = umount2(&self.state(), MntFlags::MNT_DETACH);
        }
    }
}

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

    scene.instance.try_out(&scene.one(), "6s").unwrap();
    scene.fill();
    let over = || (!scene.instance.on_trial()).then_some(());
    until("the deadline", SOON, over).unwrap();
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
    scene.remount(MsFlags::MS_RDONLY);
    scene.start();
    assert_eq!(scene.instance.active(), Some(2));
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

/// ext4 on a loop device; `None` where there is none.
fn ext4(state: &PathBuf) -> Option<PathBuf> {
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
fn device(state: &PathBuf) -> String {
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
    scene.instance.try_out(&scene.both(), "60s").unwrap();
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", device(&scene.state()));
    fs::write(trigger, "1").unwrap();
    let told = scene.instance.expect(&["confirm"], 3).unwrap();
    assert!(told.contains("read-only"), "{told}");
    assert!(scene.instance.on_trial());
    scene.instance.expect(&["revert"], 0).unwrap();
    assert_eq!(scene.instance.active(), Some(2));
    scene.refuses(&["read-only", "dmesg"]);
    scene.forwards();
}
