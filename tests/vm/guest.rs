//! Makes a machine out of a kernel and the files of the initramfs: file systems, modules, loopback.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

/// Where `xtask` puts the lbguard under test.
pub const LBGUARD: &str = "/usr/sbin/lbguard";

/// Files that a process may open, as a service has: 1,000 connections have two ends here.
const FILES: libc::rlim_t = 524_288;

/// What `xtask` lists the modules in, each after those that it needs.
const MODULES: &str = "/etc/vm/modules";

/// File systems: type and place.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
];

/// Prepares the machine; what fails is told, and whatever needs it fails later by name.
pub fn prepare() {
    for (kind, place) in MOUNTS {
        if let Err(error) = mount_at(kind, place) {
            println!("vm guest: {kind} at {place}: {error}");
        }
    }
    for module in fs::read_to_string(MODULES).unwrap_or_default().lines() {
        if let Err(error) = load(Path::new(module)) {
            println!("vm guest: module {module}: {error}");
        }
    }
    if let Err(error) = allow_files() {
        println!("vm guest: limit of open files: {error}");
    }
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    if !up.is_ok_and(|status| status.success()) {
        println!("vm guest: the loopback interface is not up");
    }
}

fn mount_at(kind: &str, place: &str) -> std::io::Result<()> {
    fs::create_dir_all(place)?;
    mount(
        Some(kind),
        place,
        Some(kind),
        MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(())
}

fn load(module: &Path) -> std::io::Result<()> {
    let file = File::open(module)?;
    finit_module(&file, c"", ModuleInitFlags::empty())?;
    Ok(())
}

fn allow_files() -> std::io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: FILES,
    };
    // SAFETY: the kernel reads the structure, which lives through the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
