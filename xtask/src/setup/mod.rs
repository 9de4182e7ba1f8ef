//! `cargo xtask setup`: finds or installs the BPF toolchain and the programs that the tests run.
//! With nothing missing it takes well under a second, so that every task can begin with it.

use anyhow::{Context as _, Result};

use crate::command::workspace;
use crate::recipe::TOOLCHAIN_FILE;

mod apt;
mod compiler;
mod linker;

/// The programs that the demo and the tests run, and the Debian package of each.
const PROGRAMS: [(&str, &str); 7] = [
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("nginx", "nginx-light"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
];

/// Sets up all of it.
///
/// # Errors
/// One sentence that names what is missing and lists what to run.
pub fn setup() -> Result<()> {
    apt::install_programs(&PROGRAMS)?;
    let compiler = compiler::find_or_install()?;
    let linker = linker::find_or_install(compiler.llvm)?;
    let text = format!(
        "CARGO={}\nRUSTC={}\nLINKER={}\n",
        compiler.cargo.display(),
        compiler.rustc.display(),
        linker.display()
    );
    let file = workspace().join(TOOLCHAIN_FILE);
    // Left alone when nothing has changed: the build script depends on its time.
    if std::fs::read_to_string(&file).is_ok_and(|known| known == text) {
        return Ok(());
    }
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    println!(
        "setup: BPF compiler {}, linker {}",
        compiler.rustc.display(),
        linker.display()
    );
    Ok(())
}
