//! An interpreter that was found and understood: its version, threads and modules.

use std::cell::RefCell;
use std::collections::HashMap;

use super::builtin_types::BuiltinTypes;
use super::debug_offsets;
use super::error::{InterpreterError, ReadProblem};
use super::interpreter_file::InterpreterAddresses;
use super::layout::Layout;
use super::type_facts::TypeFacts;
use crate::memory::{Memory, MemoryError};
use crate::model::RemoteAddress;

/// Most interpreters of one process.
const INTERPRETER_LIMIT: usize = 64;
/// Most threads of one process (Linux allows 2^22 in all; a few hundred is much).
const THREAD_LIMIT: usize = 1 << 16;
/// Most modules of one process.
const MODULE_LIMIT: usize = 1 << 17;
/// How often something that changes while it is read is tried.
const ATTEMPTS: u32 = 3;
/// Where the first digit of an int is, in every version (Include/cpython/longintrepr.h; 30 bits each).
pub(super) const INTEGER_DIGIT: u32 = 24;

/// A CPython interpreter, read from outside.
///
/// Everything that it is asked may fail: the process goes on while it is read. What does not fit together is an error, so
/// that no name comes out that is not there.
#[derive(Debug)]
pub struct Interpreter<M> {
    pub(super) memory: M,
    pub(super) layout: Layout,
    pub(super) runtime: RemoteAddress,
    /// The main interpreter.
    pub(super) state: RemoteAddress,
    pub(super) types: BuiltinTypes,
    /// Types that were looked at since the last refresh.
    pub(super) known_types: RefCell<HashMap<RemoteAddress, TypeFacts>>,
    version: (u8, u8, u8),
    tells_offsets: bool,
}

/// A thread that Python knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadView {
    /// Address of its `PyThreadState`.
    pub address: RemoteAddress,
    /// Thread id in its own pid namespace, from 3.11; 0 for a thread that has not run yet.
    pub native_identifier: Option<u64>,
    /// `threading.get_ident()`, a `pthread_t`.
    pub identifier: u64,
}

impl<M: Memory> Interpreter<M> {
    /// Finds out which CPython is there: by what it tells (from 3.13), else by trying each layout until
    /// `sys.hexversion`, read with it, says the same version.
    ///
    /// # Errors
    /// It is no CPython 3.8 to 3.15 with a GIL, is still starting, or cannot be read.
    pub fn open(memory: M, addresses: &InterpreterAddresses) -> Result<Self, InterpreterError> {
        let runtime = addresses.runtime;
        let mut found = Self {
            layout: Layout::of_version(3, 8)?,
            memory,
            runtime,
            state: runtime,
            types: BuiltinTypes::default(),
            known_types: RefCell::default(),
            version: (0, 0, 0),
            tells_offsets: false,
        };
        // Whether it can be read at all, before anything is concluded from what it says.
        found.memory.read(runtime, &mut [0; 8])?;
        let told = debug_offsets::version(&found.memory, runtime);
        let candidates = match told {
            Some((major, minor, _)) => {
                let layout = Layout::of_version(major, minor)?;
                vec![debug_offsets::apply(layout, &found.memory, runtime)?]
            }
            None => {
                let layouts = Layout::versions().filter_map(|(major, minor)| Layout::of_version(major, minor).ok());
                layouts.filter(|layout| layout.debug_offsets.is_none()).collect()
            }
        };
        found.tells_offsets = told.is_some();
        let mut last = ReadProblem::Torn { address: runtime, what: "module sys" };
        for layout in candidates {
            match found.try_layout(layout, addresses) {
                Ok(true) => return Ok(found),
                Ok(false) => {}
                Err(ReadProblem::Memory(error @ (MemoryError::Gone { .. } | MemoryError::NotPermitted { .. }))) => {
                    return Err(error.into());
                }
                Err(problem) => {
                    tracing::debug!(version = found.layout.version(), %problem, "a layout does not fit");
                    last = problem;
                }
            }
        }
        Err(InterpreterError::NoLayoutFits { runtime, problem: last })
    }

    /// Takes a layout if what is read with it makes sense and is of its version.
    fn try_layout(&mut self, layout: Layout, addresses: &InterpreterAddresses) -> Result<bool, ReadProblem> {
        self.layout = layout;
        let mut last = ReadProblem::Torn { address: self.runtime, what: "runtime" };
        for _ in 0..ATTEMPTS {
            self.refresh();
            match self.look(addresses) {
                Ok(fits) => return Ok(fits),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    fn look(&mut self, addresses: &InterpreterAddresses) -> Result<bool, ReadProblem> {
        let torn = ReadProblem::Torn { address: self.runtime, what: "list of interpreters" };
        // A new interpreter is put in front: the first one is the last of the list.
        self.state = *self.interpreters()?.last().ok_or(torn)?;
        // Before anything else: in a wrong layout most ends here.
        self.threads()?;
        let modules = self.modules()?;
        let Some((_, sys)) = modules.iter().find(|(name, _)| name == "sys") else { return Ok(false) };
        let Some(version) = self.dict_value(*sys, "hexversion")? else { return Ok(false) };
        // It is less than 2^30 up to version 63.
        self.version = debug_offsets::version_of_hex(u64::from(self.small_integer(version)?));
        let (major, minor, _) = self.version;
        if format!("{major}.{minor}") != self.layout.version() {
            return Ok(false);
        }
        self.types = self.find_types(addresses)?;
        Ok(true)
    }

    /// Version as `(major, minor, micro)`.
    #[must_use]
    pub fn version(&self) -> (u8, u8, u8) {
        self.version
    }

    /// Where the layout was taken from, for people.
    #[must_use]
    pub fn layout_source(&self) -> String {
        let file = format!("symbols/cpython/{}.yaml", self.layout.version());
        if self.tells_offsets { format!("_Py_DebugOffsets of the interpreter, {file}") } else { file }
    }

    /// The same interpreter, read from other memory that holds it at the same addresses.
    #[must_use]
    pub fn with_memory<Other>(&self, memory: Other) -> Interpreter<Other> {
        Interpreter {
            memory,
            layout: self.layout.clone(),
            runtime: self.runtime,
            state: self.state,
            types: self.types.clone(),
            known_types: RefCell::default(),
            version: self.version,
            tells_offsets: self.tells_offsets,
        }
    }

    /// The memory that it is read from.
    #[must_use]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The memory, when nothing more is read.
    #[must_use]
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// Addresses of built-in types.
    #[must_use]
    pub fn types(&self) -> &BuiltinTypes {
        &self.types
    }

    /// Forgets what was read: the next readings see the process as it is then. To be called at the start of each look at
    /// a process that goes on.
    pub fn refresh(&self) {
        self.known_types.borrow_mut().clear();
        self.memory.refresh();
    }

    /// Reads something, and again from fresh memory if it was changed meanwhile, at most three times.
    ///
    /// # Errors
    /// What the last attempt met.
    pub fn retrying<T>(&self, read: impl Fn(&Self) -> Result<T, ReadProblem>) -> Result<T, ReadProblem> {
        let mut result = read(self);
        for _ in 1..ATTEMPTS {
            match &result {
                Err(problem) if problem.is_worth_a_retry() => {
                    self.refresh();
                    result = read(self);
                }
                _ => break,
            }
        }
        result
    }

    /// Reads something until two readings, each from fresh memory, agree: then no part of it was replaced by something
    /// else that looks as good (the place of a freed string is soon taken by another one). At most three pairs.
    ///
    /// # Errors
    /// What the last attempt met, or that it changes all the time.
    pub fn confirmed<T: PartialEq>(&self, read: impl Fn(&Self) -> Result<T, ReadProblem>) -> Result<T, ReadProblem> {
        let mut before = self.retrying(&read)?;
        for _ in 0..ATTEMPTS {
            self.refresh();
            let now = self.retrying(&read)?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
        Err(ReadProblem::Torn { address: self.runtime, what: "reading" })
    }

    /// All interpreters of the process, the main one last.
    ///
    /// # Errors
    /// The list cannot be read or has no end.
    pub fn interpreters(&self) -> Result<Vec<RemoteAddress>, ReadProblem> {
        let mut found = Vec::new();
        let mut next = self.pointer(self.runtime, self.layout.runtime.interpreters_head)?;
        while let Some(interpreter) = next {
            if found.len() >= INTERPRETER_LIMIT {
                return Err(ReadProblem::Torn { address: self.runtime, what: "list of interpreters" });
            }
            found.push(interpreter);
            next = self.pointer(interpreter, self.layout.interpreter.next)?;
        }
        Ok(found)
    }

    /// All threads that Python knows, of all interpreters.
    ///
    /// # Errors
    /// A list cannot be read, has no end, or changed meanwhile.
    pub fn threads(&self) -> Result<Vec<ThreadView>, ReadProblem> {
        let layout = &self.layout.thread;
        let mut found = Vec::new();
        for interpreter in self.interpreters()? {
            let torn = || ReadProblem::Torn { address: interpreter, what: "list of threads" };
            let mut next = self.pointer(interpreter, self.layout.interpreter.threads_head)?;
            while let Some(thread) = next {
                if found.len() >= THREAD_LIMIT || self.pointer(thread, layout.interp)? != Some(interpreter) {
                    return Err(torn());
                }
                found.push(ThreadView {
                    address: thread,
                    native_identifier: layout.native_thread_id.map(|offset| self.u64(thread, offset)).transpose()?,
                    identifier: self.u64(thread, layout.thread_id)?,
                });
                next = self.pointer(thread, layout.next)?;
            }
        }
        Ok(found)
    }

    /// `sys.modules` of all interpreters: names, and the dictionaries of the modules. What is there and is no module is
    /// left out.
    ///
    /// # Errors
    /// A dictionary changed while it was read.
    pub fn modules(&self) -> Result<Vec<(String, RemoteAddress)>, ReadProblem> {
        let mut found = Vec::new();
        for interpreter in self.interpreters()?.into_iter().rev() {
            let Some(modules) = self.pointer(interpreter, self.layout.interpreter.modules)? else { continue };
            let entries = self.named(self.dict_entries(modules)?)?;
            let Some((_, sys)) = entries.iter().find(|(name, _)| name == "sys") else { continue };
            let module_type = self.type_of(*sys)?;
            for (name, module) in entries {
                if found.len() >= MODULE_LIMIT {
                    return Err(ReadProblem::Torn { address: modules, what: "sys.modules" });
                }
                // What is freed by now is no module any more.
                if let Ok(Some(dict)) = self.module_dictionary(module, module_type) {
                    found.push((name, dict));
                }
            }
        }
        Ok(found)
    }

    /// Whether the main interpreter is ending: before anything else it puts `None` in the place of every module, then takes them out
    /// (`finalize_modules`, Python/pylifecycle.c, CPython 3.12).
    ///
    /// # Errors
    /// Its modules changed while they were read.
    pub fn is_ending(&self) -> Result<bool, ReadProblem> {
        let Some(modules) = self.pointer(self.state, self.layout.interpreter.modules)? else { return Ok(true) };
        let is_empty = self.u64(modules, self.layout.dictionary.ma_used)? == 0;
        Ok(is_empty || self.dict_value(modules, "sys")? == self.dict_value(modules, "builtins")?)
    }

    /// Dictionary of a module; `None` for what is no module. Some modules replace themselves by an instance of a
    /// subclass.
    pub(super) fn module_dictionary(
        &self,
        module: RemoteAddress,
        module_type: RemoteAddress,
    ) -> Result<Option<RemoteAddress>, ReadProblem> {
        let class = self.type_of(module)?;
        if class != module_type && !self.mro(class)?.contains(&module_type) {
            return Ok(None);
        }
        self.pointer(module, self.layout.module.md_dict)
    }

    /// The type of modules.
    pub(super) fn module_type(&self) -> Result<RemoteAddress, ReadProblem> {
        let torn = ReadProblem::Torn { address: self.state, what: "module sys" };
        let modules = self.required(self.state, self.layout.interpreter.modules, "sys.modules")?;
        self.type_of(self.dict_value(modules, "sys")?.ok_or(torn)?)
    }
}
