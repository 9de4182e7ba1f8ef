//! `cargo xtask lint`.

use std::env;

use anyhow::{Result, anyhow};

use crate::command::{cargo_command, find, run, rustc, workspace};
use crate::ebpf;
use crate::recipe::{BENCH, PRODUCT, Toolchain};

/// Formatting, clippy, what has to be true of the BPF objects and, where it is installed, cargo-deny;
/// warnings are errors.
pub fn lint() -> Result<()> {
    run(cargo_command("fmt").args(["--all", "--check"]))?;
    for package in [PRODUCT, BENCH] {
        let manifest = format!("{package}/Cargo.toml");
        run(cargo_command("fmt").args(["--check", "--manifest-path", &manifest]))?;
    }
    run(cargo_command("clippy").args(["--workspace", "--all-targets", "--", "-Dwarnings"]))?;
    run(cargo_command("fmt").args(["--check", "--manifest-path", "fuzz/Cargo.toml"]))?;
    let fuzz = [
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "target",
    ];
    run(cargo_command("clippy")
        .args(fuzz)
        .args(["--", "-Dwarnings"]))?;
    clippy_ebpf()?;
    ebpf::build()?;
    if find("cargo-deny").is_some() {
        run(cargo_command("deny").args(["check"]))?;
    } else {
        println!("lint: cargo-deny is not installed: licences and advisories are not checked");
    }
    Ok(())
}

/// On its own: together with the host's crates it would get std and the host's features.
fn clippy_ebpf() -> Result<()> {
    let tools = Toolchain::read(&workspace()).map_err(|sentence| anyhow!(sentence))?;
    if tools.rustc != rustc() {
        println!(
            "lint: lb-ebpf is not checked: {} has no clippy",
            tools.rustc.display()
        );
        return Ok(());
    }
    for package in [PRODUCT, BENCH] {
        let mut clippy = tools.cargo(&workspace(), package, "clippy");
        // Which toolchain's clippy the proxy on the path runs.
        if let Some(name) = env::var_os("RUSTUP_TOOLCHAIN") {
            clippy.env("RUSTUP_TOOLCHAIN", name);
        }
        run(clippy.args(["--", "-Dwarnings"]))?;
    }
    Ok(())
}
