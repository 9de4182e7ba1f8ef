//! What long tests have measured, as tables that each test adds rows to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::workspace;

/// A directory of Markdown tables, empty at first.
pub struct Tables(PathBuf);

impl Tables {
    /// Forgets the tables of the last run.
    ///
    /// # Errors
    /// The file system's.
    pub fn new() -> Result<Self> {
        let directory = workspace().join("target/evidence");
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self(directory))
    }

    /// Tells a command's tests where they are wanted.
    pub fn fill_by(&self, command: &mut Command) {
        command.env("LB_EVIDENCE_TABLES", &self.0);
    }

    /// Prints those that there are, in the order of their names.
    ///
    /// # Errors
    /// The file system's.
    pub fn print(&self) -> Result<()> {
        let entries = fs::read_dir(&self.0).with_context(|| self.0.display().to_string())?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        for path in paths {
            let table = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            println!("\n{table}");
        }
        Ok(())
    }
}
