//! A tape, replayed into no destination.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tracer_fuzz::tape(bytes));
