//! Debian packages, unpacked below `target/vm` and never installed: no file of the host changes, and
//! no package that stands in the way is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{Root, find, output, run};

/// A kernel.
pub struct Kernel {
    /// The package that holds it.
    pub package: String,
    /// The image that is booted.
    pub image: PathBuf,
    /// Its modules, `lib/modules/RELEASE/kernel`.
    pub modules: PathBuf,
}

/// The program that emulates the machine.
pub struct Emulator {
    /// The root of what was unpacked; none if it is installed on the host.
    unpacked: Option<PathBuf>,
}

const EMULATOR: &str = "qemu-system-x86_64";
const EMULATOR_PACKAGE: &str = "qemu-system-x86";

/// Gets the kernel that `package` is or depends on.
pub fn kernel(package: &str, place: &Path) -> Result<Kernel> {
    let package = newest(package)?;
    let root = unpack(&package, std::slice::from_ref(&package), place)?;
    let image = only(&root.join("boot"), "vmlinuz-")?;
    let modules = only(&root.join("lib/modules"), "")
        .or_else(|_| only(&root.join("usr/lib/modules"), ""))?
        .join("kernel");
    Ok(Kernel {
        package,
        image,
        modules,
    })
}

/// The emulator of the host, else one that is unpacked with the libraries that the host lacks.
pub fn emulator(place: &Path) -> Result<Emulator> {
    if find(EMULATOR).is_some() {
        return Ok(Emulator { unpacked: None });
    }
    let simulate = ["-s", "install", "--no-install-recommends", EMULATOR_PACKAGE];
    let root = place.join(EMULATOR_PACKAGE);
    let packages = if complete(&root) {
        Vec::new()
    } else {
        let plan = apt("apt-get", &simulate)?;
        let installs = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
        let names = installs.filter_map(|line| line.split(' ').next());
        names.map(ToOwned::to_owned).collect()
    };
    let root = unpack(EMULATOR_PACKAGE, &packages, place)?;
    Ok(Emulator {
        unpacked: Some(root),
    })
}

impl Emulator {
    /// The command that boots; the console is its standard output. It ends when the guest reboots
    /// or panics.
    pub fn command(&self, kernel: &Path, initramfs: &Path, cpus: u8) -> Command {
        let mut command = match &self.unpacked {
            None => Command::new(EMULATOR),
            Some(root) => unpacked_emulator(root),
        };
        command
            // No KVM is asked for: the machine is the same wherever this runs.
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max"])
            .args(["-smp", &cpus.to_string(), "-m", "3072"])
            .args(["-nodefaults", "-display", "none", "-serial", "stdio"])
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", "console=ttyS0 panic=-1 loglevel=4"]);
        command
    }
}

/// With its own libraries, accelerators and firmware.
fn unpacked_emulator(root: &Path) -> Command {
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let libraries = libraries.map(|below| root.join(below).display().to_string());
    let mut command = Command::new(root.join("usr/bin").join(EMULATOR));
    command.env("LD_LIBRARY_PATH", libraries.join(":")).env(
        "QEMU_MODULE_DIR",
        root.join("usr/lib/x86_64-linux-gnu/qemu"),
    );
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(root.join(firmware));
    }
    command
}

/// The package that a package of no files of its own depends on, for instance
/// `linux-image-6.1.0-40-amd64` for `linux-image-amd64`.
fn newest(package: &str) -> Result<String> {
    let depends = apt("apt-cache", &["depends", package])?;
    let mut names = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let image = names.find(|name| name.starts_with("linux-image-"));
    Ok(image.unwrap_or(package).to_owned())
}

/// Downloads and unpacks packages into `place/name`, once.
fn unpack(name: &str, packages: &[String], place: &Path) -> Result<PathBuf> {
    let root = place.join(name);
    if complete(&root) {
        return Ok(root);
    }
    let downloads = place.join("downloads");
    for directory in [&root, &downloads] {
        // What an interrupted run has left.
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    println!(
        "vm-test: unpacking {} (nothing is installed)",
        packages.join(" ")
    );
    let mut download = Command::new("apt-get");
    download.current_dir(&downloads).args(["-q", "download"]);
    run(download.args(packages))?;
    for file in fs::read_dir(&downloads)? {
        run(Command::new("dpkg").arg("-x").arg(file?.path()).arg(&root))?;
    }
    let _ = fs::remove_dir_all(&downloads);
    fs::write(marker(&root), packages.join("\n"))?;
    Ok(root)
}

fn complete(root: &Path) -> bool {
    marker(root).is_file()
}

fn marker(root: &Path) -> PathBuf {
    root.join(".complete")
}

/// What an apt program says. Without package lists it says nothing useful: then they are fetched.
fn apt(program: &str, arguments: &[&str]) -> Result<String> {
    let ask = || output(Command::new(program).args(arguments).env("LC_ALL", "C"));
    if find(program).is_none() {
        bail!("vm-test takes its kernel from Debian by apt, and there is no {program} here");
    }
    ask().or_else(|error| {
        let Some(mut update) = Root::find().command("apt-get") else {
            return Err(error.context("run `apt-get update` as root"));
        };
        run(update.args(["-q", "update"]))?;
        ask()
    })
}

/// The entry of a directory that begins so, if it is the only one.
fn only(directory: &Path, beginning: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .map(|entry| entry.path())
        .collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!(
            "{} holds {} entries {beginning}*, not one",
            directory.display(),
            found.len()
        ),
    }
}
