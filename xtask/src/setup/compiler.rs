//! A Rust compiler that has the source of `core`, which `-Z build-std` compiles for BPF.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::command::{cargo, output, rustc, succeeds_within, workspace};

/// What builds `lb-ebpf`.
pub struct Compiler {
    /// Its cargo.
    pub cargo: PathBuf,
    /// Its rustc.
    pub rustc: PathBuf,
    /// The major version of its LLVM.
    pub llvm: u32,
}

/// Debian's compiler. It comes to `/usr/bin/rustc`, so that rustup's tools are always called by
/// their own paths.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// How long rustup may take for a few MB before we take another road.
const RUSTUP_LIMIT: Duration = Duration::from_secs(15);

/// The active toolchain if it has the source, or gets it from rustup, else Debian's.
pub fn find_or_install() -> Result<Compiler> {
    let active = rustc();
    if has_source(&active) {
        return compiler(active);
    }
    let debian = PathBuf::from(DEBIAN_RUSTC);
    if rustup_adds_source() && has_source(&active) {
        return compiler(active);
    }
    if !has_source(&debian) {
        apt::install(&DEBIAN_PACKAGES).context(
            "the source of Rust's core library is missing, and rustup could not add it \
             (`rustup component add rust-src`)",
        )?;
    }
    if !has_source(&debian) {
        bail!(
            "{DEBIAN_RUSTC} has no source of the core library; remove other compilers from there"
        );
    }
    compiler(debian)
}

fn compiler(rustc: PathBuf) -> Result<Compiler> {
    let verbose = output(Command::new(&rustc).arg("-vV"))?;
    let llvm = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    let llvm = llvm.and_then(|version| version.split('.').next()?.parse().ok());
    let llvm = llvm.with_context(|| format!("{} names no LLVM version", rustc.display()))?;
    Ok(Compiler {
        cargo: cargo(),
        rustc,
        llvm,
    })
}

fn has_source(rustc: &Path) -> bool {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    })
}

/// Asks rustup once; a failure is remembered, because it may cost the whole limit each time.
fn rustup_adds_source() -> bool {
    let failed = workspace().join("target/tools/rustup-has-no-rust-src");
    if failed.exists() {
        return false;
    }
    println!(
        "setup: rustup component add rust-src (at most {} s)",
        RUSTUP_LIMIT.as_secs()
    );
    let mut rustup = Command::new("rustup");
    let done = succeeds_within(rustup.args(["component", "add", "rust-src"]), RUSTUP_LIMIT);
    if !done {
        let note = "`rustup component add rust-src` failed here; remove this file to try again\n";
        let _ = failed.parent().map(fs::create_dir_all);
        let _ = fs::write(&failed, note);
    }
    done
}
