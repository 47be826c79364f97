//! Signs that a file's code runs under a runtime that walks, moves or leaves stacks on its own. A return probe puts an
//! address of the kernel's on the stack, and such a runtime ends the program when it meets one that it does not know.

use object::endian::LittleEndian;
use object::read::ReadRef;
use object::read::elf::Sym;

use super::elf_file::ElfFile;
use super::error::SymbolError;

/// How Go's table of program counters begins, by version (1.20, 1.18, 1.16, 1.2): a number, two zero bytes, the smallest
/// size of an instruction and the size of a pointer. Source: Go `internal/abi/symtab.go`.
const GO_TABLE_STARTS: [[u8; 8]; 4] = [
    [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8],
    [0xf0, 0xff, 0xff, 0xff, 0, 0, 1, 8],
    [0xfa, 0xff, 0xff, 0xff, 0, 0, 1, 8],
    [0xfb, 0xff, 0xff, 0xff, 0, 0, 1, 8],
];
/// Most bytes that are searched for Go's table, where a file has no sections.
const SEARCH_LIMIT: u64 = 256 << 20;

/// How a runtime is known.
enum Sign {
    Section(&'static str),
    /// A symbol, defined here or asked for.
    Symbol(&'static str),
}

use Sign::{Section, Symbol};

/// Every sign, with what stands behind it.
const SIGNS: &[(Sign, Runtime)] = &[
    // Go walks and copies stacks for its garbage collector, for growth and in signal handlers: "unexpected return pc".
    (Section(".gopclntab"), Runtime::Go),
    (Section(".data.rel.ro.gopclntab"), Runtime::Go),
    (Section(".go.buildinfo"), Runtime::Go),
    // Split stacks: a function goes on on another stack when its own is too small, and comes back by __morestack.
    (Section(".note.GNU-split-stack"), Runtime::Other),
    (Symbol("__morestack"), Runtime::Other),
    // OCaml's collector looks each return address up in a table of its own, and stops at none that is not there.
    (Symbol("caml_frametable"), Runtime::Other),
    // .NET compiled ahead of time: the collector walks stacks and puts return addresses of its own there.
    (Section("__managedcode"), Runtime::Other),
    // Mono compiled ahead of time: the same.
    (Symbol("mono_aot_file_info"), Runtime::Other),
    // GraalVM's native images end with "unknown frame" in a stack walk of their collector.
    (Symbol("__svm_heap_begin"), Runtime::Other),
    // V8's collector tells the frames of its built-in functions by their return addresses.
    (Symbol("Builtins_JSEntry"), Runtime::Other),
    // Languages in which a signal handler throws, from any instruction: Ada, Go by gcc, Java by gcc.
    (Symbol("__gnat_personality_v0"), Runtime::Other),
    (Symbol("__gccgo_personality_v0"), Runtime::Other),
    (Symbol("__gcj_personality_v0"), Runtime::Other),
    // Threads that can be cancelled at any instruction.
    (Symbol("pthread_setcanceltype"), Runtime::Other),
];

/// A runtime that return probes do not go with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    /// Go, whose functions move between threads and between stacks even while they run.
    Go,
    /// Another one.
    Other,
}

/// The first sign that a file shows.
///
/// # Errors
/// Where a symbol table does not lie within the file.
pub(super) fn find<'data, R: ReadRef<'data>>(file: &ElfFile<'data, R>) -> Result<Option<Runtime>, SymbolError> {
    let by_section = SIGNS.iter().find(|(sign, _)| matches!(sign, Section(name) if file.section(name).is_some()));
    if let Some((_, runtime)) = by_section {
        return Ok(Some(*runtime));
    }
    if !file.has_sections() && has_go_table(file) {
        return Ok(Some(Runtime::Go));
    }
    for table in file.symbol_tables()? {
        for symbol in table.symbols {
            let name = usize::try_from(symbol.st_name(LittleEndian)).ok().and_then(|start| table.names.get(start..));
            let Some(name) = name else { continue };
            let is_name =
                |wanted: &str| name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
            let sign = SIGNS.iter().find(|(sign, _)| matches!(sign, Symbol(wanted) if is_name(wanted)));
            if let Some((_, runtime)) = sign {
                return Ok(Some(*runtime));
            }
        }
    }
    Ok(None)
}

/// Whether Go's table lies somewhere in the data of a file, at an address that it can have.
fn has_go_table<'data, R: ReadRef<'data>>(file: &ElfFile<'data, R>) -> bool {
    file.data_segments(SEARCH_LIMIT).any(|bytes| {
        let (rows, _) = bytes.as_chunks::<8>();
        rows.iter().step_by(2).any(|row| GO_TABLE_STARTS.contains(row))
    })
}
