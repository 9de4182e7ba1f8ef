//! One host of a lab: a network namespace with a name and addresses.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::error::{Context as _, LabError, run};
use super::process::Process;

/// What a host is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends requests.
    Client,
    /// Forwards.
    Router,
    /// Runs lbguard.
    Balancer,
    /// Answers for the VIPs.
    Backend,
    /// Has no part in it, and must see nothing of it.
    Other,
}

/// A host; clones are the same host.
#[derive(Debug, Clone)]
pub struct Host(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub name: String,
    pub service: String,
    pub role: Role,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub interface: &'static str,
    pub port: String,
    /// The namespace: a file below `/run/netns`.
    pub namespace: PathBuf,
    /// Where its files and logs are.
    pub directory: PathBuf,
}

impl Host {
    /// Its name in the lab: `client`, `router`, `balancer`, `web-1`, `web-far-1`, `other-1`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The service of a backend, which it names in the header `x-service`; else empty.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// What it is there for.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Its IPv4 address on its interface.
    pub fn v4(&self) -> Ipv4Addr {
        self.0.v4
    }

    /// Its IPv6 address on its interface.
    pub fn v6(&self) -> Ipv6Addr {
        self.0.v6
    }

    /// Its address in the family of `like`.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.0.v4.into(),
            IpAddr::V6(_) => self.0.v6.into(),
        }
    }

    /// Its interface: `lb0` of the balancer, `br0` of the router, `eth0` of the others.
    pub fn interface(&self) -> &str {
        self.0.interface
    }

    /// The other end of its cable, in its router's namespace.
    pub fn router_port(&self) -> &str {
        &self.0.port
    }

    /// Its namespace, for `nsenter --net=`. (`ip netns exec` would hide the pins in bpffs.)
    pub fn namespace(&self) -> &Path {
        &self.0.namespace
    }

    /// The full name of its namespace.
    pub fn namespace_name(&self) -> String {
        let name = self.0.namespace.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// A directory of its own for files.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Moves the calling thread into the namespace, for good: sockets made and programs started
    /// from it are the host's. Use [`Host::in_ns`] unless the thread was made for this.
    ///
    /// # Errors
    /// [`LabError::Io`] when the namespace is gone or the caller is not root.
    pub fn enter(&self) -> Result<(), LabError> {
        let what = || format!("enter {}", self.0.namespace.display());
        let namespace = File::open(&self.0.namespace).context(what)?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context(what)
    }

    /// Runs `work` in the host's namespace, in a thread that ends with it. A panic of `work`
    /// goes on in the caller.
    ///
    /// # Errors
    /// As [`Host::enter`]; what `work` returns is passed through.
    pub fn in_ns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let entered = || {
            self.enter()?;
            Ok(work())
        };
        match thread::scope(|scope| scope.spawn(entered).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a program with arguments to its end.
    ///
    /// # Errors
    /// [`LabError::Command`] with its standard error when it fails, [`LabError::Io`] when it
    /// does not start.
    pub fn run<S: AsRef<OsStr> + Sync>(&self, words: &[S]) -> Result<Output, LabError> {
        self.run_command(&mut command(words))
    }

    /// As [`Host::run`], for a command with an environment or a directory.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn run_command(&self, command: &mut Command) -> Result<Output, LabError> {
        self.in_ns(|| run(command))?
    }

    /// As [`Host::run`]; the standard output as text.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn text<S: AsRef<OsStr> + Sync>(&self, words: &[S]) -> Result<String, LabError> {
        let output = self.run(words)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program; it is killed when the [`Process`] is dropped.
    ///
    /// # Errors
    /// [`LabError::Io`] when it does not start.
    pub fn spawn<S: AsRef<OsStr> + Sync>(&self, words: &[S]) -> Result<Process, LabError> {
        self.spawn_command(&mut command(words))
    }

    /// As [`Host::spawn`], for a command with an environment or a directory.
    ///
    /// # Errors
    /// As [`Host::spawn`].
    pub fn spawn_command(&self, command: &mut Command) -> Result<Process, LabError> {
        self.in_ns(|| Process::start(command, &self.0.directory))?
    }
}

fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or(OsStr::new(""), AsRef::as_ref));
    command.args(words);
    command
}
