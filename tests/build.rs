//! Builds the BPF programs of the benchmarks, which the library embeds from `OUT_DIR/bench`.

use std::process::ExitCode;

#[path = "../xtask/src/embed.rs"]
mod embed;
use embed::recipe::BENCH;

fn main() -> ExitCode {
    embed::embed(BENCH, &["bench"], &[])
}
