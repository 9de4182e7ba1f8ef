//! `cargo xtask build-ebpf`: the objects, and what has to be true of each.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSymbol as _};

use crate::command::workspace;
use crate::recipe::{BENCH, OBJECTS, PRODUCT, Toolchain};
use crate::stack;

/// Builds and checks the objects.
pub fn build() -> Result<()> {
    let workspace = workspace();
    let tools = Toolchain::read(&workspace).map_err(|sentence| anyhow!(sentence))?;
    build_of(&tools, PRODUCT, &OBJECTS)?;
    build_of(&tools, BENCH, &["bench"])
}

fn build_of(tools: &Toolchain, package: &str, objects: &[&str]) -> Result<()> {
    let directory = tools
        .build(&workspace(), package)
        .map_err(|sentence| anyhow!(sentence))?;
    for name in objects {
        let object = directory.join(name);
        let found = check(&object).with_context(|| object.display().to_string())?;
        println!("{}: {found}", object.display());
    }
    Ok(())
}

/// A bounds check that the compiler could not remove ends in a call of `panic`, which the verifier
/// sees as an endless loop, on whichever path it is reached: refuse it here, by name.
fn check(path: &Path) -> Result<String> {
    let data = fs::read(path)?;
    let object = ElfFile64::<object::LittleEndian>::parse(&*data)?;
    let panics: Vec<&str> = object
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.contains("panic"))
        .collect();
    if !panics.is_empty() {
        bail!("panics remain: {}", panics.join(", "));
    }
    let stack = stack::deepest(&object)?;
    Ok(format!(
        "{} bytes, at most {stack} bytes of stack",
        data.len()
    ))
}
