//! What is asked of the kernel itself, before the tests.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use lb_common::control::{Cause, SHARE_ALL, control_flag};
use lb_tests::bench::{Bench, shop};
use lb_tests::bpf;
use lb_tests::bpffs::Bpffs;
use lb_userspace::kernel::inspect::Feature;
use lb_userspace::sys::boot_ns;

/// A check: its name, and what it finds.
pub type Check = (&'static str, fn() -> Result<String, String>);

/// In this order.
pub const ALL: [Check; 4] = [
    ("kernel", kernel),
    ("features", features),
    ("load", load),
    ("deadman", deadman),
];

/// Lateness of the deadman that the README promises, ns.
const LATE_NS: u64 = 200_000_000;

fn kernel() -> Result<String, String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let text = |name| read(name).map_err(|e| e.to_string());
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    let (release, jit) = (text("osrelease")?, jit.trim());
    Ok(format!("Linux {}, BPF JIT {jit}", release.trim()))
}

/// Everything that lbguard itself asks for (`lbguard doctor` asks the same).
fn features() -> Result<String, String> {
    let mut lacking = Vec::new();
    for feature in Feature::ALL {
        if !feature.is_there().map_err(|e| e.to_string())? {
            lacking.push(feature.name());
        }
    }
    if lacking.is_empty() {
        let names = Feature::ALL.map(Feature::name);
        Ok(names.join(", "))
    } else {
        Err(format!("this kernel lacks {}", lacking.join(", ")))
    }
}

/// Instructions that the verifier may walk for a program. It gives up at a million; older kernels
/// walk two to three times as many as the one of `tests/tests/verifier.rs`, which has the limit that
/// counts from day to day.
const WALKED: u32 = 800_000;

/// The verifier takes the programs, and how much it walks for each.
fn load() -> Result<String, String> {
    let bpffs = Bpffs::new();
    let begun = Instant::now();
    drop(Bench::pinned(&bpffs.pins()));
    let seconds = begun.elapsed().as_secs_f64();
    let walked = ["lb", "guard"].map(|name| {
        let program = bpf::open_pin(&bpffs.pins().program(name), 0).unwrap();
        (name, bpf::fact(&program, "verified_insns"))
    });
    let told = walked.map(|(name, number)| format!("{name} {number}"));
    let told = format!(
        "pinned in {seconds:.1} s; instructions verified: {}",
        told.join(", ")
    );
    if walked.iter().all(|(_, number)| *number < WALKED) {
        Ok(told)
    } else {
        Err(format!("{told}; at most {WALKED} each"))
    }
}

/// A trial of one second, no packet, no call of the guard.
fn deadman() -> Result<String, String> {
    let bench = Bench::new();
    bench.commit(&shop(4));
    bench.stage(&bench.image(&shop(3))).unwrap();
    let trial = bench.trial_of(u64::from(SHARE_ALL), 2, 60_000, 1_000);
    trial.map_err(|e| e.to_string())?;
    let due = bench.record().deadline_ns;
    let record = loop {
        let record = bench.record();
        if record.flags & control_flag::TRIAL == 0 {
            break record;
        }
        if boot_ns() > due + 10 * LATE_NS {
            return Err("the trial does not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let late = i128::from(record.ended_ns) - i128::from(due);
    let told = format!("ended {} us after its deadline of 1 s", late / 1_000);
    let at_its_deadline =
        Cause::from_code(record.cause) == Cause::Deadline && record.active_generation == 1;
    if at_its_deadline && (0..=i128::from(LATE_NS)).contains(&late) {
        Ok(told)
    } else {
        Err(format!("{told}; {record:?}"))
    }
}

/// The kernel has warned of nothing: no "suspicious", no stall, no bug.
pub fn no_complaint() -> Result<String, String> {
    const SIGNS: [&str; 7] = [
        "BUG",
        "WARNING",
        "Oops",
        "stall",
        "lockup",
        "hung",
        "suspicious",
    ];
    let taint = fs::read_to_string("/proc/sys/kernel/tainted").map_err(|e| e.to_string())?;
    let log = log();
    let complaints: Vec<&str> = log
        .lines()
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .collect();
    if taint.trim() == "0" && complaints.is_empty() {
        return Ok("no warning, not tainted".to_owned());
    }
    println!("{log}");
    let first = complaints.first().copied().unwrap_or_default();
    Err(format!("tainted {}: {first}", taint.trim()))
}

/// The kernel's messages so far.
fn log() -> String {
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK);
    let Ok(mut file) = file.open("/dev/kmsg") else {
        return "no /dev/kmsg\n".to_owned();
    };
    let mut text = String::new();
    // One record a read, the last one ends with EAGAIN.
    let mut record = [0; 8192];
    while let Ok(length) = file.read(&mut record) {
        text.push_str(&String::from_utf8_lossy(&record[..length]));
    }
    text
}
