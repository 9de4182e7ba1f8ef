//! How long the kernel's tick is. It is not told, so it is measured: once, before the first `Start`, since
//! from then on the timer's patience and the clock of followed flows go by it.

use std::time::Duration;

use lb_common::guard::Op;

use super::KernelError;
use super::object::Kernel;

/// Jiffies in 0.3 s.
pub(super) fn patience(kernel: &Kernel) -> Result<u64, KernelError> {
    const ATTEMPTS: usize = 8;
    let known = kernel.maps.control()?.patience;
    if known != 0 {
        return Ok(known);
    }
    let mut rate = nearest_rate(0);
    for _ in 0..ATTEMPTS {
        let measured = measured_rate(kernel)?;
        rate = nearest_rate(measured);
        if is_near(measured, rate) {
            break;
        }
    }
    Ok(rate * 3 / 10)
}

/// Jiffies a second, from one jiffy's begin to another's.
fn measured_rate(kernel: &Kernel) -> Result<u64, KernelError> {
    const WAIT: Duration = Duration::from_millis(50);
    let [began_ns, first] = next_jiffy(kernel)?;
    std::thread::sleep(WAIT);
    let [ended_ns, last] = next_jiffy(kernel)?;
    let elapsed_ns = ended_ns.saturating_sub(began_ns).max(1);
    Ok(last.saturating_sub(first).saturating_mul(1_000_000_000) / elapsed_ns)
}

/// Boot-clock ns and number of the jiffy that begins next.
fn next_jiffy(kernel: &Kernel) -> Result<[u64; 2], KernelError> {
    // A jiffy is 10 ms at most.
    const LOOKS: usize = 1_000;
    const PAUSE: Duration = Duration::from_micros(50);
    let look = || -> Result<[u64; 2], KernelError> {
        let [now_ns, jiffies, ..] = kernel.guard.call(Op::Clock, 0, &[], &[])?;
        Ok([now_ns, jiffies])
    };
    let mut seen = look()?;
    for _ in 0..LOOKS {
        let next = look()?;
        if next[1] != seen[1] {
            return Ok(next);
        }
        seen = next;
        std::thread::sleep(PAUSE);
    }
    Ok(seen)
}

/// `CONFIG_HZ` is one of these.
fn nearest_rate(measured: u64) -> u64 {
    let rates = [100, 250, 300, 1000].into_iter();
    rates
        .min_by_key(|rate| measured.abs_diff(*rate))
        .unwrap_or(250)
}

/// Whether a measured rate is one: else the machine was busy with something else meanwhile, and 250 and 300
/// lie near each other.
const fn is_near(measured: u64, rate: u64) -> bool {
    measured.abs_diff(rate).saturating_mul(25) <= rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_a_rate_or_is_measured_again() {
        for rate in [100, 250, 300, 1000] {
            for measured in [rate - rate / 50, rate, rate + rate / 50] {
                assert_eq!(nearest_rate(measured), rate);
                assert!(is_near(measured, rate));
            }
        }
        // One tick of thirteen late, or missed.
        for measured in [231, 270] {
            assert!(!is_near(measured, nearest_rate(measured)), "{measured}");
        }
    }
}
