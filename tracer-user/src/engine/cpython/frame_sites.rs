//! The file of an interpreter goes in; the places that every call, or every exception, passes come out.

use std::fs::File;
use std::path::Path;

use object::ReadCache;

use crate::engine::contract::NoCallSites;
use crate::memory::MappedFile;
use crate::model::{
    ContextSites, FileNumber, InterpreterSite, InterpreterSites, NoInterpreterSites, VirtualAddress, WitnessSite,
};
use crate::symbol::{ElfFile, Functions};

/// The places that every call passes. `version` is the interpreter's major and minor version.
pub(super) fn call_sites(path: &Path, version: (u8, u8)) -> Result<InterpreterSites, NoCallSites> {
    let cache = ReadCache::new(open(path)?);
    let functions = Functions::read(ElfFile::parse(&cache, path)?)?;
    functions.interpreter_sites(version).map_err(NoCallSites::NoPlace)
}

/// The places that calls through C pass, and what waits in C.
pub(super) fn witness_sites(path: &Path, version: (u8, u8)) -> Result<Vec<WitnessSite>, NoCallSites> {
    let cache = ReadCache::new(open(path)?);
    let functions = Functions::read(ElfFile::parse(&cache, path)?)?;
    functions.witness_sites(version).map_err(NoCallSites::NoPlace)
}

/// The places where contexts are made and freed, given the function that frees them.
pub(super) fn context_sites(path: &Path, freeing: VirtualAddress) -> Result<ContextSites, NoCallSites> {
    let cache = ReadCache::new(open(path)?);
    let functions = Functions::read(ElfFile::parse(&cache, path)?)?;
    let sites = functions.context_sites(freeing);
    sites.map_err(|problem| NoCallSites::NoPlace(NoInterpreterSites::Contexts { problem }))
}

/// The place that every exception passes. Without it they are seen, but not what they are.
pub(super) fn exception_site(path: &Path) -> Option<InterpreterSite> {
    let cache = ReadCache::new(open(path).ok()?);
    let functions = ElfFile::parse(&cache, path).and_then(Functions::read).ok()?;
    functions.exception_site().inspect_err(|error| tracing::debug!(%error, "exceptions have no type")).ok()
}

/// The place where an object is made.
pub(super) fn object_site(path: &Path) -> Option<InterpreterSite> {
    let cache = ReadCache::new(open(path).ok()?);
    let functions = ElfFile::parse(&cache, path).and_then(Functions::read).ok()?;
    functions.object_site().inspect_err(|error| tracing::debug!(%error, "first calls may be missed")).ok()
}

/// Opens the file of an interpreter: whatever a process may have put under its name is not waited for.
fn open(path: &Path) -> std::io::Result<File> {
    MappedFile::open(path, FileNumber::default()).map(MappedFile::into_file)
}
