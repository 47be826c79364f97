//! The engines of language runtimes: a process goes in, the runtime that it runs comes out.

use super::contract::{EngineError, RuntimeInstance};
use super::cpython::CpythonEngine;
use crate::memory::ReadLimit;
use crate::model::{SymbolMap, Target};

/// One engine for each kind of runtime.
#[derive(Clone, Debug)]
pub struct Runtimes {
    cpython: CpythonEngine,
}

impl Runtimes {
    /// Engines for these maps; of two that are about the same class the later one wins.
    #[must_use]
    pub fn new(maps: &[SymbolMap]) -> Self {
        Self { cpython: CpythonEngine::new(maps) }
    }

    /// The runtime of a process; `None` if it runs none that is known. `limit` ends the readings of this and every later look.
    ///
    /// # Errors
    /// There is one and it cannot be read: it is of an unknown version or still starting, or the process is gone.
    pub fn find(&self, target: &Target, limit: &ReadLimit) -> Result<Option<Box<dyn RuntimeInstance>>, EngineError> {
        let found = self.cpython.clone().find(target, limit)?;
        Ok(found.map(|instance| Box::new(instance) as Box<dyn RuntimeInstance>))
    }

    /// Whether the process has mapped a file that may hold a runtime.
    #[must_use]
    pub fn may_be_in(target: &Target) -> bool {
        target.modules.iter().any(|module| CpythonEngine::may_be_in(&module.file_name()))
    }
}
