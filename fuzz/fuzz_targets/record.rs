//! One record of the ring buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tracer_fuzz::record(bytes));
