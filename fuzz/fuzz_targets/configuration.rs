//! Any bytes for the reader: it comes to an end and says what is wrong.
#![no_main]

use lb_tests::fuzzing::configuration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| configuration(bytes));
