//! A process goes in; if it runs CPython, what is to be known about its functions, objects and frames comes out.

use std::sync::Arc;
use std::time::Duration;

use super::{Interpreter, InterpreterAddresses, InterpreterError, ReadProblem, Surveyor};
use crate::memory::{LimitedMemory, LiveProcess, MemoryError, PageCache, ReadLimit, heap_ranges};
use crate::model::{ProcessId, PythonLayout, PythonRuntime, PythonSurvey, RemoteAddress, Target};
use crate::symbol_map::PythonRules;

/// Finding an interpreter in the memory of a process takes so long at most.
const FINDING: Duration = Duration::from_secs(2);

/// Reading one name takes so long at most.
const NAMING: Duration = Duration::from_millis(50);

/// Memory of a running process as an interpreter is read from it.
type ProcessMemory = LimitedMemory<PageCache<LiveProcess>>;

/// The interpreter of one running process.
#[derive(Debug)]
pub struct CpythonEngine {
    runtime: PythonRuntime,
    process: LiveProcess,
    interpreter: Interpreter<ProcessMemory>,
    surveyor: Surveyor,
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
    /// The process is gone or may not be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl CpythonEngine {
    /// Finds the interpreter of a process; `None` if none of its files holds one. `limit` ends this and every later reading.
    ///
    /// # Errors
    /// There is one and it cannot be read: it is of an unknown version or still starting, or the process is gone.
    pub fn open(target: &Target, rules: PythonRules, limit: &ReadLimit) -> Result<Option<Self>, CpythonError> {
        let process = LiveProcess::new(target.process.pid);
        limit.allow(FINDING);
        let mut problem = None;
        for (module, addresses) in InterpreterAddresses::in_modules(&target.modules) {
            match Interpreter::open(memory_of(process, limit), &addresses) {
                Ok(interpreter) => {
                    let runtime = PythonRuntime {
                        process: target.process,
                        version: interpreter.version(),
                        module: module.path.to_string_lossy().into_owned(),
                        layout_source: interpreter.layout_source(),
                    };
                    let surveyor = Surveyor::new(rules);
                    return Ok(Some(Self { runtime, process, interpreter, surveyor, limit: limit.clone() }));
                }
                // A process may have mapped an interpreter that it does not run: another file may hold the one it runs.
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(None), |problem| Err(problem.into()))
    }

    /// The same interpreter in a process that was forked from this one and goes on in the same program: everything is
    /// where it was, and nothing has to be found again.
    #[must_use]
    pub fn in_fork(&self, process: ProcessId) -> Self {
        self.within(process, &ReadLimit::default())
    }

    /// The same interpreter, to be looked at from another thread within a limit of its own. What that look has learned takes
    /// the place of this one afterwards.
    #[must_use]
    pub fn to_look_at(&self, limit: &ReadLimit) -> Self {
        self.within(self.runtime.process, limit)
    }

    fn within(&self, process: ProcessId, limit: &ReadLimit) -> Self {
        let memory = LiveProcess::new(process.pid);
        Self {
            runtime: PythonRuntime { process, ..self.runtime.clone() },
            process: memory,
            interpreter: self.interpreter.with_memory(memory_of(memory, limit)),
            surveyor: self.surveyor.clone(),
            limit: limit.clone(),
        }
    }

    /// What was found.
    #[must_use]
    pub fn runtime(&self) -> &PythonRuntime {
        &self.runtime
    }

    /// Offsets for the programs in the kernel.
    ///
    /// # Errors
    /// The interpreter cannot be read.
    pub fn kernel_layout(&self) -> Result<PythonLayout, CpythonError> {
        self.limit.allow(FINDING);
        let layout = self.interpreter.retrying(Interpreter::kernel_layout);
        layout.map_err(|problem| CpythonError::Unsteady { pid: self.runtime.process.pid, problem })
    }

    /// Looks for what the symbol maps ask for. A later look is quicker: it goes through memory once.
    ///
    /// # Errors
    /// The process is gone or may not be read.
    pub fn survey(&mut self) -> Result<PythonSurvey, CpythonError> {
        let pid = self.runtime.process.pid;
        let heap = LimitedMemory::new(self.process, self.limit.clone());
        let survey = self.surveyor.look(&self.interpreter, &heap, &heap_ranges(pid)?, &self.limit);
        if self.limit.is_cancelled() {
            return Err(MemoryError::OutOfTime.into());
        }
        // It may have ended since: nothing found would look like a process without models.
        if self.surveyor.memory_read() > 0 { Ok(survey) } else { Err(MemoryError::Gone { pid }.into()) }
    }

    /// Bytes of memory that the last survey went through.
    #[must_use]
    pub fn memory_read(&self) -> u64 {
        self.surveyor.memory_read()
    }

    /// The name under which a class is shown, `None` if there is none at this address, or no longer: the bare name, for an
    /// exception that of `error.type`: with its module, unless it is built in.
    #[must_use]
    pub fn shown_name(&self, address: RemoteAddress) -> Option<Arc<str>> {
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

fn memory_of(process: LiveProcess, limit: &ReadLimit) -> ProcessMemory {
    LimitedMemory::new(PageCache::new(process), limit.clone())
}
