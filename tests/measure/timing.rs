//! Sums over rounds, and where they are measured.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 0) => (sorted[middle - 1] + upper) / 2.0,
        (Some(only), _) => *only,
    }
}

/// The median of what each round's value is above, or against, another's of the same round.
pub fn paired(values: &[f64], others: &[f64], by: impl Fn(f64, f64) -> f64) -> f64 {
    let pairs = values.iter().zip(others).map(|(a, b)| by(*a, *b));
    median(&pairs.collect::<Vec<_>>())
}

/// Keeps this thread on the last CPU of those that it may be on: what interrupts a machine tends to be
/// on the first. Traffic is made by CPU, so that a thread that moves would make some of it twice.
pub fn stay_on_one_cpu() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("this thread's CPUs");
    let last = (0..CpuSet::count()).rfind(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    stay_on(last.expect("a CPU"));
}

/// Keeps this thread on a CPU.
pub fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("a CPU that this thread may be on");
}
