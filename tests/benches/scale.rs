//! How long a change takes with many VIPs: 1,000 of them, each with a pool of 100 backends. Everything
//! between the file and the flip: checks, plan, tables, writing through the guard, reading back.
//! `cargo xtask bench scale`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lb_tests::bench::{AGENT, Bench};
use lb_tests::measure::report::{Aim, Report, round};
use lb_userspace::config::{Config, Policy};
use lb_userspace::kernel::kept::Known;
use lb_userspace::plan::Plan;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

const VIPS: usize = 1_000;
const BACKENDS: usize = 100;
/// Seconds that a change of all of them may take, and one of a single backend.
const ALL: f64 = 2.0;
const ONE: f64 = 0.1;
/// A slot may be written again after its grace period.
const GRACE: Duration = Duration::from_millis(150);

/// services.toml; the first backend of the first pool has this weight.
fn services(table_size: u32, weight: u32) -> String {
    let mut text = String::from("version = 1\n");
    for number in 0..VIPS {
        let (high, low) = (number / 250, number % 250 + 1);
        let _ = write!(
            text,
            "[[vip]]\nname = \"v{number}\"\nservice = \"s\"\naddress = \"203.0.{high}.{low}\"\n\
             port = 80\nprotocol = \"tcp\"\npool = \"p{number}\"\n[[pool]]\nname = \"p{number}\"\n\
             service = \"s\"\nforward = \"ipip\"\ntable_size = {table_size}\n"
        );
        for backend in 1..=BACKENDS {
            let weight = if (number, backend) == (0, 1) {
                weight
            } else {
                100
            };
            let _ = write!(
                text,
                "[[pool.backend]]\nname = \"b{backend}\"\naddress = \"10.{}.{low}.{backend}\"\n\
                 weight = {weight}\n",
                high + 1
            );
        }
    }
    text
}

/// A balancer with room for three generations of it.
fn roomy(table_size: u32) -> Bench {
    let entries = table_size.next_multiple_of(32) * u32::try_from(VIPS).unwrap() * 2 + 1_000_000;
    let agent = AGENT
        .replace("vips = 64", "vips = 1024")
        .replace("pools = 64", "pools = 1024")
        .replace("backends = 2048", "backends = 262000")
        .replace(
            "lookup_entries = 1048576",
            &format!("lookup_entries = {entries}"),
        );
    Bench::by(&agent)
}

/// The parts of a change, in order: time, and time of all CPUs together, which says what another load of
/// the machine has added.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration, Duration)>);

/// Time that this process has had, of all CPUs.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .unwrap()
        .into()
}

impl Times {
    fn of<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let (began, before) = (Instant::now(), spent());
        let done = work();
        self.0
            .push((what, began.elapsed(), spent().saturating_sub(before)));
        done
    }

    /// All but reading the file, which is as long as it is.
    fn sums(&self) -> (Duration, Duration) {
        let parts = self.0.iter().filter(|(part, ..)| *part != "check");
        parts.fold(Default::default(), |sum: (Duration, Duration), part| {
            (sum.0 + part.1, sum.1 + part.2)
        })
    }

    /// Says them; their document.
    fn tell(&self, report: &Report, what: &str, aim: f64) -> Value {
        let parts = self.0.iter();
        let parts = parts.map(|(part, time, cpu)| format!("{part} {time:.1?} ({cpu:.1?})"));
        let parts: Vec<String> = parts.collect();
        let (sum, cpu) = self.sums();
        let (sum, cpu) = (sum.as_secs_f64(), cpu.as_secs_f64());
        let aim = Aim::AtMost(aim);
        report.say(format_args!(
            "  {what:<26} {sum:>7.3} s   {}; {cpu:.3} s of all CPUs",
            aim.told(sum)
        ));
        report.say(format_args!("    {}", parts.join(", ")));
        let mut document = json!({"seconds": aim.json(sum), "cpu_seconds": round(cpu)});
        for (part, time, _) in &self.0 {
            document[format!("{part}_seconds")] = json!(round(time.as_secs_f64()));
        }
        document
    }
}

/// From the file to the flip.
fn change(bench: &Bench, old: &Known, text: &str) -> (Known, Times) {
    let mut times = Times::default();
    let new = times.of("check", || bench.config(text));
    let plan = times.of("plan", || {
        Plan::of(
            &old.config,
            &new,
            bench.active(),
            bench.seed(),
            &Policy::default(),
        )
        .unwrap()
    });
    let digest = plan.config;
    std::thread::sleep(GRACE);
    let image = times.of("tables", || bench.image_after(old, &new, digest));
    let sealed = times.of("stage", || bench.stage(&image).unwrap());
    assert_eq!(plan.class, u32::from(sealed.class));
    times.of("flip", || {
        bench.trial(1).unwrap();
        bench.confirm().unwrap();
    });
    let config = new;
    (Known { config, digest }, times)
}

fn main() -> ExitCode {
    let mut report = Report::new();
    report.say(format_args!(
        "{VIPS} VIPs, each with a pool of {BACKENDS} backends"
    ));
    let nothing = Known {
        config: Config::default(),
        digest: Config::default().digest(),
    };
    for table_size in [4_099, 65_537] {
        let bench = roomy(table_size);
        report.say(format_args!(" tables of {table_size} entries"));
        let (first, all) = change(&bench, &nothing, &services(table_size, 100));
        let all = all.tell(&report, "all of them come", ALL);
        let (second, one) = change(&bench, &first, &services(table_size, 200));
        let one = one.tell(&report, "one backend's weight", ONE);
        let (_, back) = change(&bench, &second, &services(table_size, 100));
        let back = back.tell(&report, "the same again", ONE);
        report.put(
            &format!("tables_of_{table_size}"),
            json!({"all": all, "one": one, "back": back}),
        );
    }
    report.finish()
}
