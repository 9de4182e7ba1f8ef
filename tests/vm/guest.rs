//! Makes a machine out of a kernel and the files of the initramfs: file systems, modules, loopback.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

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
