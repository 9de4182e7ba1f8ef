//! Packets as they pass an interface, by tcpdump.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::{LabError, run};
use super::host::Host;
use super::process::Process;

/// A running capture; dropping it stops it.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Host {
    /// Captures on an interface of this host what matches a pcap filter (empty: all). The
    /// capture has begun when this returns.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with tcpdump's message, for instance for a bad filter.
    pub fn capture(&self, interface: &str, filter: &str) -> Result<Capture, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = self.directory().join(format!("capture-{number}.pcap"));
        let mut command = Command::new("tcpdump");
        command.args([
            "-i",
            interface,
            "-n",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(&file).arg(filter);
        let tcpdump = self.spawn_command(&mut command)?;
        tcpdump.wait_for_log("listening on", Duration::from_secs(5))?;
        Ok(Capture { tcpdump, file })
    }
}

impl Capture {
    /// What has been captured so far, one line a packet, with link-layer addresses.
    ///
    /// # Errors
    /// [`LabError::Command`] when tcpdump can't read the file.
    pub fn lines(&self) -> Result<Vec<String>, LabError> {
        let mut command = Command::new("tcpdump");
        command
            .args(["-e", "-n", "-Z", "root", "-r"])
            .arg(&self.file);
        let output = run(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }

    /// The file, in pcap format.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends the capture; every packet that tcpdump has seen is in the file then.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when tcpdump does not end.
    pub fn stop(mut self) -> Result<PathBuf, LabError> {
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(Duration::from_secs(5))?;
        Ok(self.file.clone())
    }
}
