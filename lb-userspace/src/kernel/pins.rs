//! Where everything is pinned: `<bpffs>/lbguard/abi-N/`, flat.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::KernelError;

/// The pins of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Pins under `root`, which is `/sys/fs/bpf/lbguard` unless moved.
    pub fn new(root: &Path) -> Self {
        Self {
            directory: root.join(format!("abi-{}", lb_common::ABI)),
        }
    }

    /// The directory of this ABI.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A program, `lb` or `guard`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A program that is about to take the place of [`Self::program`].
    pub(super) fn next(&self, name: &str) -> PathBuf {
        self.directory.join(format!("next-{name}"))
    }

    /// The link of an interface.
    pub fn link(&self, interface: &str) -> PathBuf {
        // bpffs takes no dots in names; interfaces may have them.
        self.directory
            .join(format!("link-{}", interface.replace('.', "\u{2024}")))
    }

    /// Interfaces that have a pinned link.
    pub fn linked(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| Some(name.strip_prefix("link-")?.replace('\u{2024}', ".")))
            .collect();
        names.sort();
        names
    }

    /// Whether an instance is pinned here.
    pub fn exist(&self) -> bool {
        self.program("guard").exists()
    }

    /// Another ABI's directory beside this one, if there is one and not this one.
    pub fn other_abi(&self) -> Option<(PathBuf, String)> {
        let parent = self.directory.parent()?;
        fs::read_dir(parent).ok()?.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let abi = name.strip_prefix("abi-")?.to_owned();
            (entry.path() != self.directory).then(|| (entry.path(), abi))
        })
    }

    /// Makes the directory; mounts a BPF file system where there is none.
    pub fn prepare(&self) -> Result<(), KernelError> {
        ensure_bpffs(self.directory.parent().unwrap_or(&self.directory))?;
        fs::create_dir_all(&self.directory)
            .map_err(|e| KernelError::io(format!("make {}", self.directory.display()), e))
    }

    /// Removes what a start that was cut short has left. The guard is pinned last and nothing is
    /// attached before, so links without a guard are no such leftovers.
    pub(super) fn clear_unfinished(&self) -> Result<(), KernelError> {
        if self.exist() {
            return Ok(());
        }
        if let Some(interface) = self.linked().first() {
            return Err(KernelError::Mismatch(format!(
                "{} is there, and no guard beside it; take the balancer off its interfaces \
                 (`lbguard unload`) and start the agent again",
                self.link(interface).display()
            )));
        }
        self.remove()?;
        self.prepare()
    }

    /// Removes every pin, and the directory.
    pub fn remove(&self) -> Result<(), KernelError> {
        let failed = |e| KernelError::io(format!("remove {}", self.directory.display()), e);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        fs::remove_dir(&self.directory).map_err(failed)
    }
}

/// Sees that `root`, the directory of all pins, lies on a BPF file system: mounts one on the
/// directory above it where there is none.
pub fn ensure_bpffs(root: &Path) -> Result<(), KernelError> {
    let base = root.parent().unwrap_or(root);
    if is_bpffs(base) || is_bpffs(root) {
        return Ok(());
    }
    fs::create_dir_all(base).map_err(|e| KernelError::io(format!("make {}", base.display()), e))?;
    mount(
        Some("bpf"),
        base,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|e| {
        KernelError::io(
            format!("mount a BPF file system at {}", base.display()),
            e.into(),
        )
    })
}

/// Whether a path lies on a BPF file system.
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}
