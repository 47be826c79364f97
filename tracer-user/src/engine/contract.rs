//! What every engine does, in the order in which things become known.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::memory::ReadLimit;
use crate::model::{
    ContextSites, InterpreterSite, InterpreterSites, Look, ModuleFile, NoInterpreterSites, ProbeRequest, ProcessId,
    PythonLayout, PythonRuntime, RemoteAddress, Skipped, Target, WitnessSite,
};
use crate::symbol::SymbolError;

/// A way of seeing calls: of native functions, of Python functions, of requests.
///
/// Its knowledge has three lifetimes, and each step may use only what is known by then:
/// 1. a name: whether a file is worth opening ([`Engine::recognises`]);
/// 2. a file: what it holds, the same for every process that maps it ([`Engine::facts`]);
/// 3. a process that has mapped the file ([`Engine::instance`]): an [`Instance`] is looked at, says what can be watched and
///    what an event means, and is forgotten by dropping it.
pub trait Engine {
    /// What is known of one file.
    type Facts;
    /// What is known of the file in one process.
    type Instance: Instance;

    /// Whether a file of this name (no directories) can hold anything for this engine.
    fn recognises(&mut self, file_name: &str) -> Recognition;

    /// What a file holds.
    ///
    /// # Errors
    /// `EngineError` where the file cannot be opened or is malformed.
    fn facts(&mut self, module: &ModuleFile, recognised: Recognition) -> Result<Self::Facts, EngineError>;

    /// One process that has mapped the file; `None` if the file holds nothing for this engine. `limit` is the one of all
    /// readings of the process's memory.
    ///
    /// # Errors
    /// `EngineError` where the memory of the process cannot be read or makes no sense.
    fn instance(
        &self,
        facts: &Self::Facts,
        module: &ModuleFile,
        limit: &ReadLimit,
    ) -> Result<Option<Self::Instance>, EngineError>;
}

/// Whether a file may hold anything for an engine, as far as its name tells. The more likely ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recognition {
    /// It need not be opened.
    No,
    /// It may, as any file.
    Perhaps,
    /// Its name says so.
    Likely,
}

/// What an engine knows of one process.
pub trait Instance {
    /// What a look finds.
    type Found;

    /// Looks at the process: what can be watched in it now.
    ///
    /// # Errors
    /// The process is gone or may not be read.
    fn look(&mut self) -> Result<Self::Found, EngineError>;

    /// The name behind an address in an event. `None`: there is none, or none any more, or everything that an event means
    /// was told with what was found (a `ProbeRequest` becomes the `FunctionDescription` of the function's spans).
    fn meaning(&self, address: RemoteAddress) -> Option<Arc<str>>;
}

/// An instance of a language runtime: its functions are objects that come and go while the process runs, so that it is looked
/// at again and again.
pub trait RuntimeInstance: Instance<Found = Look> + fmt::Debug + Send {
    /// Which runtime it is, and in which process.
    fn runtime(&self) -> &PythonRuntime;

    /// Where the runtime keeps the frames of its calls, for the programs in the kernel.
    ///
    /// # Errors
    /// The memory of the process cannot be read.
    fn layout(&self) -> Result<PythonLayout, EngineError>;

    /// The same instance for a thread of its own, which reads within this limit. What a look at it has learned takes the place
    /// of what is known here.
    fn to_look_at(&self, limit: &ReadLimit) -> Box<dyn RuntimeInstance>;

    /// The same in a process that was forked from this one and goes on in the same program: everything is where it was, and
    /// nothing has to be found again.
    fn in_fork(&self, process: ProcessId) -> Box<dyn RuntimeInstance>;

    /// Where every call passes in the file of the runtime.
    ///
    /// # Errors
    /// Why it cannot be probed there, for people.
    fn call_sites(&self, target: &Target) -> Result<InterpreterSites, EngineError>;

    /// Where a part of all calls passes in the file of the runtime, by which the others are found.
    ///
    /// # Errors
    /// Why it cannot be probed there, for people.
    fn witness_sites(&self, target: &Target) -> Result<Vec<WitnessSite>, EngineError>;

    /// Where exceptions pass in the file of the runtime; `None` where that cannot be told.
    fn exception_site(&self, target: &Target) -> Option<InterpreterSite>;

    /// Where contexts are made and freed in the file of the runtime, which tell for whom a call was made.
    ///
    /// # Errors
    /// Why they cannot be probed there, for people.
    fn context_sites(&self, target: &Target) -> Result<ContextSites, EngineError>;

    /// Path by which the tracer opens the file of the runtime; `None` if the process has not mapped it any more.
    fn file(&self, target: &Target) -> Option<PathBuf> {
        let name = &self.runtime().module;
        let module = target.modules.iter().find(|module| module.path.to_string_lossy() == name.as_str());
        module.map(|module| module.access_path.clone())
    }
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
    /// The file of a runtime cannot be opened to be probed, or can be probed in no place.
    #[error("{mode} mode, {module} of process {process}: {problem}")]
    NoCallSites {
        /// The mode that wants to.
        mode: &'static str,
        /// Path as the process sees it.
        module: String,
        /// The process.
        process: ProcessId,
        /// Why not.
        problem: NoCallSites,
    },
    /// What an engine of a runtime says of the memory of a process.
    #[error(transparent)]
    Runtime(Box<dyn Error + Send + Sync>),
}

impl EngineError {
    /// Whether the file may not be read.
    #[must_use]
    pub fn is_about_privilege(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Why a runtime cannot be probed where its calls pass.
#[derive(Debug, thiserror::Error)]
pub enum NoCallSites {
    /// The process has not mapped its file any more.
    #[error("its file is not mapped")]
    NotMapped,
    /// Its file could not be opened.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Its file is not what it should be.
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    /// There is no place that all calls pass.
    #[error("{0}; `--python watch` does without")]
    NoPlace(NoInterpreterSites),
}
