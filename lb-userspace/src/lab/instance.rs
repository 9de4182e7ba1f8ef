//! lbguard itself, run in the lab's balancer: the very binary, by its command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::build::Lab;
use super::error::{Context as _, LabError, until};
use super::host::Host;
use super::process::Process;

/// How long a command of lbguard may take to show an effect.
const SOON: Duration = Duration::from_secs(20);

/// The balancer of a lab with lbguard in it.
#[derive(Debug)]
pub struct Instance {
    host: Host,
    root: PathBuf,
    binary: PathBuf,
    agent: Option<Process>,
}

/// Names that the binary has: its own, and that of the copy which the end-to-end tests build.
const NAMES: [&str; 2] = ["lbguard", "lbguard-under-test"];

/// The lbguard beside the running program: `LBGUARD_BIN`, or the newest in the directory that cargo
/// builds to.
///
/// # Errors
/// If there is none: `cargo build -p lb-userspace` makes it.
pub fn binary() -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os("LBGUARD_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context(|| "find the running program".to_owned())?;
    this.ancestors()
        .skip(1)
        .take(3)
        .flat_map(|directory| NAMES.map(|name| directory.join(name)))
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
        .context(|| "no lbguard beside this program (`cargo build -p lb-userspace`)".to_owned())
}

impl Instance {
    /// lbguard in the balancer of `lab`, not yet running.
    ///
    /// # Errors
    /// As [`binary`].
    pub fn new(lab: &Lab) -> Result<Self, LabError> {
        Ok(Self {
            host: lab.balancer().clone(),
            root: lab.root().to_owned(),
            binary: binary()?,
            agent: None,
        })
    }

    /// A command line of lbguard for this instance.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).args(words);
        command
    }

    /// Runs a command to its end, whatever its exit code.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn output(&self, words: &[&str]) -> Result<Output, LabError> {
        let mut command = self.command(words);
        self.host
            .in_ns(move || command.output())?
            .context(|| format!("lbguard {}", words.join(" ")))
    }

    /// Runs a command; its exit code and everything it printed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<(i32, String), LabError> {
        let output = self.output(words)?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().unwrap_or(-1), text))
    }

    /// Starts a command and leaves it running.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, words: &[&str]) -> Result<Process, LabError> {
        self.host.spawn_command(&mut self.command(words))
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Errors
    /// If it ends or stays silent; the error holds what it printed.
    pub fn start_agent(&mut self) -> Result<(), LabError> {
        let mut agent = self.spawn(&["agent"])?;
        let ready = until("the agent", SOON, || {
            if !matches!(agent.try_wait(), Ok(None)) {
                return Some(false);
            }
            self.agent_status().map(|_| true)
        })?;
        if !ready {
            let log = agent.log();
            return Err(std::io::Error::other(log)).context(|| "the agent ended".to_owned());
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// The agent's process.
    pub fn agent(&self) -> Option<&Process> {
        self.agent.as_ref()
    }

    /// Ends the agent by a signal and waits until it is gone.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop_agent(&mut self, signal: Signal) -> Result<(), LabError> {
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        agent.signal(signal)?;
        agent.wait(SOON).map(drop)
    }

    /// `lbguard status --json`, if it works.
    pub fn status(&self) -> Option<Value> {
        let output = self.output(&["status", "--json"]).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    fn agent_status(&self) -> Option<Value> {
        self.status()?
            .get("agent")
            .filter(|agent| !agent.is_null())
            .cloned()
    }

    /// Generation in ACTIVE, by the pins.
    pub fn active(&self) -> Option<u64> {
        self.status()?
            .pointer("/kernel/active/generation")?
            .as_u64()
    }

    /// Whether a trial lives, by the pins.
    pub fn on_trial(&self) -> bool {
        self.status().is_some_and(|status| {
            status
                .pointer("/kernel/trial")
                .is_some_and(|trial| !trial.is_null())
        })
    }

    /// Writes a services.toml of this name beside agent.toml.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, services: &str) -> Result<PathBuf, LabError> {
        let path = self.root.join("etc/lbguard").join(name);
        std::fs::write(&path, services).context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Puts a configuration on trial and leaves it there.
    ///
    /// # Errors
    /// If it is not on trial afterwards; the error holds what was printed.
    pub fn try_out(&self, services: &str, within: &str) -> Result<(), LabError> {
        let file = self.write("trial.toml", services)?;
        let file = file.to_string_lossy();
        let words = [
            "apply",
            &file,
            "-m",
            "lab",
            "--detach",
            "--confirm-within",
            within,
        ];
        self.expect(&words, 0).map(drop)
    }

    /// Applies and commits a configuration.
    ///
    /// # Errors
    /// If it is refused; the error holds what was printed.
    pub fn commit(&self, services: &str) -> Result<(), LabError> {
        self.try_out(services, "60s")?;
        self.expect(&["confirm"], 0).map(drop)
    }

    /// Runs a command that must end with this exit code; what it printed.
    ///
    /// # Errors
    /// Another exit code.
    pub fn expect(&self, words: &[&str], code: i32) -> Result<String, LabError> {
        let (found, text) = self.run(words)?;
        if found == code {
            return Ok(text);
        }
        let told = format!(
            "lbguard {} exits {found}, not {code}: {text}",
            words.join(" ")
        );
        Err(std::io::Error::other(told)).context(|| "an unexpected end".to_owned())
    }

    /// Where everything of this instance lies.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
