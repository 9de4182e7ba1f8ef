//! Taking a lab away: processes, namespaces, mounts, files. Works from names alone, so that it
//! also removes what a killed process has left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::until;
use super::id::LabId;

/// Where `ip netns` keeps the namespaces.
pub(super) const NAMESPACES: &str = "/run/netns";

/// The labs of this process, for the signal handler.
static LIVE: Mutex<BTreeSet<LabId>> = Mutex::new(BTreeSet::new());

/// Where a lab keeps its files.
pub(super) fn directory(id: LabId) -> PathBuf {
    std::env::temp_dir().join(id.to_string())
}

/// Notes a lab, so that an interrupt removes it.
pub(super) fn register(id: LabId) {
    live().insert(id);
    handle_signals();
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<LabId>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the labs of processes that live no more.
///
/// # Returns
/// How many labs have been removed.
pub fn sweep() -> usize {
    let temporary = std::env::temp_dir();
    let found = [Path::new(NAMESPACES), temporary.as_path()]
        .into_iter()
        .flat_map(names_in)
        .filter_map(|name| LabId::at_start_of(&name))
        .filter(|id| !id.is_alive());
    let dead: BTreeSet<LabId> = found.collect();
    for &id in &dead {
        remove(id);
    }
    dead.len()
}

/// Removes a lab.
pub(super) fn remove(id: LabId) {
    let namespaces: Vec<PathBuf> = names_in(Path::new(NAMESPACES))
        .into_iter()
        .filter(|name| LabId::at_start_of(name) == Some(id))
        .map(|name| Path::new(NAMESPACES).join(name))
        .collect();
    kill_processes(&namespaces);
    for namespace in &namespaces {
        // The namespace itself ends when the last socket and interface of it is gone.
        let _ = umount2(namespace, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(namespace);
    }
    let directory = directory(id);
    for mount in mounts_below(&directory) {
        let _ = umount2(&mount, MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(&directory);
    live().remove(&id);
}

/// Kills what runs in the namespaces, except ourselves, and waits until it is gone.
fn kill_processes(namespaces: &[PathBuf]) {
    let inodes: BTreeSet<(u64, u64)> = namespaces.iter().filter_map(|path| inode(path)).collect();
    let gone = until(
        "the lab's processes are gone",
        Duration::from_secs(2),
        || {
            let inside: Vec<i32> = processes()
                .filter(|pid| {
                    inode(&PathBuf::from(format!("/proc/{pid}/ns/net")))
                        .is_some_and(|inode| inodes.contains(&inode))
                })
                .collect();
            for &pid in &inside {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            inside.is_empty().then_some(())
        },
    );
    // Whoever is left is beyond SIGKILL; the namespaces are unlinked all the same.
    drop(gone);
}

fn processes() -> impl Iterator<Item = i32> {
    let own = i32::try_from(process::id()).unwrap_or_default();
    let pids = names_in(Path::new("/proc")).into_iter();
    pids.filter_map(|name| name.parse().ok())
        .filter(move |&pid| pid != own)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// The mount points below a directory, the last mounted first.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from);
    let mut below: Vec<PathBuf> = points
        .filter(|point| point.starts_with(directory))
        .collect();
    below.reverse();
    below
}

/// From the first lab on, SIGINT and SIGTERM remove all labs of the process before it ends.
fn handle_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let name = "lab-signals".to_owned();
        let _ = thread::Builder::new().name(name).spawn(|| {
            if let Ok(signal) = wait_for_signal() {
                let labs: Vec<LabId> = live().iter().copied().collect();
                labs.into_iter().for_each(remove);
                process::exit(128_i32.saturating_add(signal as i32));
            }
        });
    });
}

fn wait_for_signal() -> io::Result<Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(tokio::select! {
            _ = interrupt.recv() => Signal::SIGINT,
            _ = terminate.recv() => Signal::SIGTERM,
        })
    })
}
