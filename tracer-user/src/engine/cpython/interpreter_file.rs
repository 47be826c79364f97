//! What an ELF file tells about the interpreter in it: where `_PyRuntime` and the built-in types are.

use std::collections::BTreeMap;

use object::read::ReadCache;
use serde::{Deserialize, Serialize};

use crate::engine::contract::EngineError;
use crate::memory::MappedFile;
use crate::model::{Mapping, ModuleFile, RemoteAddress, VirtualAddress};
use crate::symbol::{ElfFile, ExecutableSegments};

/// The variable with everything that the interpreter keeps; exported by every version from 3.8.
const RUNTIME: &str = "_PyRuntime";
/// The section that holds it, from 3.10.
const RUNTIME_SECTION: &str = ".PyRuntime";
/// Variables that are asked for: the runtime, and types that no object leads to for sure.
const VARIABLES: [&str; 3] = [RUNTIME, METHOD_TYPE, CELL_TYPE];
/// The type of bound methods.
pub(super) const METHOD_TYPE: &str = "PyMethod_Type";
/// The type of the cells that closures share.
pub(super) const CELL_TYPE: &str = "PyCell_Type";

/// Where the interpreter's variables are in one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterAddresses {
    /// `_PyRuntime`.
    pub runtime: RemoteAddress,
    /// Types by the symbol of their variable, as far as the file has symbols.
    pub types: BTreeMap<String, RemoteAddress>,
}

/// What a file holds of an interpreter, the same for every process that maps it.
#[derive(Clone, Debug)]
pub struct InterpreterFile {
    runtime: VirtualAddress,
    types: BTreeMap<String, VirtualAddress>,
    segments: ExecutableSegments,
}

impl InterpreterFile {
    /// Looks for an interpreter in a file that a process has mapped; `None` if the file holds none.
    ///
    /// `thorough`: also looks at symbols that the file does not export, which takes longer.
    ///
    /// # Errors
    /// The file cannot be opened or is malformed.
    pub(super) fn read(module: &ModuleFile, thorough: bool) -> Result<Option<Self>, EngineError> {
        let unreadable = |source| EngineError::Unreadable {
            path: module.path.clone(),
            access_path: module.access_path.clone(),
            source,
        };
        let file = MappedFile::of(module).map_err(unreadable)?.into_file();
        let cache = ReadCache::new(file);
        let elf = ElfFile::parse(&cache, &module.path)?;
        let variables = elf.variables(&VARIABLES, thorough)?;
        let runtime = variables.get(RUNTIME).copied().or_else(|| elf.section_address(RUNTIME_SECTION));
        let Some(runtime) = runtime else { return Ok(None) };
        let types = variables.into_iter().filter(|(symbol, _)| *symbol != RUNTIME);
        let types = types.map(|(symbol, address)| (symbol.to_owned(), address)).collect();
        Ok(Some(Self { runtime, types, segments: elf.executable() }))
    }

    /// Where the variables are in a process that has mapped the file like this; `None` if the mappings are of another file.
    pub(super) fn in_process(&self, mappings: &[Mapping]) -> Option<InterpreterAddresses> {
        let loaded = self.segments.loaded_at(mappings)?;
        let types = self.types.iter().map(|(symbol, address)| (symbol.clone(), loaded.address(*address)));
        Some(InterpreterAddresses { runtime: loaded.address(self.runtime), types: types.collect() })
    }
}
