//! What can go wrong between an address and what a Python object says.

use crate::memory::MemoryError;
use crate::model::RemoteAddress;

/// Why an interpreter cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpreterError {
    /// There is no layout for this version.
    #[error("CPython {version} is not known here: 3.8 to 3.15 are, see symbols/cpython")]
    UnknownVersion {
        /// Version as `3.15`.
        version: String,
    },
    /// It runs without the GIL.
    #[error(
        "this is a free-threaded CPython, which keeps its reference counts otherwise: its Python functions cannot be \
         traced, native ones can"
    )]
    FreeThreaded,
    /// No layout makes sense of what is there.
    #[error(
        "no layout of CPython 3.8 to 3.15 fits the runtime at {runtime} ({problem}): it is still starting, or was built in \
         an unusual way (debug build)"
    )]
    NoLayoutFits {
        /// Address of `_PyRuntime`.
        runtime: RemoteAddress,
        /// What was met with the layout that was tried last.
        problem: ReadProblem,
    },
    /// The runtime says what cannot be.
    #[error("reading the interpreter: {what} is {value:#x}, which cannot be; is it still starting?")]
    Implausible {
        /// What was read.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// Its memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Why an object gave nothing: it changed while it was read, is gone, or is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadProblem {
    /// Its memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// It is no object of this kind.
    #[error("the object at {address} is no {expected}")]
    WrongType {
        /// The object.
        address: RemoteAddress,
        /// What it should be.
        expected: &'static str,
    },
    /// What it says cannot be: it was changed or freed while it was read, or is damaged.
    #[error("the {what} at {address} cannot be as it reads: it was changed or freed meanwhile")]
    Torn {
        /// The object.
        address: RemoteAddress,
        /// What does not fit.
        what: &'static str,
    },
    /// It is larger than what is read.
    #[error("the {what} at {address} is too large to be read: {size}, at most {limit}")]
    TooLarge {
        /// The object.
        address: RemoteAddress,
        /// What is too large.
        what: &'static str,
        /// How large it says it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
}

impl ReadProblem {
    /// Whether reading again may succeed.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Torn { .. } | Self::TooLarge { .. } => true,
            Self::Memory(error) => matches!(error, MemoryError::Unmapped { .. }),
            Self::WrongType { .. } => false,
        }
    }
}
