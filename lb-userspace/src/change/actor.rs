//! Who did it: the caller of a command, as the journal names him.

use std::fs;

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

/// The user and process behind an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Effective user id.
    pub uid: u32,
    /// Name of that user, with the login behind `sudo` or `su` where the kernel
    /// knows it: `root (login alice)`.
    pub user: String,
    /// Process id; 0 if there is no single process (the kernel's deadman).
    pub pid: u32,
    /// The command line, arguments joined by blanks, at most 256 characters.
    pub command: String,
}

/// `loginuid` of a process that no login stands behind.
const NO_LOGIN: u32 = u32::MAX;

impl Actor {
    /// This process.
    pub fn me() -> Self {
        Self::of(std::process::id(), Uid::effective().as_raw())
    }

    /// The process at the other end of a socket, by what `SO_PEERCRED` says.
    /// What can't be read about it (it may be gone) is left empty.
    pub fn of(pid: u32, uid: u32) -> Self {
        let user = match login_of(pid) {
            Some(login) if login != uid => format!("{} (login {})", name_of(uid), name_of(login)),
            _ => name_of(uid),
        };
        Self {
            uid,
            user,
            pid,
            command: command_of(pid),
        }
    }

    /// A user of whom nothing but the number is known; `u32::MAX` is the kernel.
    /// Reads no file.
    pub fn by_uid(uid: u32) -> Self {
        match uid {
            u32::MAX => Self::kernel(),
            uid => Self {
                uid,
                user: format!("uid {uid}"),
                pid: 0,
                command: String::new(),
            },
        }
    }

    /// The kernel itself: deadman, breaker.
    pub fn kernel() -> Self {
        Self {
            uid: 0,
            user: "kernel".to_owned(),
            pid: 0,
            command: String::new(),
        }
    }
}

fn login_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGIN)
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

fn command_of(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw);
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    words.join(" ").chars().map(clean).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_name_a_number_and_a_command() {
        let me = Actor::me();
        assert_eq!(me.pid, std::process::id());
        assert!(!me.user.is_empty());
        assert!(!me.command.is_empty());
    }

    #[test]
    fn a_process_that_is_gone_still_has_its_user() {
        let gone = Actor::of(u32::MAX, 0);
        assert_eq!(gone.user, "root");
        assert_eq!(gone.command, "");
    }
}
