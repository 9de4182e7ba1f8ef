//! For build scripts, which include this file by its path: builds BPF objects and puts them where the crate
//! embeds them from, `OUT_DIR`. With `LB_EBPF_OBJECT_DIR` set, takes them from that directory instead.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[path = "recipe.rs"]
#[allow(dead_code, reason = "a build script needs a part of it")]
pub mod recipe;

/// Builds `package`, anew if one of `sources` has changed. Paths are relative to the workspace, which is
/// the directory above the crate's.
pub fn embed(package: &str, objects: &[&str], sources: &[&str]) -> ExitCode {
    match try_embed(package, objects, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn try_embed(package: &str, objects: &[&str], sources: &[&str]) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=LB_EBPF_OBJECT_DIR");
    let directory = match env::var_os("LB_EBPF_OBJECT_DIR") {
        Some(prebuilt) => PathBuf::from(prebuilt),
        None => build(package, sources)?,
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo has not set OUT_DIR")?);
    for name in objects {
        let object = directory.join(name);
        fs::copy(&object, out.join(name))
            .map_err(|error| format!("{}: {error}", object.display()))?;
    }
    Ok(())
}

fn build(package: &str, sources: &[&str]) -> Result<PathBuf, String> {
    let crate_directory = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo has not said where")?;
    let workspace = Path::new(&crate_directory).join("..");
    let workspace = workspace
        .canonicalize()
        .map_err(|error| error.to_string())?;
    let always = [
        "xtask/src/embed.rs",
        "xtask/src/recipe.rs",
        recipe::TOOLCHAIN_FILE,
    ];
    for path in always.iter().chain(sources) {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    for path in ["Cargo.lock", "Cargo.toml", "src"] {
        let path = workspace.join(package).join(path);
        println!("cargo::rerun-if-changed={}", path.display());
    }
    recipe::Toolchain::read(&workspace)?.build(&workspace, package)
}
