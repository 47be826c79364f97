//! What every engine does, in the order in which things become known.

use std::io;
use std::path::PathBuf;

use crate::model::{ModuleFile, ProbeRequest, Skipped};
use crate::symbol::SymbolError;

/// A way of seeing calls: of native functions, of Python functions, of requests.
///
/// Its knowledge has three lifetimes, and each step may use only what is known by then:
/// 1. a name: whether a file is worth opening ([`Engine::recognises`]);
/// 2. a file: what it holds, the same for every process that maps it ([`Engine::facts`]; computed once and kept);
/// 3. a process: the probes for that file in that process ([`Engine::requests`]).
///
/// What an event means travels with the request that asked for it: a `ProbeRequest` becomes the `FunctionDescription` of
/// the function's spans, so that no engine is asked again for each event.
pub trait Engine {
    /// What is known of one file.
    type Facts;

    /// Whether a file of this name (no directories) can hold anything for this engine.
    fn recognises(&mut self, file_name: &str) -> bool;

    /// What a file holds.
    ///
    /// # Errors
    /// `EngineError` where the file cannot be opened or is malformed.
    fn facts(&mut self, module: &ModuleFile) -> Result<Self::Facts, EngineError>;

    /// The probes to place in one process that has mapped the file, and the candidates that get none.
    fn requests(&self, facts: &Self::Facts, module: &ModuleFile) -> Requests;
}

/// What an engine asks for in one file of one process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    /// The probes.
    pub requests: Vec<ProbeRequest>,
    /// Candidates that are not probed.
    pub skipped: Vec<Skipped>,
    /// What else is to be said of the file, one sentence each.
    pub remarks: Vec<String>,
    /// What may be the reason if nothing at all is found, one sentence part each.
    pub hints: Vec<String>,
}

/// Errors of the engines. Files of a process that cannot be read leave the rest of it traceable.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file could not be opened or looked at.
    #[error("opening {path} through {access_path}: {source}; has the process ended, or may the tracer not read it?")]
    Unreadable {
        /// Path as the process sees it.
        path: PathBuf,
        /// Path through which it was opened.
        access_path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file changed while it was read.
    #[error("{path} is being written to; it is looked at again once it has changed")]
    BeingWritten {
        /// Path as the process sees it.
        path: PathBuf,
    },
    /// The file is not what it should be.
    #[error(transparent)]
    Symbol(#[from] SymbolError),
}

impl EngineError {
    /// Whether the file may not be read.
    #[must_use]
    pub fn is_about_privilege(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}
