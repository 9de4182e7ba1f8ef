//! The name of a lab, which tells whether its process still lives.

use std::fmt;
use std::fs;
use std::process;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// `lbg-<pid>-<start of the process>-<number>`: process numbers are used again, start times are
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LabId {
    pid: u32,
    started: u64,
    number: u32,
}

impl LabId {
    /// A new one of this process.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = process::id();
        Self {
            pid,
            started: started(pid).unwrap_or_default(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The id at the start of a namespace's or directory's name.
    pub(super) fn at_start_of(name: &str) -> Option<Self> {
        let mut parts = name.splitn(5, '-');
        let mut next = || parts.next();
        let id = [next()?, next()?, next()?, next()?].join("-");
        id.parse().ok()
    }

    /// True while the process that made the lab runs.
    pub(super) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// The full name of one of its hosts.
    pub(super) fn host(self, host: &str) -> String {
        format!("{self}-{host}")
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lbg-{}-{:x}-{}", self.pid, self.started, self.number)
    }
}

impl FromStr for LabId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('-').collect();
        let ["lbg", pid, started, number] = parts.as_slice() else {
            return Err(());
        };
        Ok(Self {
            pid: pid.parse().map_err(|_| ())?,
            started: u64::from_str_radix(started, 16).map_err(|_| ())?,
            number: number.parse().map_err(|_| ())?,
        })
    }
}

/// When a process started, in clock ticks since boot: field 22 of proc(5) stat. The second field,
/// its name in brackets, may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_id_is_alive_and_survives_its_text() {
        let id = LabId::new();
        assert!(id.is_alive());
        assert_eq!(LabId::at_start_of(&id.host("web-1")), Some(id));
        assert_eq!(LabId::at_start_of(&id.to_string()), Some(id));
        assert_ne!(LabId::new(), id);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let id = LabId {
            started: LabId::new().started.wrapping_add(1),
            ..LabId::new()
        };
        assert!(!id.is_alive());
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in ["lbg", "lbg-1", "lbg-x-1-1", "lbg-1-2-x", "cni-1-2-3", ""] {
            assert_eq!(LabId::at_start_of(name), None, "{name}");
        }
    }
}
