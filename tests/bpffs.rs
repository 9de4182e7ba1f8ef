//! A BPF file system of one test's own.

use std::path::Path;

use lb_userspace::kernel::pins::Pins;
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

/// A directory with a BPF file system in it, both gone when this is dropped.
pub struct Bpffs {
    directory: TempDir,
}

impl Bpffs {
    /// A directory; the file system is mounted by whoever pins first.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("temporary directory"),
        }
    }

    /// The pins of the one instance in it.
    pub fn pins(&self) -> Pins {
        pins_below(self.directory.path())
    }

    /// The directory, for a child process.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The pins of the instance under a [`Bpffs`]'s directory.
pub fn pins_below(directory: &Path) -> Pins {
    Pins::new(&directory.join("bpf/lbguard"))
}

impl Default for Bpffs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Nothing was mounted if nothing was pinned.
        let _ = umount2(&self.directory.path().join("bpf"), MntFlags::MNT_DETACH);
    }
}
