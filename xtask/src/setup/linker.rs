//! `bpf-linker`, built against an LLVM that is at least as new as the compiler's: an older one
//! stops at the compiler's bitcode with "Invalid record".

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::command::{cargo_command, run, succeeds_within, workspace};

const VERSION: &str = "0.13.0";

/// The LLVM versions that this bpf-linker can be built against.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The version that Debian's security archive carries for its own newer compilers.
const DEBIAN_LLVM: u32 = 22;

/// The linker in `target/tools`, built if there is none or only an older one.
pub fn find_or_install(compiler_llvm: u32) -> Result<PathBuf> {
    let root = workspace().join("target/tools");
    let linker = root.join("bin/bpf-linker");
    // `cargo install` does not record what it linked against, so we do.
    let record = root.join("bpf-linker.llvm");
    let built = fs::read_to_string(&record)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    if built.is_some_and(|llvm| llvm >= compiler_llvm) && works(&linker) {
        return Ok(linker);
    }
    let llvm = llvm_for(compiler_llvm)?;
    install(&root, llvm)?;
    if !works(&linker) {
        bail!(
            "{} does not start: remove target/tools and run this again",
            linker.display()
        );
    }
    fs::write(&record, format!("{llvm}\n")).with_context(|| record.display().to_string())?;
    Ok(linker)
}

fn works(linker: &Path) -> bool {
    succeeds_within(
        Command::new(linker).arg("--version"),
        Duration::from_secs(10),
    )
}

/// An installed LLVM with headers that is new enough, else Debian's.
fn llvm_for(compiler_llvm: u32) -> Result<u32> {
    let usable = || LLVM.filter(|&llvm| llvm >= compiler_llvm);
    if let Some(installed) = usable().find(|&llvm| has_headers(llvm)) {
        return Ok(installed);
    }
    if usable().all(|llvm| llvm != DEBIAN_LLVM) {
        bail!(
            "the compiler's LLVM is {compiler_llvm}, bpf-linker {VERSION} needs one of {} to {} \
             that is not older: install llvm-{compiler_llvm}-dev, or use an older Rust",
            LLVM.start(),
            LLVM.end()
        );
    }
    apt::install(&[
        &format!("llvm-{DEBIAN_LLVM}-dev"),
        "libzstd-dev",
        "zlib1g-dev",
    ])?;
    Ok(DEBIAN_LLVM)
}

fn prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn has_headers(llvm: u32) -> bool {
    let prefix = prefix(llvm);
    prefix.join("bin/llvm-config").is_file() && prefix.join("include/llvm-c/Core.h").is_file()
}

fn install(root: &Path, llvm: u32) -> Result<()> {
    println!("setup: building bpf-linker {VERSION} against LLVM {llvm} (about a minute, once)");
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
        .arg(root)
        .arg("--target-dir")
        .arg(root.join("build"))
        .env("LLVM_PREFIX", prefix(llvm));
    run(&mut command)?;
    // 200 MB that nobody needs again.
    let _ = fs::remove_dir_all(root.join("build"));
    Ok(())
}
