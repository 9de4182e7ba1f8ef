//! Running programs: as ourselves, as root, and not for longer than a given time.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The root of the repository.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The cargo that runs us: rustup's own, whatever else is on the path.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from(env!("CARGO")), PathBuf::from)
}

/// The compiler that belongs to [`cargo`], or the one on the path.
pub fn rustc() -> PathBuf {
    let sibling = cargo().with_file_name("rustc");
    if sibling.is_file() {
        sibling
    } else {
        PathBuf::from("rustc")
    }
}

/// The host's target triple.
///
/// # Errors
/// If the compiler does not say.
pub fn host() -> Result<String> {
    let told = output(Command::new(rustc()).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

/// A cargo command at the root of the repository.
pub fn cargo_command(subcommand: &str) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(workspace()).arg(subcommand);
    command
}

/// Runs `command` with our own output and without input.
///
/// # Errors
/// Names the command when it does not start or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| shown.clone())?;
    if status.success() {
        Ok(())
    } else {
        bail!("`{shown}` failed ({status})")
    }
}

/// The standard output of `command`.
///
/// # Errors
/// Names the command and repeats its standard error when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| shown.clone())?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True when `command` ends well, and within `limit`; it is killed at the limit.
pub fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    let Ok(mut child) = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if started.elapsed() < limit => thread::sleep(Duration::from_millis(20)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

/// The first file of this name on the path, sbin directories included.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// How a command is run as root from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// We are root.
    Already,
    /// By sudo, which asks for no password.
    Sudo,
    /// Not at all.
    No,
}

impl Root {
    /// Finds out.
    pub fn find() -> Self {
        if output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
            return Self::Already;
        }
        let limit = Duration::from_secs(5);
        if succeeds_within(Command::new("sudo").args(["-n", "true"]), limit) {
            return Self::Sudo;
        }
        Self::No
    }

    /// `program` as root; none if that can't be.
    pub fn command(self, program: &str) -> Option<Command> {
        match self {
            Self::Already => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", program]);
                Some(command)
            }
            Self::No => None,
        }
    }
}

/// The command as one would type it.
fn show(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
