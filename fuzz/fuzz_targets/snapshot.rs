//! The memory of a CPython process: a recorded one, changed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tracer_fuzz::Recorded;

/// One recording for each version.
static RECORDED: LazyLock<Vec<Recorded>> = LazyLock::new(tracer_fuzz::recorded);

fuzz_target!(|bytes: &[u8]| tracer_fuzz::snapshot(&RECORDED, bytes));
