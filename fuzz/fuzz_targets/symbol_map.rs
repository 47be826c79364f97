//! A symbol map.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tracer_fuzz::symbol_map(bytes));
