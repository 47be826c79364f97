//! What an ELF file tells about the interpreter in it: where `_PyRuntime` and the built-in types are.

use std::collections::BTreeMap;

use object::read::ReadCache;
use serde::{Deserialize, Serialize};

use crate::engine::contract::EngineError;
use crate::memory::MappedFile;
use crate::model::{Module, RemoteAddress};
use crate::symbol::ElfFile;

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

impl InterpreterAddresses {
    /// Looks for an interpreter in a file that a process has mapped; `None` if the file holds none.
    ///
    /// `thorough`: also looks at symbols that the file does not export, which takes longer.
    ///
    /// # Errors
    /// The file cannot be opened or is malformed.
    pub fn in_module(module: &Module, thorough: bool) -> Result<Option<Self>, EngineError> {
        let unreadable = |source| EngineError::Unreadable {
            path: module.path.clone(),
            access_path: module.access_path.clone(),
            source,
        };
        let file = MappedFile::open(&module.access_path, module.number()).map_err(unreadable)?.into_file();
        let cache = ReadCache::new(file);
        let elf = ElfFile::parse(&cache, &module.path)?;
        let variables = elf.variables(&VARIABLES, thorough)?;
        let runtime = variables.get(RUNTIME).copied().or_else(|| elf.section_address(RUNTIME_SECTION));
        let (Some(runtime), Some(loaded)) = (runtime, elf.loaded_at(&module.mappings)) else { return Ok(None) };
        let types = variables
            .iter()
            .filter(|(symbol, _)| **symbol != RUNTIME)
            .map(|(symbol, address)| ((*symbol).to_owned(), loaded.address(*address)));
        Ok(Some(Self { runtime: loaded.address(runtime), types: types.collect() }))
    }

    /// Looks for interpreters in everything that a process has mapped: the likely files first, each only when the
    /// iterator gets to it. A process may have mapped more than one and run only one of them.
    ///
    /// Files that cannot be opened are left out; `modules` as `Target` has them, the executable first.
    pub fn in_modules(modules: &[Module]) -> impl Iterator<Item = (&Module, Self)> {
        // Not by "python" alone: it is in the name of every extension module (`_tree.cpython-311-x86_64-linux-gnu.so`).
        let is_likely = |module: &Module| {
            let name = module.file_name();
            name.starts_with("python") || name.starts_with("libpython")
        };
        let mut ordered: Vec<(usize, &Module)> = modules.iter().enumerate().collect();
        ordered.sort_by_key(|(index, module)| (!is_likely(module), *index));
        ordered.into_iter().filter_map(move |(index, module)| {
            let thorough = index == 0 || is_likely(module);
            match Self::in_module(module, thorough) {
                Ok(found) => Some((module, found?)),
                Err(error) => {
                    let path = module.path.display();
                    tracing::debug!(%path, %error, "no interpreter is looked for in a file");
                    None
                }
            }
        })
    }
}
