//! A program that runs in a host of the lab, and its output.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Context as _, LabError, show, until};

/// A running program. Dropping it kills the program and waits for its end.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` from the calling thread's namespace, its output going to a file in
    /// `directory`.
    pub(super) fn start(command: &mut Command, directory: &Path) -> Result<Self, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(command.get_program()).file_name();
        let program = program.unwrap_or_default().to_string_lossy().into_owned();
        let log = directory.join(format!("{program}-{number}.log"));
        let shown = show(command);
        let file = File::create(&log).context(|| log.display().to_string())?;
        let copy = file.try_clone().context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .context(|| shown.clone())?;
        Ok(Self {
            child,
            command: shown,
            log,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, standard output and error together.
    pub fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`LabError::Io`] when it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        kill(pid, signal).context(|| format!("{signal} to `{}`", self.command))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// [`LabError::Io`] when the kernel does not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().context(|| self.command.clone())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what it wrote, when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("`{}` has ended", self.command);
        let ended = until(&what, limit, || self.try_wait().transpose());
        ended.map_err(|error| self.with_log(error))?
    }

    /// Waits until it has written `text`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what it wrote instead.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<(), LabError> {
        let what = format!("`{}` has written {text:?}", self.command);
        let seen = until(&what, limit, || self.log().contains(text).then_some(()));
        seen.map_err(|error| self.with_log(error))
    }

    pub(super) fn with_log(&self, error: LabError) -> LabError {
        match error {
            LabError::Timeout { what, after } => LabError::Timeout {
                what: format!("{what}; its output: {}", self.log().trim()),
                after,
            },
            other => other,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
