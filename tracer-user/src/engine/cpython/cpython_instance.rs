//! CPython in one process: what is to be known about its functions, objects and frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::error::{InterpreterError, ReadProblem};
use super::interpreter::Interpreter;
use super::interpreter_file::{CONTEXT_TYPE, InterpreterAddresses, InterpreterFile};
use super::survey::Surveyor;
use crate::engine::contract::{EngineError, Instance, NoCallSites, RuntimeInstance};
use crate::memory::{LimitedMemory, LiveProcess, MemoryError, PageCache, ReadLimit, heap_ranges};
use crate::model::{
    ContextSites, InterpreterSite, InterpreterSites, Look, NoInterpreterSites, ProcessId, PythonLayout, PythonRuntime,
    PythonSurvey, RemoteAddress, Target, WitnessSite,
};
use crate::symbol_map::PythonRules;

/// Finding an interpreter in the memory of a process, or its types, takes so long at most.
pub(super) const FINDING: Duration = Duration::from_secs(2);

/// Where a type keeps the function that frees its objects (`tp_dealloc` in `PyTypeObject`, Include/cpython/object.h, CPython 3.8 to
/// 3.15).
const TP_DEALLOC: u32 = 48;

/// Reading one name takes so long at most.
const NAMING: Duration = Duration::from_millis(50);

/// Memory of a running process as an interpreter is read from it.
type ProcessMemory = LimitedMemory<PageCache<LiveProcess>>;

/// The interpreter of one running process.
#[derive(Debug)]
pub struct CpythonInstance {
    runtime: PythonRuntime,
    file: Arc<InterpreterFile>,
    process: LiveProcess,
    interpreter: Interpreter<ProcessMemory>,
    surveyor: Surveyor,
    /// The type of contexts.
    context_type: Option<RemoteAddress>,
    limit: ReadLimit,
}

/// Why an interpreter tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum CpythonError {
    /// It is there and cannot be read.
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    /// Something in it was changing all the time.
    #[error("reading the interpreter of process {pid}: {problem}; try again")]
    Unsteady {
        /// The process.
        pid: u32,
        /// What was met last.
        problem: ReadProblem,
    },
    /// It is ending: what is left in it says nothing of what there was.
    #[error("the interpreter of process {pid} is ending")]
    Ending {
        /// The process.
        pid: u32,
    },
    /// The process is gone or may not be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl CpythonInstance {
    /// Understands the interpreter of a process at these addresses. `module` is its file, as the process names it; `limit` ends
    /// this and every later reading.
    ///
    /// # Errors
    /// It cannot be read: it is of an unknown version or still starting, or the process is gone.
    pub(super) fn open(
        (process, module, file): (ProcessId, String, Arc<InterpreterFile>),
        addresses: &InterpreterAddresses,
        rules: Arc<PythonRules>,
        limit: &ReadLimit,
    ) -> Result<Self, InterpreterError> {
        let memory = LiveProcess::new(process.pid);
        let interpreter = Interpreter::open(memory_of(memory, limit), addresses)?;
        let runtime = PythonRuntime {
            process,
            version: interpreter.version(),
            module,
            layout_source: interpreter.layout_source(),
        };
        let (context_type, limit) = (addresses.types.get(CONTEXT_TYPE).copied(), limit.clone());
        Ok(Self { runtime, file, process: memory, interpreter, surveyor: Surveyor::new(rules), context_type, limit })
    }

    pub(super) fn reading_routes(self, reads_routes: bool) -> Self {
        Self { surveyor: self.surveyor.reading_routes(reads_routes), ..self }
    }

    fn within(&self, process: ProcessId, limit: &ReadLimit) -> Self {
        let memory = LiveProcess::new(process.pid);
        Self {
            runtime: PythonRuntime { process, ..self.runtime.clone() },
            file: Arc::clone(&self.file),
            process: memory,
            interpreter: self.interpreter.with_memory(memory_of(memory, limit)),
            surveyor: self.surveyor.clone(),
            context_type: self.context_type,
            limit: limit.clone(),
        }
    }

    /// Offsets for the programs in the kernel.
    ///
    /// # Errors
    /// The interpreter cannot be read.
    fn kernel_layout(&self) -> Result<PythonLayout, CpythonError> {
        self.limit.allow(FINDING);
        let layout = self.interpreter.retrying(Interpreter::kernel_layout);
        layout.map_err(|problem| CpythonError::Unsteady { pid: self.runtime.process.pid, problem })
    }

    /// There is no place in its file for the probes of a mode.
    fn no_sites(&self, mode: &'static str, problem: NoCallSites) -> EngineError {
        EngineError::NoCallSites { mode, module: self.runtime.module.clone(), process: self.runtime.process, problem }
    }

    /// Looks for what the symbol maps ask for. A later look is quicker: it goes through memory once.
    ///
    /// # Errors
    /// The process is gone or may not be read.
    fn survey(&mut self) -> Result<PythonSurvey, CpythonError> {
        let pid = self.runtime.process.pid;
        let heap = LimitedMemory::new(self.process, self.limit.clone());
        self.limit.allow(FINDING);
        self.interpreter.refresh();
        self.interpreter.find_imported_types();
        let survey = self.surveyor.look(&self.interpreter, &heap, &heap_ranges(pid)?, &self.limit);
        if self.limit.is_cancelled() {
            return Err(MemoryError::OutOfTime.into());
        }
        self.limit.allow(FINDING);
        self.interpreter.refresh();
        if self.interpreter.retrying(Interpreter::is_ending).is_ok_and(|is_ending| is_ending) {
            return Err(CpythonError::Ending { pid });
        }
        // It may have ended since: nothing found would look like a process without models.
        if self.surveyor.memory_read() > 0 { Ok(survey) } else { Err(MemoryError::Gone { pid }.into()) }
    }

    /// The name under which a class is shown, `None` if there is none at this address, or no longer: the bare name, for an
    /// exception that of `error.type`: with its module, unless it is built in.
    fn shown_name(&self, address: RemoteAddress) -> Option<Arc<str>> {
        self.interpreter.refresh();
        self.limit.allow(NAMING);
        let read = |interpreter: &Interpreter<ProcessMemory>| {
            let class = interpreter.class(address)?;
            // `object` comes last, and before it what all exceptions have in common.
            let ancestor = interpreter.mro(address)?.iter().rev().nth(1).copied();
            let is_exception = match ancestor {
                Some(base) => interpreter.class(base)?.name == "BaseException",
                None => false,
            };
            Ok((class, is_exception))
        };
        let (class, is_exception) = self.interpreter.retrying(read).ok()?;
        Some(match is_exception {
            false => class.name.into(),
            true if class.module == "builtins" => class.qualified_name.into(),
            true => class.path().into(),
        })
    }
}

impl Instance for CpythonInstance {
    type Found = Look;

    fn look(&mut self) -> Result<Look, EngineError> {
        let survey = self.survey()?;
        Ok(Look { survey, memory_read: self.surveyor.memory_read() })
    }

    fn meaning(&self, address: RemoteAddress) -> Option<Arc<str>> {
        self.shown_name(address)
    }
}

impl RuntimeInstance for CpythonInstance {
    fn runtime(&self) -> &PythonRuntime {
        &self.runtime
    }

    fn layout(&self) -> Result<PythonLayout, EngineError> {
        Ok(self.kernel_layout()?)
    }

    fn to_look_at(&self, limit: &ReadLimit) -> Box<dyn RuntimeInstance> {
        Box::new(self.within(self.runtime.process, limit))
    }

    fn in_fork(&self, process: ProcessId) -> Box<dyn RuntimeInstance> {
        Box::new(self.within(process, &ReadLimit::default()))
    }

    fn call_sites(&self, target: &Target) -> Result<InterpreterSites, EngineError> {
        let (major, minor, _) = self.runtime.version;
        let path = self.file(target).ok_or(NoCallSites::NotMapped);
        let sites = path.and_then(|path| self.file.call_sites(&path, (major, minor)));
        sites.map_err(|problem| self.no_sites("frames", problem))
    }

    fn witness_sites(&self, target: &Target) -> Result<Vec<WitnessSite>, EngineError> {
        let (major, minor, _) = self.runtime.version;
        let path = self.file(target).ok_or(NoCallSites::NotMapped);
        let sites = path.and_then(|path| self.file.witness_sites(&path, (major, minor)));
        sites.map_err(|problem| self.no_sites("chain", problem))
    }

    fn context_sites(&self, target: &Target) -> Result<ContextSites, EngineError> {
        let sites = || {
            let path = self.file(target).ok_or(NoCallSites::NotMapped)?;
            let context_type = self.context_type.ok_or(NoCallSites::NoPlace(NoInterpreterSites::NoContextType))?;
            self.limit.allow(FINDING);
            let freeing = self.interpreter.retrying(|interpreter| interpreter.u64(context_type, TP_DEALLOC));
            let freeing = freeing.map_err(|problem| NoCallSites::Unreadable(io::Error::other(problem)))?;
            self.file.context_sites(&path, context_type, RemoteAddress(freeing))
        };
        sites().map_err(|problem| self.no_sites("requests", problem))
    }

    fn exception_site(&self, target: &Target) -> Option<InterpreterSite> {
        self.file.exception_site(&self.file(target)?)
    }
}

impl From<CpythonError> for EngineError {
    fn from(error: CpythonError) -> Self {
        Self::Runtime(Box::new(error))
    }
}

fn memory_of(process: LiveProcess, limit: &ReadLimit) -> ProcessMemory {
    LimitedMemory::new(PageCache::new(process), limit.clone())
}
