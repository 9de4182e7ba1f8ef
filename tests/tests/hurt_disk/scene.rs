//! A balancer whose state directory can be hurt, under requests that must not notice.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_tests::services;
use lb_userspace::change::journal;
use lb_userspace::lab::{Host, HttpLoop, HttpOptions, Instance, Lab, Outcome, Request, VIP_V4};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;

pub const SOON: Duration = Duration::from_secs(20);
pub const NOTHING: Option<&str> = None;

/// A lab with the state directory on a disk of its own, and requests that must not notice anything.
pub struct Scene {
    pub lab: Lab,
    pub instance: Instance,
    requests: Option<HttpLoop>,
    pub image: Option<PathBuf>,
}

impl Scene {
    /// On a tmpfs of half a megabyte, with generations 1 (both backends) and 2 (the first).
    pub fn new() -> Self {
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

    pub fn on(disk: impl FnOnce(&Path) -> Option<PathBuf>) -> Self {
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

    pub fn watch(&mut self) {
        let options = HttpOptions {
            rate: 50,
            ..HttpOptions::default()
        };
        let vip = SocketAddr::new(VIP_V4.into(), 80);
        self.requests = Some(self.lab.client().http_loop(vip, &options).unwrap());
        self.forwards();
    }

    /// More requests have been answered, and none has failed.
    pub fn forwards(&self) {
        let requests = self.requests.as_ref().unwrap();
        requests.wait(20, SOON).unwrap();
        let failed = |request: &Request| match &request.outcome {
            Outcome::Failed(why) => Some((why.clone(), request.latency)),
            Outcome::Ok { .. } => None,
        };
        let failed: Vec<_> = requests.requests().iter().filter_map(failed).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    pub fn hosts(&self) -> Vec<&Host> {
        self.lab.backends().collect()
    }

    pub fn both(&self) -> String {
        services::shop(&self.hosts())
    }

    pub fn one(&self) -> String {
        services::shop(&self.hosts()[..1])
    }

    pub fn state(&self) -> PathBuf {
        self.lab.root().join("var/lib/lbguard")
    }

    pub fn journal(&self) -> PathBuf {
        self.state().join("journal.jsonl")
    }

    /// Not a byte is left, not even behind the journal's end.
    pub fn fill(&self) {
        loop {
            if self.instance.agent().is_some() {
                self.fill_last_page();
            }
            let before = self.journal_length();
            let mut left = fs::File::create(self.state().join("filler")).unwrap();
            let block = [0u8; 512];
            while std::io::Write::write_all(&mut left, &block).is_ok() {}
            // A record that was written meanwhile may have got a page of its own, with room in it.
            if self.journal_length() == before {
                return;
            }
            self.make_room();
        }
    }

    fn journal_length(&self) -> u64 {
        fs::metadata(self.journal()).unwrap().len()
    }

    /// Less of the journal's last page is left than the shortest record takes.
    pub fn fill_last_page(&self) {
        let length = || self.journal_length();
        loop {
            let before = length();
            self.instance.expect(&["freeze", "off"], 0).unwrap();
            let record = length() - before;
            if 4096 - length() % 4096 < record {
                return;
            }
        }
    }

    pub fn make_room(&self) {
        fs::remove_file(self.state().join("filler")).unwrap();
    }

    pub fn remount(&self, flags: MsFlags) {
        let flags = MsFlags::MS_REMOUNT | flags;
        mount(NOTHING, &self.state(), NOTHING, flags, NOTHING).unwrap();
    }

    pub fn stop(&mut self) {
        self.instance.stop_agent(Signal::SIGKILL).unwrap();
    }

    /// The agent dies and the pins go, as in a reboot; nothing is forwarded until a new one runs.
    pub fn reboot(&mut self) {
        self.stop();
        self.requests = None;
        self.instance.expect(&["unload", "--yes"], 0).unwrap();
    }

    pub fn start(&mut self) {
        self.instance.start_agent().unwrap();
    }

    pub fn warnings(&self) -> String {
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

    pub fn apply(&self, services: &str, exit: i32) -> String {
        let file = self.instance.write("next.toml", services).unwrap();
        let file = file.to_string_lossy().into_owned();
        let words = ["apply", &file, "-m", "hurt", "--detach"];
        self.instance.expect(&words, exit).unwrap()
    }

    /// A change is refused before it begins, with a sentence that has all of `words`.
    pub fn refuses(&self, words: &[&str]) {
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
    pub fn accepts(&self) {
        self.apply(&self.both(), 0);
        self.instance.expect(&["confirm"], 0).unwrap();
        assert_eq!(self.warnings(), "");
        self.whole();
    }

    pub fn whole(&self) {
        let report = journal::verify(&self.journal()).unwrap();
        assert_eq!((report.first_bad, report.torn), (None, None));
        self.instance.expect(&["history"], 0).unwrap();
    }

    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.journal()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Alters who committed last; the number of that line.
    pub fn alter(&self) -> usize {
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
    pub fn move_journal_away(&self) {
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
