//! Where the variables of a file are: in its own terms, and in a process that has mapped it.

use std::collections::BTreeMap;

use object::elf;
use object::endian::LittleEndian;
use object::read::ReadRef;
use object::read::elf::SectionHeader as _;
use object::read::elf::Sym;

use super::elf_file::{ElfFile, SymbolTable};
use super::error::SymbolError;
use crate::model::{FileOffset, Mapping, RemoteAddress, VirtualAddress};

/// What is added to an address of a file to get the address in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedAt(u64);

impl LoadedAt {
    /// The address in the process.
    #[must_use]
    pub fn address(self, address: VirtualAddress) -> RemoteAddress {
        RemoteAddress(address.0.wrapping_add(self.0))
    }
}

/// The segments of a file that are mapped executable: offset in the file, address, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutableSegments(Vec<(FileOffset, VirtualAddress, u64)>);

impl<'data, R: ReadRef<'data>> ElfFile<'data, R> {
    /// Addresses of variables that the file defines, by symbol. Looks at what it exports (`.dynsym`), and for what is
    /// not found there, if `also_local`, at `.symtab`.
    ///
    /// # Errors
    /// `Malformed` or `TooLarge`, as for functions.
    pub fn variables(
        &self,
        symbols: &[&'static str],
        also_local: bool,
    ) -> Result<BTreeMap<&'static str, VirtualAddress>, SymbolError> {
        let mut found = BTreeMap::new();
        if let Some(table) = self.symbol_table(elf::SHT_DYNSYM)? {
            collect(&table, symbols, &mut found);
        }
        if also_local
            && found.len() < symbols.len()
            && let Some(table) = self.symbol_table(elf::SHT_SYMTAB)?
        {
            collect(&table, symbols, &mut found);
        }
        Ok(found)
    }

    /// Address of a section, `None` if the file has none of this name or does not map it.
    #[must_use]
    pub fn section_address(&self, name: &str) -> Option<VirtualAddress> {
        let address = self.section(name)?.sh_addr(LittleEndian);
        (address != 0).then_some(VirtualAddress(address))
    }

    /// The segments that a process maps to run code from.
    #[must_use]
    pub fn executable(&self) -> ExecutableSegments {
        ExecutableSegments(self.executable_segments().collect())
    }
}

impl ExecutableSegments {
    /// Where the file lies in a process that has mapped it to run code from; `None` if the mappings are of another file.
    #[must_use]
    pub fn loaded_at(&self, mappings: &[Mapping]) -> Option<LoadedAt> {
        self.0.iter().find_map(|(offset, address, size)| {
            let holds = |mapping: &&Mapping| {
                let length = mapping.end.0.saturating_sub(mapping.start.0);
                let end = mapping.offset.0.saturating_add(length);
                mapping.offset.0 < offset.0.saturating_add(*size) && offset.0 < end
            };
            let mapping = mappings.iter().find(holds)?;
            // start - offset of the mapping = place of the file's first byte, if all of it were mapped as this part is.
            let first = mapping.start.0.wrapping_sub(mapping.offset.0);
            Some(LoadedAt(first.wrapping_add(offset.0).wrapping_sub(address.0)))
        })
    }
}

fn collect(table: &SymbolTable<'_>, wanted: &[&'static str], found: &mut BTreeMap<&'static str, VirtualAddress>) {
    for symbol in table.symbols {
        let address = symbol.st_value(LittleEndian);
        if symbol.st_type() != elf::STT_OBJECT || symbol.st_shndx(LittleEndian) == elf::SHN_UNDEF || address == 0 {
            continue;
        }
        let start = usize::try_from(symbol.st_name(LittleEndian)).ok();
        let Some(rest) = start.and_then(|start| table.names.get(start..)) else { continue };
        let is_named = |name: &&&str| rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
        if let Some(name) = wanted.iter().find(is_named) {
            found.entry(name).or_insert(VirtualAddress(address));
        }
    }
}
