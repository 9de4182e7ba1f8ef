//! Any bytes as a command of the real guard, by test runs. Needs root.
#![no_main]

use std::cell::RefCell;

use lb_tests::fuzzing::RawGuard;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static GUARD: RefCell<RawGuard> = RefCell::new(RawGuard::new());
}

fuzz_target!(|bytes: &[u8]| GUARD.with(|guard| guard.borrow_mut().feed(bytes)));
