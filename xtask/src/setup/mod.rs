//! `cargo xtask setup`: finds or installs the BPF toolchain and the programs that the tests run.
//! With nothing missing it takes well under a second, so that every task can begin with it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use self::compiler::Compiler;
use crate::command::{find, workspace};
use crate::recipe::TOOLCHAIN_FILE;

mod apt;
mod compiler;
mod linker;

/// The programs that the demo and the tests run, and the Debian package of each.
const PROGRAMS: [(&str, &str); 9] = [
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("dnsmasq", "dnsmasq-base"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
];

/// Sets up all of it: one call of apt for everything that Debian has, then what we build.
///
/// # Errors
/// One sentence that names what is missing and lists what to run.
pub fn setup() -> Result<()> {
    let mut packages: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    packages.extend(compiler::missing_packages());
    packages.extend(linker::missing_packages(
        compiler::find().map(|found| found.llvm),
    ));
    if !packages.is_empty() {
        apt::install(&packages)?;
    }
    let compiler = compiler::find().context(compiler::NONE)?;
    let linker = linker::find_or_build(compiler.llvm)?;
    write_toolchain(&compiler, &linker)
}

/// Writes what the build script reads. Left alone when nothing has changed: the build script
/// depends on the file's time.
fn write_toolchain(compiler: &Compiler, linker: &Path) -> Result<()> {
    let (cargo, rustc) = (compiler.cargo.display(), compiler.rustc.display());
    let linker = linker.display();
    let text = format!("CARGO={cargo}\nRUSTC={rustc}\nLINKER={linker}\n");
    let file = workspace().join(TOOLCHAIN_FILE);
    if fs::read_to_string(&file).is_ok_and(|known| known == text) {
        return Ok(());
    }
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    eprintln!("setup: BPF compiler {rustc}, linker {linker}");
    Ok(())
}
