//! Changes that do no harm, on the worst of days: the rate drifts, SYN floods come, a server restarts.
//! Both arms suffer alike, and that is no reason to put a change back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_tests::services;
use lb_userspace::lab::{Host, HttpLoop, Lab};

use crate::gate::Load;
use crate::scene::{Scene, Setup, WEB};
use crate::soak::Length;
use crate::table::tell;
use lb_tests::flood::{flood, swallow};

/// New flows a second, without drift and floods.
const RATE: u32 = 1_000;
/// Another table size moves half of the flows to the other server, which is as good.
const SIZES: [u32; 4] = [4_099, 5_003, 6_007, 7_001];
/// A flood, and the time between the beginnings of two.
const FLOOD: Duration = Duration::from_secs(5);
const FLOODS: Duration = Duration::from_secs(20);
/// A server is away for so long, so often.
const AWAY: Duration = Duration::from_millis(500);
const RESTARTS: Duration = Duration::from_secs(11);
const DRIFTS: Duration = Duration::from_secs(3);

/// What goes on beside.
struct Weather<'a> {
    scene: &'a Scene,
    over: AtomicBool,
}

impl Weather<'_> {
    /// Sleeps; false if it is all over.
    fn wait(&self, span: Duration) -> bool {
        let until = Instant::now() + span;
        while Instant::now() < until && !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.over.load(Ordering::Relaxed)
    }

    fn floods(&self) -> u32 {
        let mut floods = 0;
        while self.wait(FLOODS / 4) {
            flood(self.scene.lab.client(), 5 * RATE, FLOOD);
            floods += 1;
            self.wait(FLOODS.saturating_sub(FLOOD + FLOODS / 4));
        }
        floods
    }

    /// Between six and fourteen tenths of the rate, at no two times for the same reason.
    fn drift(&self) {
        let mut random: u32 = 1;
        loop {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let more = (random >> 16) % (RATE * 8 / 10);
            let _more = self.scene.requests(more.max(4), WEB);
            if !self.wait(DRIFTS) {
                return;
            }
        }
    }

    /// A server that somebody restarts again and again.
    fn restarts(&self, server: &Host) -> u32 {
        let configuration = server.directory().join("nginx.conf");
        let words = ["nginx".as_ref(), "-c".as_ref(), configuration.as_os_str()];
        let mut restarts = 0;
        loop {
            let running = server.spawn(&words).unwrap();
            let on = self.wait(RESTARTS);
            drop(running);
            if !on {
                return restarts;
            }
            restarts += 1;
            self.wait(AWAY);
        }
    }
}

/// How the changes ended, and what the weather was.
struct Ends {
    /// How many ended in which way.
    by: BTreeMap<String, usize>,
    /// What was told of those that did not commit.
    told: Vec<String>,
    floods: u32,
    restarts: u32,
}

fn change(scene: &Scene, count: usize) -> (BTreeMap<String, usize>, Vec<String>) {
    let (mut ends, mut told) = (BTreeMap::new(), Vec::new());
    let now = services::shop(&scene.of("web"));
    for number in 1..=count {
        let size = SIZES[number % SIZES.len()];
        let next = now.replace("table_size = 4099", &format!("table_size = {size}"));
        let applied = scene.apply(&next, &["--confirm", "auto"]);
        let end = match applied.code {
            0 => "committed",
            _ => applied.cause(),
        };
        println!(
            "harmless {number}: {end} after {:?}",
            applied.began.elapsed()
        );
        if applied.code != 0 {
            told.push(applied.text());
        }
        *ends.entry(end.to_owned()).or_default() += 1;
        if applied.cause() == "breaker" {
            scene.instance.expect(&["ack"], 0).unwrap();
        }
    }
    (ends, told)
}

fn under_weather(scene: &Scene, count: usize) -> Ends {
    swallow(scene.lab.router());
    let weather = Weather {
        scene,
        over: AtomicBool::new(false),
    };
    let _steady: HttpLoop = scene.requests(RATE * 6 / 10, WEB);
    std::thread::scope(|scope| {
        let floods = scope.spawn(|| weather.floods());
        let restarts = scope.spawn(|| weather.restarts(scene.of("web")[1]));
        scope.spawn(|| weather.drift());
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(scene, count)));
        weather.over.store(true, Ordering::Relaxed);
        let (by, told) = done.unwrap();
        Ends {
            by,
            told,
            floods: floods.join().unwrap(),
            restarts: restarts.join().unwrap(),
        }
    })
}

pub fn harmless_changes(length: Length) {
    let mut scene = Scene::with(Setup {
        load: Load::Heavy,
        builder: Lab::builder().backends("web", 2),
        evidence: "canary = [10]\n",
        first: |scene| services::shop(&scene.of("web")),
        ..Setup::default()
    });
    scene.lab.stop_web("web-2");
    let count = length.runs(3, 300);
    let ends = under_weather(&scene, count);
    let by: Vec<String> = ends
        .by
        .iter()
        .map(|(end, n)| format!("{end} ({n})"))
        .collect();
    tell(
        "harmless",
        &[
            "harmless changes at 1,000/s",
            "floods of 5,000/s",
            "restarts",
            "ends",
        ],
        &[
            count.to_string(),
            ends.floods.to_string(),
            ends.restarts.to_string(),
            by.join(", "),
        ],
    );
    assert_eq!(ends.by["committed"], count, "{}", ends.told.join("\n"));
}

#[test]
fn harmless_changes_commit_through_floods_drift_and_restarts() {
    harmless_changes(Length::Short);
}
