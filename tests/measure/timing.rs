//! Sums over rounds.

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

/// Keeps this thread on the last CPU: what interrupts a machine tends to be on the first.
pub fn stay_on_one_cpu() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    stay_on(cpus - 1);
}

/// Keeps this thread on a CPU, if it may be there.
pub fn stay_on(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}
