//! Whether an agent runs: by its socket, and by its lock without taking it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use super::Check;
use crate::paths::Paths;

/// How the agent of these paths was seen; `None` if there is none.
pub fn running(paths: &Paths) -> Option<String> {
    let socket = paths.socket();
    if UnixStream::connect(&socket).is_ok() {
        return Some(format!("listens on {}", socket.display()));
    }
    let lock = fs::metadata(paths.lock()).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holder = holder(&locks, lock.dev(), lock.ino())?;
    Some(format!("{holder} holds {}", paths.lock().display()))
}

/// Who holds a lock on a file, by `/proc/locks`; some kinds of locks have no process.
fn holder(locks: &str, device: u64, inode: u64) -> Option<String> {
    let place = format!(
        "{:02x}:{:02x}:{inode}",
        libc::major(device),
        libc::minor(device)
    );
    locks.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; waiters have "->" after the number.
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == place)?;
        if words.contains(&"->") {
            return None;
        }
        let pid = at
            .checked_sub(1)
            .and_then(|at| words.get(at)?.parse::<u32>().ok());
        Some(pid.map_or("a process".to_owned(), |pid| format!("process {pid}")))
    })
}

pub(super) fn check(paths: &Paths) -> Check {
    match running(paths) {
        Some(found) => Check::ok("agent", "Agent", found),
        None => Check::warn(
            "agent",
            "Agent",
            format!(
                "none is running (nobody answers on {}): what is committed is forwarded on, but \
                 backends that fail are not noticed and nothing can be changed",
                paths.socket().display()
            ),
            "systemctl start lbguard",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 10 08:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 42 00:1a:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 00:1a:79 0 EOF\n\
                     3: OFDLCK ADVISORY  WRITE -1 00:1a:80 0 EOF\n";
        let device = libc::makedev(0, 0x1a);
        assert_eq!(holder(locks, device, 78), Some("process 42".to_owned()));
        assert_eq!(holder(locks, device, 77), None, "another device");
        assert_eq!(holder(locks, device, 79), None, "only waits");
        assert_eq!(holder(locks, device, 80), Some("a process".to_owned()));
    }

    #[test]
    fn a_held_lock_is_seen_and_a_free_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(dir.path());
        fs::create_dir_all(paths.run_dir()).unwrap();
        let file = fs::File::create(paths.lock()).unwrap();
        assert_eq!(running(&paths), None);
        file.try_lock().unwrap();
        let found = running(&paths).unwrap();
        assert!(found.contains("agent.lock"), "{found}");
        file.unlock().unwrap();
        assert_eq!(running(&paths), None);
    }
}
