//! Where the interpreters that are installed here make and free contexts.

use std::path::Path;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::interpreters::installed;
use super::not_tested;
use crate::model::{ContextSites, VirtualAddress};
use crate::symbol::{ElfFile, Functions};

/// Where a type keeps the function that frees its objects.
const TP_DEALLOC: u64 = 48;

/// The function that frees contexts, as a running process would tell it.
fn freeing(bytes: &[u8]) -> Option<VirtualAddress> {
    let file = object::File::parse(bytes).expect("an ELF file");
    let by_name = file.symbols().find(|symbol| symbol.name() == Ok("context_tp_dealloc"));
    let in_type = || {
        let context_type = file.dynamic_symbols().find(|symbol| symbol.name() == Ok("PyContext_Type"))?.address();
        let holds = |section: &object::Section<'_, '_>| (section.address()..).contains(&context_type);
        let section = file.sections().filter(holds).max_by_key(|section| section.address())?;
        let word = section.data_range(context_type + TP_DEALLOC, 8).ok()??;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    };
    by_name.map(|symbol| symbol.address()).or_else(in_type).filter(|address| *address != 0).map(VirtualAddress)
}

fn sites(bytes: &[u8], freeing: VirtualAddress) -> ContextSites {
    let file = ElfFile::parse(bytes, Path::new("interpreter")).expect("an ELF file");
    let functions = Functions::read(file).expect("whole symbol tables");
    functions.context_sites(freeing).unwrap_or_else(|problem| panic!("{problem}"))
}

#[test]
fn contexts_of_installed_interpreters_are_seen_on_emulated_instructions() {
    let mut tested = 0;
    for (path, version) in installed() {
        let bytes = std::fs::read(&path).expect("the file is readable");
        // A program that only starts the interpreter of a library.
        let Some(freeing) = freeing(&bytes) else { continue };
        tested += 1;
        let sites = sites(&bytes, freeing);
        let copies = sites.made.iter().filter(|site| site.is_copy).count();
        assert!((1..=12).contains(&copies) && copies < sites.made.len(), "{} {version:?}: {sites:?}", path.display());
    }
    if tested == 0 {
        not_tested("no interpreter is installed");
    }
}
