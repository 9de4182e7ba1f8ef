//! Archives that the kernel unpacks as its first root: cpio "newc"
//! (<https://www.kernel.org/doc/Documentation/early-userspace/buffer-format.txt>).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Name of the last entry.
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written.
pub struct Archive {
    file: BufWriter<File>,
    written: usize,
    entries: u32,
    /// What is in it already, without the first slash.
    names: BTreeSet<String>,
}

impl Archive {
    /// Begins one.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self {
            file: BufWriter::new(file),
            written: 0,
            entries: 0,
            names: BTreeSet::new(),
        })
    }

    /// Whether a path is in it.
    pub fn has(&self, path: &str) -> bool {
        self.names.contains(path.trim_start_matches('/'))
    }

    /// A file, executable, with the directories above it; the first of a name counts.
    pub fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.named(path, PROGRAM, (0, 0), content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.named(path, LINK, (0, 0), target.as_bytes())
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.named(path, DIRECTORY, (0, 0), &[])
    }

    /// A character device, by its major and minor number.
    pub fn device(&mut self, path: &str, number: (u32, u32)) -> Result<()> {
        self.named(path, CHARACTER_DEVICE, number, &[])
    }

    /// Ends the archive.
    ///
    /// # Returns
    /// Its size in bytes.
    pub fn finish(mut self) -> Result<usize> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.file.flush()?;
        Ok(self.written)
    }

    fn named(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        let above = path.match_indices('/').map(|(end, _)| end);
        for end in above.collect::<Vec<_>>() {
            let directory = path.get(..end).unwrap_or_default();
            if self.names.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY, (0, 0), &[])?;
            }
        }
        if self.names.insert(path.to_owned()) {
            self.entry(path, mode, device, content)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).context("a file of 4 GiB or more")?;
        let name_size = u32::try_from(name.len() + 1).context("a name that long")?;
        let (inode, (major, minor)) = (self.entries, device);
        // Inode, mode, owner, group, links, time, size, device of the file, device that it is,
        // length of the name, checksum.
        let fields = [
            inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        let fields = fields.map(|field| format!("{field:08x}")).concat();
        let header = format!("070701{fields}{name}\0");
        self.write(header.as_bytes())?;
        self.write(content)
    }

    /// Writes, and fills up to a multiple of four.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)?;
        let padding = (4 - bytes.len() % 4) % 4;
        self.file.write_all(&[0; 3][..padding])?;
        self.written += bytes.len() + padding;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let path = std::env::temp_dir().join(format!("lbguard-cpio-{}", std::process::id()));
        let mut archive = Archive::create(&path).unwrap();
        archive.file("/a/b/c", b"xyz").unwrap();
        archive.file("/a/d", b"").unwrap();
        archive.file("/a/d", b"a second of that name").unwrap();
        assert!(archive.has("/a/b") && !archive.has("/b"));
        let size = archive.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((bytes.len(), bytes.len() % 4), (size, 0));
        let text = String::from_utf8_lossy(&bytes);
        let order = ["a\0", "a/b\0", "a/b/c\0", "a/d\0", TRAILER];
        let places = order.map(|name| text.find(name).unwrap());
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(text.matches("070701").count(), order.len());
    }
}
