//! An ELF file: symbols, code, unwind tables.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tracer_fuzz::elf(bytes));
