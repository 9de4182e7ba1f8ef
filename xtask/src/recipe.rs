//! How the BPF objects are built: one recipe for `cargo xtask build-ebpf` and for build scripts, which
//! include this file by its path, with `embed.rs` (hence: nothing but `std` in here).
//!
//! It is a cargo inside cargo, because the BPF target needs a CPU level, a linker and a `core` of
//! its own, none of which cargo can give to one dependency of a host crate.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What ships, relative to the workspace.
pub const PRODUCT: &str = "lb-ebpf";

/// Its binaries, which are embedded.
pub const OBJECTS: [&str; 3] = ["lb", "decap", "check"];

/// The programs of the benchmarks, of one binary, `bench`.
pub const BENCH: &str = "tests/ebpf";

/// The file that `cargo xtask setup` writes, relative to the workspace.
pub const TOOLCHAIN_FILE: &str = "target/tools/bpf-toolchain.env";

/// The programs that build for BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The cargo that has `-Z build-std`.
    pub cargo: PathBuf,
    /// The compiler, with the source of `core` in its sysroot.
    pub rustc: PathBuf,
    /// `bpf-linker`, of an LLVM at least as new as the compiler's.
    pub linker: PathBuf,
}

impl Toolchain {
    /// Reads what `cargo xtask setup` found.
    ///
    /// # Errors
    /// A sentence that says what to run, when it has not run or a program is gone since.
    pub fn read(workspace: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(workspace.join(TOOLCHAIN_FILE))
            .map_err(|_| "the BPF toolchain is not set up: run `cargo xtask setup`".to_owned())?;
        let program = |key: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            match value.map(PathBuf::from) {
                Some(path) if path.is_file() => Ok(path),
                Some(path) => Err(format!(
                    "{} is gone: run `cargo xtask setup` again",
                    path.display()
                )),
                None => Err(format!(
                    "{TOOLCHAIN_FILE} lacks {key}: run `cargo xtask setup` again"
                )),
            }
        };
        Ok(Self {
            cargo: program("CARGO")?,
            rustc: program("RUSTC")?,
            linker: program("LINKER")?,
        })
    }

    /// A cargo command in `package` with this compiler, free of what the calling cargo has set.
    pub fn cargo(&self, workspace: &Path, package: &str, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        for (key, _) in env::vars_os().filter(|(key, _)| disturbs(key)) {
            command.env_remove(key);
        }
        command
            .current_dir(workspace.join(package))
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags().join("\x1f"))
            .arg(subcommand)
            .args([
                "--release",
                "-Zbuild-std=core",
                "--target=bpfel-unknown-none",
                "--target-dir",
            ])
            .arg(workspace.join("target/bpf"));
        command
    }

    fn rustflags(&self) -> Vec<String> {
        vec![
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".to_owned(),
            "-Cdebuginfo=2".to_owned(),
            // Fetching atomics and 32-bit jumps, which the default of the target lacks.
            "-Ctarget-cpu=v3".to_owned(),
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        ]
    }

    /// Builds all objects of `package`.
    ///
    /// # Returns
    /// The directory that holds them.
    ///
    /// # Errors
    /// A sentence; the compiler's own messages have gone to stderr.
    pub fn build(&self, workspace: &Path, package: &str) -> Result<PathBuf, String> {
        let status = self
            .cargo(workspace, package, "build")
            .status()
            .map_err(|error| format!("{}: {error}", self.cargo.display()))?;
        if status.success() {
            Ok(workspace.join("target/bpf/bpfel-unknown-none/release"))
        } else {
            Err(format!(
                "{package} does not build ({status}): its messages are above"
            ))
        }
    }
}

/// True for the environment of the calling cargo that would change the inner build: flags,
/// wrappers, the host's target and profile. Where cargo and rustup live, and how they reach the
/// network, stays.
fn disturbs(key: &OsString) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const GONE: [&str; 8] = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
        "__CARGO",
        "CLIPPY_",
    ];
    let key = key.to_string_lossy();
    GONE.iter().any(|gone| key.starts_with(gone)) && !KEPT.iter().any(|kept| key.starts_with(kept))
}
