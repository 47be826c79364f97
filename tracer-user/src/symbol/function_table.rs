//! The function symbols of a file, by address, and the candidates among them.

use std::collections::{BTreeMap, HashSet};

use object::elf;
use object::endian::LittleEndian;
use object::read::ReadRef;
use object::read::elf::Sym;

use super::elf_file::{ElfFile, SymbolTable};
use super::error::SymbolError;
use super::function_name::function_name;
use super::suffix::{self, Body};
use crate::model::{FunctionName, VirtualAddress};

/// Longest symbol that is looked at, bytes; longer ones are instantiations that nobody names in a map.
const SYMBOL_LIMIT: usize = 8 << 10;
/// Most symbols that may match in one file.
pub(super) const MATCH_LIMIT: usize = 20_000;
/// Most further symbols that are kept for one address.
const ALIAS_LIMIT: usize = 32;

/// A function that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Address of its first instruction.
    pub address: VirtualAddress,
    /// Bytes of code by the symbol; 0 where the symbol does not tell.
    pub size: u64,
    /// Its names by all symbols that are asked for, the most informative first; never empty.
    pub names: Vec<FunctionName>,
    /// Further symbols at the same address.
    pub aliases: Vec<String>,
    /// Whether the symbol is an ifunc: code that only chooses the function at load time.
    pub indirect: bool,
    /// For the rest of a function whose beginning was copied into its callers: the symbol of the whole function,
    /// where the file has it too.
    pub part_of: Option<String>,
}

/// All function symbols, sorted by address.
pub(super) struct FunctionTable<'data> {
    entries: Vec<Entry<'data>>,
}

/// One function symbol.
#[derive(Clone, Copy)]
pub(super) struct Entry<'data> {
    pub address: u64,
    pub size: u64,
    indirect: bool,
    local: bool,
    name: &'data [u8],
}

impl<'data> FunctionTable<'data> {
    /// Collects the defined functions of `.symtab` and `.dynsym`.
    pub fn read<R: ReadRef<'data>>(file: &ElfFile<'data, R>) -> Result<Self, SymbolError> {
        let mut entries = Vec::new();
        for SymbolTable { symbols, names, .. } in file.symbol_tables()? {
            entries.extend(symbols.iter().filter_map(|symbol| {
                let indirect = symbol.st_type() == elf::STT_GNU_IFUNC;
                let is_function = symbol.st_type() == elf::STT_FUNC || indirect;
                let address = symbol.st_value(LittleEndian);
                if !is_function || symbol.st_shndx(LittleEndian) == elf::SHN_UNDEF || address == 0 {
                    return None;
                }
                let start = usize::try_from(symbol.st_name(LittleEndian)).ok()?;
                let name = names.get(start..)?;
                let name = name.get(..name.len().min(SYMBOL_LIMIT))?;
                let end = name.iter().position(|byte| *byte == 0)?;
                Some(Entry {
                    address,
                    size: symbol.st_size(LittleEndian),
                    indirect,
                    local: symbol.st_bind() == elf::STB_LOCAL,
                    name: name.get(..end).filter(|name| !name.is_empty())?,
                })
            }));
        }
        entries.sort_unstable_by_key(|entry| (entry.address, entry.local, entry.name));
        entries.dedup_by_key(|entry| (entry.address, entry.name));
        Ok(Self { entries })
    }

    /// The functions that are asked for, by address; `None` if they are too many. Only symbols that pass the quick test
    /// are demangled.
    pub fn candidates(
        &self,
        may_match: impl Fn(&str) -> bool,
        is_wanted: impl Fn(&FunctionName) -> bool,
    ) -> Option<Vec<Candidate>> {
        let mut matches = 0;
        let mut found: BTreeMap<u64, Vec<(FunctionName, Body, bool)>> = BTreeMap::new();
        for entry in &self.entries {
            // Demangling is dear: a large library has 200,000 symbols, and a handful pass.
            let symbol = std::str::from_utf8(entry.name).ok().filter(|symbol| may_match(symbol));
            let name = symbol.and_then(function_name).filter(|(name, _)| is_wanted(name));
            if let Some((name, body)) = name {
                matches += 1;
                if matches > MATCH_LIMIT {
                    return None;
                }
                found.entry(entry.address).or_default().push((name, body, entry.local));
            }
        }
        let wholes = self.wholes_of_parts(found.values().flatten());
        Some(found.into_iter().map(|(address, names)| self.candidate(address, names, &wholes)).collect())
    }

    fn candidate(
        &self,
        address: u64,
        mut names: Vec<(FunctionName, Body, bool)>,
        wholes: &HashSet<String>,
    ) -> Candidate {
        // A name with a class says most; then the whole function before its copies, what the linker exports before
        // what is local, the shorter before the longer. The symbol decides last, so that the order never depends on chance.
        names.sort_by_cached_key(|(name, body, local)| {
            (name.class.is_none(), *body == Body::Part, *local, name.symbol.len(), name.symbol.clone())
        });
        let part_of = match names.first() {
            Some((name, Body::Part, _)) => Some(suffix::split(&name.symbol).0).filter(|base| wholes.contains(*base)),
            _ => None,
        }
        .map(str::to_owned);
        let here = self.at(address);
        let names: Vec<FunctionName> = names.into_iter().map(|(name, ..)| name).collect();
        let aliases = here
            .iter()
            .map(|entry| String::from_utf8_lossy(entry.name).into_owned())
            .filter(|symbol| names.iter().all(|name| name.symbol != *symbol))
            .take(ALIAS_LIMIT)
            .collect();
        Candidate {
            address: VirtualAddress(address),
            size: here.iter().map(|entry| entry.size).max().unwrap_or(0),
            indirect: here.iter().any(|entry| entry.indirect),
            names,
            aliases,
            part_of,
        }
    }

    /// Symbols of whole functions that the file has beside a `.part` of them.
    fn wholes_of_parts<'name>(
        &self,
        found: impl Iterator<Item = &'name (FunctionName, Body, bool)>,
    ) -> HashSet<String> {
        let bases: HashSet<&[u8]> = found
            .filter(|(_, body, _)| *body == Body::Part)
            .map(|(name, ..)| suffix::split(&name.symbol).0.as_bytes())
            .collect();
        if bases.is_empty() {
            return HashSet::new();
        }
        let wholes = self.entries.iter().filter(|entry| bases.contains(entry.name));
        wholes.map(|entry| String::from_utf8_lossy(entry.name).into_owned()).collect()
    }

    /// Address of the function with a symbol.
    pub fn address_of(&self, symbol: &str) -> Option<u64> {
        self.entries.iter().find(|entry| entry.name == symbol.as_bytes()).map(|entry| entry.address)
    }

    /// Bounds of the cold parts, by their symbols, of the function with one of these base symbols.
    pub fn cold_parts_of(&self, bases: &[&str]) -> impl Iterator<Item = (u64, u64)> {
        let cold = self.entries.iter().filter(|entry| entry.size != 0 && entry.is_cold_part_of(bases));
        cold.filter_map(|entry| Some((entry.address, entry.address.checked_add(entry.size)?)))
    }

    /// All symbols at exactly this address.
    pub fn at(&self, address: u64) -> &[Entry<'data>] {
        let start = self.entries.partition_point(|entry| entry.address < address);
        let rest = self.entries.get(start..).unwrap_or_default();
        let count = rest.partition_point(|entry| entry.address == address);
        rest.get(..count).unwrap_or_default()
    }

    /// The symbols at exactly this address without the suffixes of copies.
    pub fn base_symbols_at(&self, address: u64) -> Vec<&'data str> {
        suffix::bases(self.at(address).iter().filter_map(|entry| std::str::from_utf8(entry.name).ok()))
    }

    /// The functions that begin last at or before an address, if the address lies in them.
    pub fn containing(&self, address: u64) -> &[Entry<'data>] {
        let after = self.entries.partition_point(|entry| entry.address <= address);
        let Some(last) = after.checked_sub(1).and_then(|index| self.entries.get(index)) else { return &[] };
        let here = self.at(last.address);
        let size = here.iter().map(|entry| entry.size).max().unwrap_or(0);
        if address - last.address < size.max(1) { here } else { &[] }
    }

    /// Address of the next function that begins after an address.
    pub fn next_after(&self, address: u64) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.address <= address);
        self.entries.get(after).map(|entry| entry.address)
    }
}

impl Entry<'_> {
    /// Whether this is the cold part of the function with one of these base symbols.
    pub fn is_cold_part_of(&self, bases: &[&str]) -> bool {
        // Most symbols are no cold part, and this is asked of all of a file.
        if !bases.iter().any(|base| self.name.starts_with(base.as_bytes())) {
            return false;
        }
        let Ok(name) = std::str::from_utf8(self.name) else { return false };
        let (base, body) = suffix::split(name);
        body == Body::Cold && bases.contains(&base)
    }
}
