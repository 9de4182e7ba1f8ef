//! `bpf-linker`, built against an LLVM that is at least as new as the compiler's: an older one
//! stops at the compiler's bitcode with "Invalid record".

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo_command, run, succeeds_within, workspace};

const VERSION: &str = "0.13.0";

/// The LLVM versions that this bpf-linker can be built against.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The version that Debian's security archive carries for its own newer compilers.
const DEBIAN_LLVM: u32 = 22;

/// Names the package with LLVM's headers when a linker has to be built and there are none. With
/// no compiler yet, it will be Debian's.
pub fn missing_packages(compiler_llvm: Option<u32>) -> Vec<String> {
    let llvm = compiler_llvm.unwrap_or(DEBIAN_LLVM);
    if existing(llvm).is_some() || llvm > DEBIAN_LLVM || installed(llvm).is_some() {
        return Vec::new();
    }
    vec![format!("llvm-{DEBIAN_LLVM}-dev")]
}

/// The linker in `target/tools`, built if there is none or only an older one.
///
/// # Errors
/// One sentence when no LLVM is new enough, or the build fails.
pub fn find_or_build(compiler_llvm: u32) -> Result<PathBuf> {
    if let Some(linker) = existing(compiler_llvm) {
        return Ok(linker);
    }
    let (newest, oldest) = (LLVM.end(), LLVM.start());
    let llvm = installed(compiler_llvm).with_context(|| {
        format!(
            "the compiler has LLVM {compiler_llvm}, and bpf-linker {VERSION} must be built with \
             one of {oldest} to {newest} that is not older: install llvm-{compiler_llvm}-dev, or \
             use an older Rust"
        )
    })?;
    build(llvm)?;
    let linker = root().join("bin/bpf-linker");
    if !works(&linker) {
        bail!(
            "{} does not start: remove target/tools and try again",
            linker.display()
        );
    }
    fs::write(record(), format!("{llvm}\n")).context("target/tools")?;
    Ok(linker)
}

fn root() -> PathBuf {
    workspace().join("target/tools")
}

/// `cargo install` does not record what it linked against, so we do.
fn record() -> PathBuf {
    root().join("bpf-linker.llvm")
}

fn existing(compiler_llvm: u32) -> Option<PathBuf> {
    let linker = root().join("bin/bpf-linker");
    let llvm: u32 = fs::read_to_string(record()).ok()?.trim().parse().ok()?;
    (llvm >= compiler_llvm && works(&linker)).then_some(linker)
}

fn works(linker: &Path) -> bool {
    succeeds_within(
        Command::new(linker).arg("--version"),
        Duration::from_secs(10),
    )
}

/// The oldest LLVM that is new enough and has its headers installed.
fn installed(compiler_llvm: u32) -> Option<u32> {
    LLVM.filter(|&llvm| llvm >= compiler_llvm)
        .find(|&llvm| has_headers(llvm))
}

fn prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn has_headers(llvm: u32) -> bool {
    let prefix = prefix(llvm);
    prefix.join("bin/llvm-config").is_file() && prefix.join("include/llvm-c/Core.h").is_file()
}

fn build(llvm: u32) -> Result<()> {
    println!("setup: building bpf-linker {VERSION} against LLVM {llvm} (about a minute, once)");
    let root = root();
    let mut command = cargo_command("install");
    command
        .args([
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--no-default-features",
        ])
        .arg(format!("--features=llvm-{llvm}"))
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(root.join("build"))
        .env("LLVM_PREFIX", prefix(llvm));
    run(&mut command)?;
    // 200 MB that nobody needs again.
    let _ = fs::remove_dir_all(root.join("build"));
    Ok(())
}
