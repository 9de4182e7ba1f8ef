//! What programs and modules need: shared libraries and other modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use crate::command::output;

/// The shared libraries of a program, the loader included, as the host's loader finds them; none
/// if it is linked statically.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    let Ok(text) = output(Command::new("ldd").arg(program)) else {
        return Vec::new();
    };
    // `libc.so.6 => /lib/libc.so.6 (0x...)` or `/lib64/ld-linux-x86-64.so.2 (0x...)`.
    let words = text.lines().filter_map(|line| {
        let path = line.split(" => ").last()?;
        path.trim().split(' ').next()
    });
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// The modules of a kernel that is not running.
pub struct Modules {
    /// Path of each, by its name.
    paths: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// All below a directory.
    pub fn find(directory: &Path) -> Result<Self> {
        let mut paths = BTreeMap::new();
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            let entries = fs::read_dir(&directory);
            for entry in entries.with_context(|| directory.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy();
                    paths.insert(name.replace('-', "_"), path);
                }
            }
        }
        Ok(Self { paths })
    }

    /// Adds a module to `order`, after those that it needs. One that there is not is built in, or
    /// lacking: then whatever needs it says so.
    pub fn add(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let Some(path) = self.paths.get(&name.replace('-', "_")) else {
            return Ok(());
        };
        if order.contains(path) {
            return Ok(());
        }
        for needed in needs(path)? {
            self.add(&needed, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// The modules that a module names in its section `.modinfo`.
fn needs(module: &Path) -> Result<Vec<String>> {
    let data = fs::read(module).with_context(|| module.display().to_string())?;
    let file = ElfFile64::<object::LittleEndian>::parse(&*data)?;
    let section = file.section_by_name(".modinfo");
    let section = section.with_context(|| format!("{}: no .modinfo", module.display()))?;
    let information = section.data()?;
    let lines = information.split(|byte| *byte == 0);
    let depends = lines
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(','));
    Ok(depends
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
        .collect())
}
