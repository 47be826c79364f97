//! ELF bytes and the words that symbol maps ask for go in; functions with their names, entry and return sites come out, or
//! the reasons why not.

mod code;
mod code_pointers;
mod context_sites;
mod cpp_name;
mod cpp_path;
mod cython_name;
mod data_symbol;
mod disassembly;
mod dwarf_methods;
mod elf_file;
mod entry;
mod error;
mod exits;
mod first_argument;
mod function_name;
mod function_table;
mod future_maker;
mod handler_sites;
mod handler_table;
mod image;
mod indirect_jump;
mod interpreter;
mod jump_table;
mod loader_view;
mod name_parts;
mod object_location;
mod opcodes;
mod plain_frame;
mod probe_rules;
mod registers;
mod resolve;
mod returned_value;
mod runtime_sign;
mod rust_name;
mod suffix;
#[cfg(test)]
mod tests;
mod thunk;
mod unpack;
mod unsized_code;
mod unwind_proof;
mod unwind_table;
mod unwinding_site;

pub use data_symbol::{ExecutableSegments, LoadedAt};
pub use elf_file::ElfFile;
pub use error::SymbolError;
pub use function_table::{Candidate, Found, MATCH_LIMIT};
pub use resolve::Functions;
