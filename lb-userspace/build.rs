//! Builds the BPF objects and puts them where the library embeds them from: `OUT_DIR/lb`,
//! `OUT_DIR/decap` and `OUT_DIR/check`.

use std::process::ExitCode;

#[path = "../xtask/src/embed.rs"]
mod embed;
use embed::recipe::{OBJECTS, PRODUCT};

fn main() -> ExitCode {
    embed::embed(
        PRODUCT,
        &OBJECTS,
        &["lb-common/Cargo.toml", "lb-common/src"],
    )
}
