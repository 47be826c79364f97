//! The native engine: facts by file, requests by process.

use std::fs;
use std::io;
use std::sync::Arc;

use super::facts::NativeFacts;
use super::ownership::owner_of;
use crate::engine::contract::{Engine, EngineError, Instance, Recognition, Requests};
use crate::engine::file_cache::{FileCache, is_the_same};
use crate::memory::{MappedFile, ReadLimit};
use crate::model::{ModuleFile, ProbeRequest, RemoteAddress, SkipReason, Skipped, SymbolMap};
use crate::symbol_map::Matchers;

/// Finds the functions that the symbol maps ask for in ELF files.
#[derive(Debug)]
pub struct NativeEngine {
    matchers: Matchers,
    /// Whether functions are probed in files that move their own code.
    probes_moving_code: bool,
    /// Whether what only the generic maps ask for is listed in libraries that are not the program's own; else these are not opened.
    lists_all: bool,
    known: FileCache<NativeFacts>,
    /// The same of libraries that are not the program's own.
    known_of_others: FileCache<NativeFacts>,
}

impl NativeEngine {
    /// An engine for these maps; of two that match the same function the later one wins.
    #[must_use]
    pub fn new(maps: Vec<SymbolMap>) -> Self {
        Self {
            matchers: Matchers::new(maps),
            probes_moving_code: false,
            lists_all: false,
            known: FileCache::new(),
            known_of_others: FileCache::new(),
        }
    }

    /// The same, which also probes files that move their own code if asked to.
    #[must_use]
    pub fn probing_moving_code(self, probes_moving_code: bool) -> Self {
        Self { probes_moving_code, ..self }
    }

    /// The same, which also looks for what it leaves out in libraries of others, to list it.
    #[must_use]
    pub fn listing_all(self) -> Self {
        Self { lists_all: true, ..self }
    }

    /// Whether only the built-in maps without `module` are about a file.
    fn is_generic(&mut self, module: &ModuleFile) -> bool {
        self.matchers.for_file(&module.file_name()).is_none_or(|matcher| matcher.is_generic())
    }

    /// The probes for one file of one process. Files that no rule is about are not opened; what a file holds is found out
    /// once, however many processes map it.
    ///
    /// # Errors
    /// `EngineError` where the file cannot be opened or is malformed.
    pub fn module(&mut self, module: &ModuleFile) -> Result<Requests, EngineError> {
        let recognised = self.recognises(&module.file_name());
        let is_of_others = owner_of(module).is_some();
        if recognised == Recognition::No || (is_of_others && !self.lists_all && self.is_generic(module)) {
            return Ok(Requests::default());
        }
        let facts = self.facts(module, recognised)?;
        // No memory is read: the file says everything.
        let instance = self.instance(&facts, module, &ReadLimit::default())?;
        instance.map_or_else(|| Ok(Requests::default()), |mut instance| instance.look())
    }
}

/// What a file holds, in one process that has mapped it.
#[derive(Clone, Debug)]
pub struct NativeInstance {
    facts: Arc<NativeFacts>,
    module: ModuleFile,
    probes_moving_code: bool,
}

impl Engine for NativeEngine {
    type Facts = Arc<NativeFacts>;
    type Instance = NativeInstance;

    fn recognises(&mut self, file_name: &str) -> Recognition {
        if self.matchers.for_file(file_name).is_some() { Recognition::Likely } else { Recognition::No }
    }

    fn facts(&mut self, module: &ModuleFile, _: Recognition) -> Result<Self::Facts, EngineError> {
        let unreadable = |source: io::Error| EngineError::Unreadable {
            path: module.path.clone(),
            access_path: module.access_path.clone(),
            source,
        };
        let owner = owner_of(module);
        let Self { matchers, known, known_of_others, .. } = self;
        let known = if owner.is_none() { known } else { known_of_others };
        if let Ok(metadata) = fs::metadata(&module.access_path) {
            if let Some(facts) = known.get(&metadata) {
                return Ok(facts);
            }
            if !metadata.is_file() {
                // Devices can be mapped too.
                return Ok(Arc::default());
            }
        }
        let file = MappedFile::of(module).map_err(unreadable)?.into_file();
        let metadata = file.metadata().map_err(unreadable)?;
        if let Some(facts) = known.get(&metadata) {
            return Ok(facts);
        }
        let Some(matcher) = matchers.for_file(&module.file_name()) else { return Ok(Arc::default()) };
        let again = file.try_clone().map_err(unreadable)?;
        let facts = NativeFacts::read(file, (&module.path, owner), &matcher);
        // Somebody is writing it: what was read belongs together by chance only.
        if !is_the_same(&metadata, &again.metadata().map_err(unreadable)?) {
            return Err(EngineError::BeingWritten { path: module.path.clone() });
        }
        Ok(known.insert(&metadata, facts?))
    }

    fn instance(
        &self,
        facts: &Self::Facts,
        module: &ModuleFile,
        _: &ReadLimit,
    ) -> Result<Option<NativeInstance>, EngineError> {
        let (facts, module) = (Arc::clone(facts), module.clone());
        Ok(Some(NativeInstance { facts, module, probes_moving_code: self.probes_moving_code }))
    }
}

impl Instance for NativeInstance {
    type Found = Requests;

    fn look(&mut self) -> Result<Requests, EngineError> {
        let Self { facts, module, .. } = self;
        let path = module.path.to_string_lossy();
        let skipped = facts.skipped.iter().map(|(name, reason)| Skipped {
            name: name.clone(),
            module: path.clone().into_owned(),
            reason: reason.clone(),
        });
        if let (Some(symbol), false) = (&facts.moved_by, self.probes_moving_code) {
            let moved = facts.functions.iter().map(|function| Skipped {
                name: function.function.name.clone(),
                module: path.clone().into_owned(),
                reason: SkipReason::MovesItsCode { symbol: symbol.clone() },
            });
            return Ok(Requests { skipped: skipped.chain(moved).collect(), ..Requests::default() });
        }
        let requests = facts.functions.iter().map(|function| ProbeRequest {
            module: module.clone(),
            function: function.function.clone(),
            span_name: function.span_name.clone(),
            library: function.library.clone(),
            nests: function.nests,
            attributes: function.attributes.clone(),
            error: function.error,
            shared_code: function.shared_code.clone(),
        });
        Ok(Requests {
            requests: requests.collect(),
            skipped: skipped.collect(),
            remarks: facts.remarks.clone(),
            hints: facts.hints.clone(),
        })
    }

    /// Everything was told with the requests.
    fn meaning(&self, _: RemoteAddress) -> Option<Arc<str>> {
        None
    }
}
