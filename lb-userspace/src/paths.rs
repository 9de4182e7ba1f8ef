//! Where things are: the four roots of an instance, and every path below them.
//!
//! | root | default | holds |
//! |---|---|---|
//! | config | `/etc/lbguard` | agent.toml, policy.toml, services.toml |
//! | state | `/var/lib/lbguard` | journal, generations; survives a reboot |
//! | run | `/run/lbguard` | socket, lock |
//! | pins | `/sys/fs/bpf/lbguard` | the kernel's maps and programs |
//!
//! `--root DIR` puts `DIR` before all four, so that many instances run side by
//! side. A single root may be moved by a flag, or by agent.toml; a flag wins.
//! What agent.toml or a flag names is taken as written, not below `--root`.

use std::path::{Path, PathBuf};

/// The four roots of one instance of lbguard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    config: PathBuf,
    state: PathBuf,
    run: PathBuf,
    pins: PathBuf,
    socket: Option<PathBuf>,
}

/// Roots that were named one by one. `None` leaves the root where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Directory of agent.toml, policy.toml and services.toml.
    pub config_dir: Option<PathBuf>,
    /// Directory of the journal and the generations.
    pub state_dir: Option<PathBuf>,
    /// Directory of the socket and the lock.
    pub run_dir: Option<PathBuf>,
    /// Directory of the pins, on a BPF file system.
    pub pin_dir: Option<PathBuf>,
    /// The agent's Unix socket, when it is not in the run directory.
    pub socket: Option<PathBuf>,
}

/// A path that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Relative paths would mean another place for each caller's directory.
    #[error("{what} = \"{}\" is relative: give the full path, from /", path.display())]
    Relative {
        /// Which setting.
        what: &'static str,
        /// What it says.
        path: PathBuf,
    },
}

impl Default for Paths {
    fn default() -> Self {
        Self::under(Path::new("/"))
    }
}

impl Paths {
    /// All four roots below `root`; `/` gives the defaults.
    pub fn under(root: &Path) -> Self {
        Self {
            config: root.join("etc/lbguard"),
            state: root.join("var/lib/lbguard"),
            run: root.join("run/lbguard"),
            pins: root.join("sys/fs/bpf/lbguard"),
            socket: None,
        }
    }

    /// These paths with single roots moved.
    ///
    /// Apply agent.toml's first and the command line's after it: the last wins.
    ///
    /// # Errors
    ///
    /// [`PathError::Relative`] for a path that does not start with `/`.
    pub fn with(mut self, moved: &Overrides) -> Result<Self, PathError> {
        replace(&mut self.config, "config_dir", moved.config_dir.as_deref())?;
        replace(&mut self.state, "state_dir", moved.state_dir.as_deref())?;
        replace(&mut self.run, "run_dir", moved.run_dir.as_deref())?;
        replace(&mut self.pins, "pin_dir", moved.pin_dir.as_deref())?;
        if let Some(socket) = moved.socket.as_deref() {
            let mut place = PathBuf::new();
            replace(&mut place, "socket", Some(socket))?;
            self.socket = Some(place);
        }
        Ok(self)
    }

    /// Directory of agent.toml, policy.toml and services.toml.
    pub fn config_dir(&self) -> &Path {
        &self.config
    }

    /// Directory of the journal and the generations.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Directory of the socket and the lock.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Directory of the pins; the ABI number's directory is below it.
    pub fn pin_dir(&self) -> &Path {
        &self.pins
    }

    /// The node's own settings.
    pub fn agent_toml(&self) -> PathBuf {
        self.config.join("agent.toml")
    }

    /// The limits that every change is held to.
    pub fn policy_toml(&self) -> PathBuf {
        self.config.join("policy.toml")
    }

    /// The change-managed file, where an operator edits it.
    pub fn services_toml(&self) -> PathBuf {
        self.config.join("services.toml")
    }

    /// The append-only log of everything that was done.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.jsonl")
    }

    /// One directory a generation.
    pub fn generations(&self) -> PathBuf {
        self.state.join("generations")
    }

    /// The agent's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.run.join("agent.sock"))
    }

    /// Held by the one agent of this instance.
    pub fn lock(&self) -> PathBuf {
        self.run.join("agent.lock")
    }
}

fn replace(place: &mut PathBuf, what: &'static str, by: Option<&Path>) -> Result<(), PathError> {
    let Some(path) = by else { return Ok(()) };
    if path.is_relative() {
        return Err(PathError::Relative {
            what,
            path: path.to_path_buf(),
        });
    }
    *place = path.to_path_buf();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_documented_places() {
        let paths = Paths::default();
        assert_eq!(paths.agent_toml(), Path::new("/etc/lbguard/agent.toml"));
        assert_eq!(paths.policy_toml(), Path::new("/etc/lbguard/policy.toml"));
        assert_eq!(
            paths.services_toml(),
            Path::new("/etc/lbguard/services.toml")
        );
        assert_eq!(paths.journal(), Path::new("/var/lib/lbguard/journal.jsonl"));
        assert_eq!(
            paths.generations(),
            Path::new("/var/lib/lbguard/generations")
        );
        assert_eq!(paths.socket(), Path::new("/run/lbguard/agent.sock"));
        assert_eq!(paths.lock(), Path::new("/run/lbguard/agent.lock"));
        assert_eq!(paths.pin_dir(), Path::new("/sys/fs/bpf/lbguard"));
    }

    #[test]
    fn a_root_moves_all_four() {
        let paths = Paths::under(Path::new("/tmp/a"));
        for dir in [
            paths.config_dir(),
            paths.state_dir(),
            paths.run_dir(),
            paths.pin_dir(),
        ] {
            assert!(dir.starts_with("/tmp/a"), "{}", dir.display());
        }
    }

    #[test]
    fn one_root_moves_alone_and_the_last_word_wins() {
        let file = Overrides {
            state_dir: Some("/data/lb".into()),
            ..Overrides::default()
        };
        let flag = Overrides {
            state_dir: Some("/flag".into()),
            ..Overrides::default()
        };
        let paths = Paths::under(Path::new("/r")).with(&file).unwrap();
        assert_eq!(paths.journal(), Path::new("/data/lb/journal.jsonl"));
        assert_eq!(paths.run_dir(), Path::new("/r/run/lbguard"));
        assert_eq!(paths.with(&flag).unwrap().state_dir(), Path::new("/flag"));
    }

    #[test]
    fn the_socket_follows_the_run_directory_unless_named() {
        let run = Overrides {
            run_dir: Some("/run/b".into()),
            ..Overrides::default()
        };
        let paths = Paths::default().with(&run).unwrap();
        assert_eq!(paths.socket(), Path::new("/run/b/agent.sock"));
        let named = Overrides {
            socket: Some("/x.sock".into()),
            ..Overrides::default()
        };
        assert_eq!(paths.with(&named).unwrap().socket(), Path::new("/x.sock"));
    }

    #[test]
    fn a_relative_path_is_refused_with_its_name() {
        let moved = Overrides {
            pin_dir: Some("pins".into()),
            ..Overrides::default()
        };
        let error = Paths::default().with(&moved).unwrap_err().to_string();
        assert!(error.contains("pin_dir = \"pins\""), "{error}");
    }
}
