//! What is loaded and pinned.

use super::Check;
use crate::kernel::KernelError;
use crate::kernel::inspect::{Active, active, unfrozen};
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::sys;

/// A timer that ticks every 100 ms and is started anew after 300 ms is broken after this, ms.
const LONGEST_SILENCE: u64 = 1_000;

/// The checks, and what is committed.
pub(super) fn checks(pins: &Pins) -> (Vec<Check>, Option<Active>) {
    if let Some(check) = absent(pins) {
        return (vec![check], None);
    }
    let maps = match Maps::open(pins) {
        Ok(maps) => maps,
        Err(error) => return (vec![unusable(pins, &error)], None),
    };
    let found = format!("{}, of this version's ABI", pins.directory().display());
    let pinned = Check::ok("pins", "Pinned maps and programs", found);
    let checks = vec![pinned, frozen(pins), timer(&maps), generation(&maps)];
    (checks, active(&maps).ok())
}

fn absent(pins: &Pins) -> Option<Check> {
    let (id, title) = ("pins", "Pinned maps and programs");
    if pins.exist() {
        return None;
    }
    Some(match pins.other_abi() {
        Some((path, abi)) => Check::fail(
            id,
            title,
            format!("{} is of another version (ABI {abi})", path.display()),
            "run that version's `lbguard unload`, then start this agent",
        ),
        None => match pins.linked().first() {
            None => Check::fail(
                id,
                title,
                format!(
                    "nothing is loaded ({} is not there)",
                    pins.program("guard").display()
                ),
                "systemctl start lbguard",
            ),
            Some(interface) => Check::fail(
                id,
                title,
                format!(
                    "{interface} forwards, but its guard is gone ({} is not there): nothing can be changed",
                    pins.program("guard").display()
                ),
                "lbguard unload, then start the agent (interrupts forwarding)",
            ),
        },
    })
}

fn unusable(pins: &Pins, error: &KernelError) -> Check {
    Check::fail(
        "pins",
        "Pinned maps and programs",
        format!("{} cannot be used: {error}", pins.directory().display()),
        "lbguard unload, then start the agent (interrupts forwarding)",
    )
}

fn frozen(pins: &Pins) -> Check {
    let (id, title) = ("frozen", "Maps closed to other writers");
    match unfrozen(pins) {
        Ok(names) if names.is_empty() => Check::ok(id, title, "all frozen, but the timer's"),
        Ok(names) => Check::fail(
            id,
            title,
            format!("not frozen: {}: any tool can write them", names.join(", ")),
            "lbguard unload, then start the agent (interrupts forwarding)",
        ),
        Err(error) => Check::skip(id, title, error),
    }
}

fn timer(maps: &Maps) -> Check {
    match maps.control() {
        Ok(control) => {
            // Started a moment ago, it has not had its first tick.
            let last = control.ticked_ns.max(control.started_ns);
            ticking(last, sys::boot_ns(), control.restarts)
        }
        Err(error) => Check::skip("timer", TIMER, error),
    }
}

const TIMER: &str = "Deadman timer in the kernel";

fn ticking(last_ns: u64, now_ns: u64, restarts: u64) -> Check {
    let silent_ms = now_ns.saturating_sub(last_ns) / 1_000_000;
    if last_ns == 0 {
        let fix = "start the agent, which starts it";
        return Check::fail("timer", TIMER, "never started", fix);
    }
    if silent_ms <= LONGEST_SILENCE {
        let found = format!("was alive {silent_ms} ms ago, started anew {restarts} times");
        return Check::ok("timer", TIMER, found);
    }
    Check::fail(
        "timer",
        TIMER,
        format!("silent for {silent_ms} ms: a change on trial would not end by itself"),
        "any packet or any command to the guard starts it again: `lbguard status`",
    )
}

fn generation(maps: &Maps) -> Check {
    let (id, title) = ("generation", "Committed configuration");
    match maps.record() {
        Ok(Some(record)) if record.active_generation > 0 => Check::ok(
            id,
            title,
            format!("generation {}", record.active_generation),
        ),
        Ok(_) => Check::fail(
            id,
            title,
            "none: there are no VIPs, so nothing is forwarded",
            "lbguard apply services.toml -m 'first configuration'",
        ),
        Err(error) => Check::skip(id, title, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_silent_timer_fails() {
        let second = 1_000_000_000;
        assert_eq!(ticking(0, 9 * second, 0).status, Status::Fail);
        assert_eq!(ticking(8 * second, 9 * second, 0).status, Status::Ok);
        assert_eq!(ticking(7 * second, 9 * second, 0).status, Status::Fail);
        // The clock is read after the map.
        assert_eq!(ticking(9 * second, 8 * second, 0).status, Status::Ok);
    }

    #[test]
    fn nothing_loaded_is_one_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (checks, active) = checks(&Pins::new(dir.path()));
        assert_eq!((checks.len(), checks[0].status), (1, Status::Fail));
        assert!(active.is_none());
        std::fs::create_dir(dir.path().join("abi-0")).unwrap();
        assert!(
            super::checks(&Pins::new(dir.path())).0[0]
                .found
                .contains("another version")
        );
    }
}
