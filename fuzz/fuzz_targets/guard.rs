//! Any bytes as a command of the real guard, by test runs. Needs root.
#![no_main]

use std::cell::RefCell;
use std::sync::atomic::{AtomicU8, Ordering};

use lb_tests::fuzzing::RawGuard;
use libfuzzer_sys::fuzz_target;

/// Answers that are told apart: so many commands times so many refusals.
const ANSWERS: usize = 64 * 64;

/// libFuzzer cannot look into the kernel. What the guard answers to which command is counted here,
/// where it looks for more: an input that is answered in a new way is kept.
// SAFETY: libFuzzer reads this section as bytes, and bytes these are.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static COUNTERS: [AtomicU8; ANSWERS] = [const { AtomicU8::new(0) }; ANSWERS];

thread_local! {
    static GUARD: RefCell<RawGuard> = RefCell::new(RawGuard::new());
}

fuzz_target!(|bytes: &[u8]| {
    let answer = GUARD.with(|guard| guard.borrow_mut().feed(bytes));
    if let Some((op, status)) = answer {
        let place = (op as usize % 64) * 64 + status as usize % 64;
        COUNTERS[place].fetch_add(1, Ordering::Relaxed);
    }
});
