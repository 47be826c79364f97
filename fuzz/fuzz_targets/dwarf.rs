//! Debugging information: the sections of a sound ELF file, changed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// The file that is changed.
static SOUND: LazyLock<Vec<u8>> = LazyLock::new(tracer_fuzz::sound_elf);

fuzz_target!(|changes: &[u8]| tracer_fuzz::dwarf(&SOUND, changes));
