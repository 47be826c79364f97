//! The CPython engine: which files hold an interpreter, and which processes run it.

use std::cmp::Reverse;
use std::sync::Arc;

use super::cpython_instance::{CpythonError, CpythonInstance, FINDING};
use super::interpreter_file::InterpreterFile;
use crate::engine::contract::{Engine, EngineError, Recognition};
use crate::memory::ReadLimit;
use crate::model::{ModuleFile, SymbolMap, Target};
use crate::symbol_map::PythonRules;

/// Finds CPython in processes.
#[derive(Clone, Debug)]
pub struct CpythonEngine {
    rules: Arc<PythonRules>,
}

impl CpythonEngine {
    /// An engine for these maps; of two that are about the same class the later one wins.
    #[must_use]
    pub fn new(maps: &[SymbolMap]) -> Self {
        Self { rules: Arc::new(PythonRules::new(maps)) }
    }

    /// Whether a file of this name may hold an interpreter, or something of one: the process may come to run it.
    #[must_use]
    pub fn may_be_in(file_name: &str) -> bool {
        file_name.to_ascii_lowercase().contains("python")
    }

    /// The interpreter of a process; `None` if none of its files holds one. The likely files are looked into first, and no
    /// more of them than are needed. Files that cannot be opened are left out. `limit` ends this and every later reading.
    ///
    /// # Errors
    /// There is one and it cannot be read: it is of an unknown version or still starting, or the process is gone.
    pub fn find(&mut self, target: &Target, limit: &ReadLimit) -> Result<Option<CpythonInstance>, EngineError> {
        limit.allow(FINDING);
        let mut problem = None;
        for (module, recognised) in self.in_order(target) {
            let facts = match self.facts(&module, recognised) {
                Ok(facts) => facts,
                Err(error) => {
                    let path = module.path.display();
                    tracing::debug!(%path, %error, "no interpreter is looked for in a file");
                    continue;
                }
            };
            match self.instance(&facts, &module, limit) {
                Ok(Some(instance)) => return Ok(Some(instance)),
                Ok(None) => {}
                // A process may have mapped an interpreter that it does not run: another file may hold the one it runs.
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(None), Err)
    }

    /// Everything that a process has mapped, the likely files first.
    fn in_order(&mut self, target: &Target) -> Vec<(ModuleFile, Recognition)> {
        let mut ordered = Vec::with_capacity(target.modules.len());
        for (index, module) in target.modules.iter().enumerate() {
            let recognised = self.recognises(&module.file_name());
            // The executable, which comes first, may hold an interpreter under any name: it is looked into as thoroughly as a
            // likely file, and no earlier than it would be.
            let thoroughly = if index == 0 { Recognition::Likely } else { recognised };
            ordered.push((recognised, ModuleFile::of(target.process, module), thoroughly));
        }
        ordered.sort_by_key(|(recognised, ..)| Reverse(*recognised));
        ordered.into_iter().map(|(_, module, thoroughly)| (module, thoroughly)).collect()
    }
}

impl Engine for CpythonEngine {
    type Facts = Option<InterpreterFile>;
    type Instance = CpythonInstance;

    fn recognises(&mut self, file_name: &str) -> Recognition {
        // Not by "python" alone: it is in the name of every extension module (`_tree.cpython-311-x86_64-linux-gnu.so`).
        let is_likely = file_name.starts_with("python") || file_name.starts_with("libpython");
        if is_likely { Recognition::Likely } else { Recognition::Perhaps }
    }

    fn facts(&mut self, module: &ModuleFile, recognised: Recognition) -> Result<Self::Facts, EngineError> {
        InterpreterFile::read(module, recognised == Recognition::Likely)
    }

    fn instance(
        &self,
        facts: &Self::Facts,
        module: &ModuleFile,
        limit: &ReadLimit,
    ) -> Result<Option<CpythonInstance>, EngineError> {
        let addresses = facts.as_ref().and_then(|facts| facts.in_process(&module.mappings));
        let Some(addresses) = addresses else { return Ok(None) };
        let of = (module.process, module.path.to_string_lossy().into_owned());
        let instance = CpythonInstance::open(of, &addresses, Arc::clone(&self.rules), limit);
        Ok(Some(instance.map_err(CpythonError::from)?))
    }
}
