//! Why a file cannot be looked into at all.

use std::path::PathBuf;

/// Errors of the symbol room. What is missing inside a readable file is a `SkipReason`, not an error.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The file is no ELF file, or its headers are cut off or contradict each other.
    #[error("{path} cannot be read as an ELF file: {detail}; is it a program or a library, and complete?")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser found wrong.
        detail: object::read::Error,
    },
    /// The file is an ELF file, but not a 64-bit little-endian one.
    #[error("reading {path}: it is a 32-bit or big-endian ELF file; ml-tracer traces 64-bit x86 processes")]
    WrongClass {
        /// The file.
        path: PathBuf,
    },
    /// A table is larger than any real program's.
    #[error("reading {path}: its {table} would take {bytes} bytes of memory, more than the limit of {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which table.
        table: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
}
