//! A Rust compiler that has the source of `core`, which `-Z build-std` compiles for BPF.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{cargo, output, rustc, succeeds_within, workspace};

/// What builds `lb-ebpf`.
pub struct Compiler {
    /// The cargo that runs us, whosever rustc it is.
    pub cargo: PathBuf,
    /// The compiler.
    pub rustc: PathBuf,
    /// The major version of its LLVM.
    pub llvm: u32,
}

/// What to say when there is none.
pub const NONE: &str = "no Rust compiler of 1.95 or later has the source of its core library: run \
                        `rustup component add rust-src`, or install Debian's rustc-web and \
                        rust-web-src";

/// Debian's compiler. It comes to `/usr/bin/rustc`, so that rustup's tools are always called by
/// their own paths.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// The oldest that the repository builds with.
const MINOR: u32 = 95;

/// How long rustup may take for a few MB before we take another road.
const RUSTUP_LIMIT: Duration = Duration::from_secs(15);

/// The active toolchain if it has the source, else Debian's if that has it.
pub fn find() -> Option<Compiler> {
    usable(rustc()).or_else(|| usable(PathBuf::from(DEBIAN_RUSTC)))
}

/// Lets rustup add the source if need be; else names Debian's packages.
pub fn missing_packages() -> Vec<String> {
    if find().is_some() || rustup_adds_source() {
        return Vec::new();
    }
    DEBIAN_PACKAGES.map(ToOwned::to_owned).into()
}

fn usable(rustc: PathBuf) -> Option<Compiler> {
    let verbose = output(Command::new(&rustc).arg("-vV")).ok()?;
    let number = |key: &str| {
        let value = verbose.lines().find_map(|line| line.strip_prefix(key))?;
        value.split('.').next()?.parse::<u32>().ok()
    };
    let (minor, llvm) = (number("release: 1.")?, number("LLVM version: ")?);
    (minor >= MINOR && has_source(&rustc)).then(|| Compiler {
        cargo: cargo(),
        rustc,
        llvm,
    })
}

fn has_source(rustc: &Path) -> bool {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| {
        let source = "lib/rustlib/src/rust/library/core/src/lib.rs";
        Path::new(sysroot.trim()).join(source).is_file()
    })
}

/// Asks rustup once; a failure is remembered, because it may cost the whole limit each time.
fn rustup_adds_source() -> bool {
    let failed = workspace().join("target/tools/rustup-has-no-rust-src");
    if failed.exists() {
        return false;
    }
    let limit = RUSTUP_LIMIT.as_secs();
    println!("setup: rustup component add rust-src (at most {limit} s)");
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src"]);
    let done = succeeds_within(&mut rustup, RUSTUP_LIMIT) && usable(rustc()).is_some();
    if !done {
        let note = "`rustup component add rust-src` failed here; remove this file to try again\n";
        let _ = failed.parent().map(fs::create_dir_all);
        let _ = fs::write(&failed, note);
    }
    done
}
