//! The files of the emulated machine: our own `init`, the tests, the programs that they run, the
//! libraries of all of them, and the kernel's modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::debian::Kernel;
use super::elf::{Modules, libraries};
use super::suites::{Built, Chosen};
use crate::command::{find, succeeds_within};

/// Modules that the tests' networks need, where the kernel has them as modules. There is no
/// modprobe in the machine: all are loaded at its start.
const MODULES: [&str; 12] = [
    "veth",
    "bridge",
    "macvlan",
    "dummy",
    "tun",
    "8021q",
    "ipip",
    "ip6_tunnel",
    "sch_ingress",
    "cls_bpf",
    "af_packet",
    "tcp_diag",
];

/// Programs that tests run.
const PROGRAMS: [&str; 13] = [
    "bpftool", "curl", "dnsmasq", "ethtool", "ip", "nginx", "openssl", "ping", "sleep", "stat",
    "sysctl", "tc", "tcpdump",
];

/// Where `init` expects lbguard (tests/vm/guest.rs).
const LBGUARD: &str = "/usr/sbin/lbguard";

/// Files that programs want to be there.
const FILES: [(&str, &str); 4] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
];

/// Writes the archive.
pub fn pack(kernel: &Kernel, built: &Built, chosen: &[Chosen], archive: &Path) -> Result<()> {
    let mut archive = Archive::create(archive)?;
    skeleton(&mut archive)?;
    modules(kernel, &mut archive)?;
    for program in PROGRAMS {
        // A test that misses it says so.
        if let Some(path) = find(program) {
            add(&path, &path, &mut archive)?;
        }
    }
    add_stripped(&built.init, Path::new("/init"), &mut archive)?;
    for place in [Path::new(LBGUARD), &built.lbguard] {
        // The second place is that of the build, which some tests know it by.
        add_stripped(&built.lbguard, place, &mut archive)?;
    }
    let mut list = String::new();
    for suite in chosen {
        let place = PathBuf::from("/tests").join(&suite.name);
        add_stripped(&suite.program, &place, &mut archive)?;
        let words = [
            &[suite.name.clone(), place.display().to_string()],
            &*suite.arguments,
        ];
        list.push_str(&words.concat().join(" "));
        list.push('\n');
    }
    archive.file("/etc/vm/suites", list.as_bytes())?;
    archive.finish()?;
    Ok(())
}

fn skeleton(archive: &mut Archive) -> Result<()> {
    // As on the host, so that the paths that its loader finds are the same.
    for name in ["/bin", "/sbin", "/lib", "/lib64"] {
        match fs::read_link(name) {
            Ok(target) => archive.link(name, &target.to_string_lossy())?,
            Err(_) => archive.directory(name)?,
        }
    }
    for name in [
        "/proc",
        "/sys",
        "/tmp",
        "/run",
        "/root",
        "/var/log/nginx",
        "/var/lib/nginx",
    ] {
        archive.directory(name)?;
    }
    archive.device("/dev/console", (5, 1))?;
    archive.device("/dev/null", (1, 3))?;
    for (name, content) in FILES {
        archive.file(name, content.as_bytes())?;
    }
    Ok(())
}

fn modules(kernel: &Kernel, archive: &mut Archive) -> Result<()> {
    let found = Modules::find(&kernel.modules)?;
    let mut order = Vec::new();
    for name in MODULES {
        found.add(name, &mut order)?;
    }
    let mut list = String::new();
    for module in order {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("/modules/{name}");
        archive.file(&place, &read(&module)?)?;
        list.push_str(&place);
        list.push('\n');
    }
    archive.file("/etc/vm/modules", list.as_bytes())
}

/// Adds a program without its debug information, which is most of it.
fn add_stripped(program: &Path, place: &Path, archive: &mut Archive) -> Result<()> {
    let stripped = program.with_extension("stripped");
    let limit = Duration::from_mins(1);
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(program);
    // Without binutils it is larger, that is all.
    let source = if succeeds_within(&mut strip, limit) {
        &stripped
    } else {
        program
    };
    let added = add(source, place, archive);
    let _ = fs::remove_file(&stripped);
    added
}

/// Adds a program at `place`, and its libraries at theirs.
fn add(program: &Path, place: &Path, archive: &mut Archive) -> Result<()> {
    archive.file(&settled(place), &read(program)?)?;
    for library in libraries(program) {
        let place = settled(&library);
        if !archive.has(&place) {
            archive.file(&place, &read(&library)?)?;
        }
    }
    Ok(())
}

/// The path with the links in its directory resolved, as the archive has no way to write below one.
fn settled(path: &Path) -> String {
    let directory = path.parent().unwrap_or(path);
    let directory = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    let name = path.file_name().unwrap_or_default();
    directory.join(name).display().to_string()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
