//! Read-outs by bpftool alone: what is there when no process of ours is.

use std::path::Path;
use std::process::{Command, Output};

use lb_userspace::kernel::pins::Pins;
use serde_json::Value;

/// Runs bpftool.
pub fn bpftool(arguments: &[&str]) -> Output {
    Command::new("bpftool")
        .args(arguments)
        .output()
        .expect("bpftool (cargo xtask setup brings it)")
}

/// A pinned array as JSON, element by element, with the names of its fields.
///
/// # Returns
/// The `value` of each element, formatted by BTF.
pub fn dump(path: &Path) -> Vec<Value> {
    let path = path.to_str().expect("a path");
    let output = bpftool(&["-j", "map", "dump", "pinned", path]);
    assert!(output.status.success(), "{output:?}");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    all.into_iter()
        .map(|element| {
            let formatted = &element["formatted"]["value"];
            assert!(formatted.is_object(), "no BTF: {element}");
            formatted.clone()
        })
        .collect()
}

/// A field of an element, as a number.
pub fn number(element: &Value, field: &str) -> u64 {
    element[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {field} in {element}"))
}

/// The current control record.
pub fn record(pins: &Pins) -> Value {
    loop {
        let word = number(&dump(&pins.map("CONTROL"))[0], "word");
        let found = dump(&pins.map("RECORDS_RING"))
            .into_iter()
            .find(|record| number(record, "number") == word);
        // Else it was published between the two reads.
        if let Some(record) = found {
            return record;
        }
    }
}
