//! Builds the BPF objects and puts them where the library embeds them from: `OUT_DIR/lb` and
//! `OUT_DIR/decap`. With `LB_EBPF_OBJECT_DIR` set, takes them from that directory instead.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[path = "../xtask/src/recipe.rs"]
mod recipe;

/// What to rebuild for, relative to the workspace.
const SOURCES: [&str; 7] = [
    "lb-common/Cargo.toml",
    "lb-common/src",
    "lb-ebpf/Cargo.lock",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/src",
    "xtask/src/recipe.rs",
    recipe::TOOLCHAIN_FILE,
];

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=LB_EBPF_OBJECT_DIR");
    let directory = match env::var_os("LB_EBPF_OBJECT_DIR") {
        Some(prebuilt) => PathBuf::from(prebuilt),
        None => build()?,
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo has not set OUT_DIR")?);
    for name in recipe::OBJECTS {
        let object = directory.join(name);
        fs::copy(&object, out.join(name))
            .map_err(|error| format!("{}: {error}", object.display()))?;
    }
    Ok(())
}

fn build() -> Result<PathBuf, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = workspace
        .canonicalize()
        .map_err(|error| error.to_string())?;
    for path in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    recipe::Toolchain::read(&workspace)?.build(&workspace)
}
