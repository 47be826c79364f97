//! What an ELF file tells about the interpreter in it: where `_PyRuntime` and the built-in types are.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

use object::read::ReadCache;
use serde::{Deserialize, Serialize};

use super::frame_sites;
use crate::engine::contract::{EngineError, NoCallSites};
use crate::model::{
    ContextSites, InterpreterSite, InterpreterSites, Mapping, NoInterpreterSites, RemoteAddress, VirtualAddress,
    WitnessSite,
};
use crate::symbol::{ElfFile, ExecutableSegments};

/// The variable with everything that the interpreter keeps; exported by every version from 3.8.
const RUNTIME: &str = "_PyRuntime";
/// The section that holds it, from 3.10.
const RUNTIME_SECTION: &str = ".PyRuntime";
/// Variables that are asked for: the runtime, and types that no object leads to for sure.
const VARIABLES: [&str; 4] = [RUNTIME, METHOD_TYPE, CELL_TYPE, CONTEXT_TYPE];
/// The type of bound methods.
pub(super) const METHOD_TYPE: &str = "PyMethod_Type";
/// The type of the cells that closures share.
pub(super) const CELL_TYPE: &str = "PyCell_Type";
/// The type of contexts (`contextvars.Context`).
pub(super) const CONTEXT_TYPE: &str = "PyContext_Type";

/// Where the interpreter's variables are in one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterAddresses {
    /// `_PyRuntime`.
    pub runtime: RemoteAddress,
    /// Types by the symbol of their variable, as far as the file has symbols.
    pub types: BTreeMap<String, RemoteAddress>,
}

/// What a file holds of an interpreter, the same for every process that maps it.
#[derive(Debug)]
pub struct InterpreterFile {
    runtime: VirtualAddress,
    types: BTreeMap<String, VirtualAddress>,
    segments: ExecutableSegments,
    /// Where calls and exceptions pass, once that was asked.
    call_sites: OnceLock<InterpreterSites>,
    witness_sites: OnceLock<Vec<WitnessSite>>,
    exception_site: OnceLock<InterpreterSite>,
    /// Likewise contexts.
    context_sites: OnceLock<ContextSites>,
}

impl InterpreterFile {
    /// Looks for an interpreter in a file that a process has mapped; `None` if the file holds none.
    ///
    /// `thorough`: also looks at symbols that the file does not export, which takes longer.
    ///
    /// # Errors
    /// The file is malformed.
    pub(super) fn read(file: File, path: &Path, thorough: bool) -> Result<Option<Self>, EngineError> {
        let cache = ReadCache::new(file);
        let elf = ElfFile::parse(&cache, path)?;
        let variables = elf.variables(&VARIABLES, thorough)?;
        let runtime = variables.get(RUNTIME).copied().or_else(|| elf.section_address(RUNTIME_SECTION));
        let Some(runtime) = runtime else { return Ok(None) };
        let types = variables.into_iter().filter(|(symbol, _)| *symbol != RUNTIME);
        let types = types.map(|(symbol, address)| (symbol.to_owned(), address)).collect();
        let (call_sites, exception_site) = (OnceLock::new(), OnceLock::new());
        let (witness_sites, context_sites) = (OnceLock::new(), OnceLock::new());
        let segments = elf.executable();
        Ok(Some(Self { runtime, types, segments, call_sites, witness_sites, exception_site, context_sites }))
    }

    /// Where the variables are in a process that has mapped the file like this; `None` if the mappings are of another file.
    pub(super) fn in_process(&self, mappings: &[Mapping]) -> Option<InterpreterAddresses> {
        let loaded = self.segments.loaded_at(mappings)?;
        let types = self.types.iter().map(|(symbol, address)| (symbol.clone(), loaded.address(*address)));
        Some(InterpreterAddresses { runtime: loaded.address(self.runtime), types: types.collect() })
    }

    /// The places in this file, which is at this path, where contexts are made and freed, given where their type is in a process and
    /// which function it has for freeing them.
    ///
    /// # Errors
    /// Why they cannot be probed.
    pub(super) fn context_sites(
        &self,
        path: &Path,
        context_type: RemoteAddress,
        freeing: RemoteAddress,
    ) -> Result<ContextSites, NoCallSites> {
        if let Some(sites) = self.context_sites.get() {
            return Ok(sites.clone());
        }
        let in_file = self.types.get(CONTEXT_TYPE).ok_or(NoCallSites::NoPlace(NoInterpreterSites::NoContextType))?;
        let distance = context_type.0.wrapping_sub(in_file.0);
        let sites = frame_sites::context_sites(path, VirtualAddress(freeing.0.wrapping_sub(distance)))?;
        Ok(self.context_sites.get_or_init(|| sites).clone())
    }

    /// The places in this file, which is at this path, that a part of all calls passes.
    ///
    /// # Errors
    /// Why it cannot be probed.
    pub(super) fn witness_sites(&self, path: &Path, version: (u8, u8)) -> Result<Vec<WitnessSite>, NoCallSites> {
        match self.witness_sites.get() {
            Some(sites) => Ok(sites.clone()),
            None => {
                frame_sites::witness_sites(path, version).inspect(|sites| drop(self.witness_sites.set(sites.clone())))
            }
        }
    }

    /// The places that every call passes. The file is opened by this path if that is not known yet; `version` is the
    /// interpreter's major and minor version.
    pub(super) fn call_sites(&self, path: &Path, version: (u8, u8)) -> Result<InterpreterSites, NoCallSites> {
        match self.call_sites.get() {
            Some(sites) => Ok(sites.clone()),
            None => frame_sites::call_sites(path, version).inspect(|sites| drop(self.call_sites.set(sites.clone()))),
        }
    }

    /// The place that every exception passes, likewise.
    pub(super) fn exception_site(&self, path: &Path) -> Option<InterpreterSite> {
        let known = self.exception_site.get().cloned();
        known.or_else(|| frame_sites::exception_site(path).inspect(|site| drop(self.exception_site.set(site.clone()))))
    }
}
