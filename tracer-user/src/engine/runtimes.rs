//! The engines of language runtimes: a process goes in, the runtime that it runs comes out.

use super::contract::{EngineError, RuntimeInstance};
use super::cpython::{self, CpythonEngine};
use crate::memory::ReadLimit;
use crate::model::{RuntimeCoverage, SymbolMap, Target, counted};

/// Instances that are told of at length: workers of a server say the same again and again.
const MOST_TOLD: usize = 8;

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

    /// What a person should know of what was traced of these instances, in sentences. `spans` gives the methods of a process that
    /// have spans, those with the most first.
    #[must_use]
    pub fn remarks<'span>(coverage: &[RuntimeCoverage], spans: impl Fn(u32) -> Vec<(&'span str, u64)>) -> Vec<String> {
        let told = coverage.iter().take(MOST_TOLD);
        let mut remarks: Vec<String> =
            told.flat_map(|coverage| cpython::remarks(coverage, &spans(coverage.process))).collect();
        let more = coverage.len().saturating_sub(MOST_TOLD);
        if more > 0 {
            let interpreters = counted(more as u64, "more interpreter", "more interpreters");
            remarks.push(format!("{interpreters} (`--summary` has everything)"));
        }
        remarks
    }

    /// What was left out of all of them for want of room, in a sentence.
    #[must_use]
    pub fn left_out(coverage: &[RuntimeCoverage]) -> Option<String> {
        cpython::left_out(coverage)
    }
}
