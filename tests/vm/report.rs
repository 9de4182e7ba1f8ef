//! What is told on the console. `xtask` reads it: each line of ours begins with a mark, so that
//! the kernel's and the tests' own lines can lie between.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Begins the lines that are for `xtask`.
const MARK: &str = "vm:";

/// How many results will come.
pub fn plan(results: usize) {
    println!("\n{MARK} plan {results}");
}

/// Runs a check and tells its result: `Ok` with what there is to know, `Err` or a panic with why
/// it missed.
pub fn result(name: &str, check: impl FnOnce() -> Result<String, String>) {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(check));
    let outcome = outcome.unwrap_or_else(|_| Err("it panicked; its message is above".to_owned()));
    let seconds = begun.elapsed().as_secs_f64();
    // A line of its own, whatever was written before.
    match outcome {
        Ok(detail) => println!("\n{MARK} ok {name}: {detail} ({seconds:.1} s)"),
        Err(why) => println!("\n{MARK} MISS {name}: {why} ({seconds:.1} s)"),
    }
}

/// All results have been told.
pub fn end() {
    println!("\n{MARK} end");
}
