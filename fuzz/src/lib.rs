//! Bytes from a stranger go in; whatever they are, no panic, no hang and no heap of memory comes out.
//!
//! Each function is what one program in `fuzz_targets` does with one input. `cargo xtask fuzz` builds and runs them.

mod changes;
mod conversation;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object::{Object as _, ObjectSection as _};
use rustix::fs::MemfdFlags;
use tracer_user::decode::decode;
use tracer_user::engine::cpython::{Interpreter, InterpreterAddresses, Surveyor};
use tracer_user::memory::{PageCache, ReadLimit, Snapshot};
use tracer_user::model::{RawRecord, RemoteAddress, SymbolMap};
use tracer_user::session::replay;
use tracer_user::symbol::{ElfFile, Functions};
use tracer_user::symbol_map::{Matchers, PythonRules, built_in, parse};

use changes::Changes;
pub use conversation::requests;

/// Names the sound ELF file of [`dwarf`].
pub const SOUND_ELF: &str = "ML_TRACER_FUZZ_ELF";

/// Functions of one file that are resolved: each of them may take long, and all are alike.
const MOST_RESOLVED: usize = 64;

/// Reads a file with everything that a process's file is read for.
pub fn elf(bytes: &[u8]) {
    let Ok(file) = ElfFile::parse(bytes, Path::new("fuzzed")) else { return };
    let Ok(functions) = Functions::read(file) else { return };
    let found = functions.find(|_| true, |_| Some(0));
    for candidate in found.candidates.iter().take(MOST_RESOLVED) {
        let _ = functions.resolve(candidate);
    }
}

/// The file that [`dwarf`] changes: a small program with debugging information, named by [`SOUND_ELF`].
///
/// # Panics
/// There is none: `cargo xtask fuzz` makes it.
#[must_use]
pub fn sound_elf() -> Vec<u8> {
    let path = std::env::var_os(SOUND_ELF).map(PathBuf::from).expect("`cargo xtask fuzz` names a sound file");
    std::fs::read(path).expect("the sound file can be read")
}

/// Reads a sound file whose debugging information was changed.
pub fn dwarf(sound: &[u8], changes: &[u8]) {
    let mut bytes = sound.to_vec();
    let sections = debugging_sections(sound);
    for change in Changes::new(changes) {
        let Some(section) = sections.get(usize::from(change.place) % sections.len().max(1)) else { return };
        change.apply(&mut bytes[section.clone()]);
    }
    elf(&bytes);
}

fn debugging_sections(bytes: &[u8]) -> Vec<Range<usize>> {
    let Ok(file) = object::File::parse(bytes) else { return Vec::new() };
    let is_debugging = |name: &str| name.starts_with(".debug_") || name == ".eh_frame" || name == ".gcc_except_table";
    let sections = file.sections().filter(|section| section.name().is_ok_and(is_debugging));
    sections
        .filter_map(|section| section.file_range())
        .map(|(start, size)| start as usize..(start + size) as usize)
        .filter(|range| !range.is_empty())
        .collect()
}

/// Decodes a record.
pub fn record(bytes: &[u8]) {
    let _ = decode(&RawRecord(bytes));
}

/// Replays a tape.
pub fn tape(bytes: &[u8]) {
    use std::os::fd::AsRawFd as _;
    let Ok(file) = rustix::fs::memfd_create(c"tape", MemfdFlags::CLOEXEC) else { return };
    if rustix::io::write(&file, bytes) != Ok(bytes.len()) {
        return;
    }
    let _ = replay(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), &[]);
}

/// Reads a symbol map, and makes of it what files and classes are compared with.
pub fn symbol_map(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(maps) = parse(text, Path::new("fuzzed.yaml"), false) else { return };
    let _ = PythonRules::new(&maps);
    if let Some(matcher) = Matchers::new(maps).for_file("libfuzzed.so") {
        let _ = matcher.may_match("_ZN5Model7predictEv");
    }
}

/// A recorded interpreter.
pub struct Recorded {
    memory: Snapshot,
    addresses: InterpreterAddresses,
}

/// The recorded interpreters of `tests/snapshots`.
///
/// # Panics
/// One of them cannot be read.
#[must_use]
pub fn recorded() -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots");
    let files = std::fs::read_dir(folder).expect("there are recordings");
    let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.sort();
    let load = |path: &PathBuf| {
        let memory = Snapshot::load(path).expect("a recording");
        let addresses = serde_json::from_value(memory.facts()["addresses"].clone()).expect("its addresses");
        Recorded { memory, addresses }
    };
    paths.iter().map(load).collect()
}

/// Looks at a recorded interpreter whose memory was changed, as at a process: the first byte tells which.
pub fn snapshot(recorded: &[Recorded], bytes: &[u8]) {
    let Some((version, changes)) = bytes.split_first() else { return };
    let Some(Recorded { memory, addresses }) = recorded.get(usize::from(*version) % recorded.len().max(1)) else {
        return;
    };
    let mut memory = memory.clone();
    let mut places: Vec<&mut [u8]> = memory.ranges_mut().collect();
    for change in Changes::new(changes) {
        let count = places.len().max(1);
        if let Some(place) = places.get_mut(usize::from(change.place) % count) {
            change.apply(place);
        }
    }
    let Ok(interpreter) = Interpreter::open(PageCache::new(&memory), addresses) else { return };
    let _ = (interpreter.threads(), interpreter.modules());
    let range = |(start, bytes): &(u64, Vec<u8>)| RemoteAddress(*start)..RemoteAddress(*start + bytes.len() as u64);
    let ranges: Vec<Range<RemoteAddress>> = memory.ranges().iter().map(range).collect();
    let rules = Arc::new(PythonRules::new(&rules()));
    let _ = Surveyor::new(rules).look(&interpreter, &memory, &ranges, &ReadLimit::default());
}

fn rules() -> Vec<SymbolMap> {
    built_in()
}
