//! The function symbols of a file, by address, and the candidates among them.

use std::collections::{BTreeMap, HashMap, HashSet};

use object::elf;
use object::endian::LittleEndian;
use object::read::ReadRef;
use object::read::elf::Sym;

use super::elf_file::{ElfFile, SymbolTable};
use super::error::SymbolError;
use super::function_name::{self, Reading};
use super::suffix::{self, Body};
use crate::model::{FunctionName, Language, VirtualAddress};

/// Longest symbol that is read, bytes. The longest of expression templates have some ten thousand.
const SYMBOL_LIMIT: usize = 64 << 10;
/// Bytes of all symbols of a file together. Those of the largest real files take 200 MB.
const SYMBOL_BYTES_LIMIT: u64 = 512 << 20;
/// Most functions of one file that are looked into: half of what one tracer can tell apart.
pub const MATCH_LIMIT: usize = tracer_common::limits::MAX_FUNCTIONS as usize / 2;
/// Most functions beyond that are named, and most symbols that are not understood; the others are counted.
const NAMED_LIMIT: usize = 1 << 16;
/// Most further symbols that are kept for one address.
const ALIAS_LIMIT: usize = 32;
/// Bytes that are kept of a symbol that is not understood.
const SHOWN_LIMIT: usize = 256;

/// A function that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Address of its first instruction.
    pub address: VirtualAddress,
    /// Bytes of code by the symbol; 0 where the symbol does not tell.
    pub size: u64,
    /// Its names by all symbols that are asked for, the most informative first; never empty.
    pub names: Vec<FunctionName>,
    /// Functions of other names that have the same code: not asked for, but a call may be one of theirs.
    pub others: Vec<FunctionName>,
    /// Further symbols at the same address.
    pub aliases: Vec<String>,
    /// Whether the symbol is an ifunc: code that only chooses the function at load time.
    pub indirect: bool,
    /// For the rest of a function whose beginning was copied into its callers: the symbol of the whole function,
    /// where the file has it too.
    pub part_of: Option<String>,
    /// For a thunk: the addresses of the function behind it.
    pub(super) behind_thunk: Option<Vec<u64>>,
    /// Whether it makes a C++ coroutine: the work is done in the coroutine's parts.
    pub(super) makes_coroutine: bool,
    /// Addresses of the closures that are written in it (Rust).
    pub(super) closures: Vec<u64>,
}

/// What a file has for the rules in force.
#[derive(Debug, Default)]
pub struct Found {
    /// The functions that are asked for, by address.
    pub candidates: Vec<Candidate>,
    /// Those beyond the most that are looked into.
    pub left_out: Vec<FunctionName>,
    /// Symbols that hold a word that was asked for, in a name that cannot be understood; shortened.
    pub not_understood: Vec<String>,
    /// What is of either kind, but too much to be named.
    pub uncounted: usize,
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

/// What the sieve has let through, before what belongs together is put together.
#[derive(Default)]
struct Sifted {
    /// Addresses that are asked for, with their rank.
    wanted: HashMap<u64, Rank>,
    /// Symbols of functions that make a coroutine.
    coroutine_makers: HashSet<String>,
    /// Closures by the path of the function that they are written in.
    closures: HashMap<String, Vec<u64>>,
    not_understood: Vec<String>,
    uncounted: usize,
}

/// What is traced first where there is too much; the smaller comes first: what the rules say, no class, length of the symbol.
type Rank = (u8, bool, bool, usize);

/// A name at an address that is asked for.
struct Named {
    name: FunctionName,
    kind: Kind,
    local: bool,
    behind: Option<String>,
}

/// What a name stands for; the whole function comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Whole,
    Part,
    Thunk,
}

impl<'data> FunctionTable<'data> {
    /// Collects the defined functions of `.symtab` and `.dynsym`.
    pub fn read<R: ReadRef<'data>>(file: &ElfFile<'data, R>) -> Result<Self, SymbolError> {
        let mut entries = Vec::new();
        let mut bytes = 0_u64;
        for SymbolTable { symbols, names, .. } in file.symbol_tables()? {
            for symbol in symbols {
                let indirect = symbol.st_type() == elf::STT_GNU_IFUNC;
                let is_function = symbol.st_type() == elf::STT_FUNC || indirect;
                let address = symbol.st_value(LittleEndian);
                if !is_function || symbol.st_shndx(LittleEndian) == elf::SHN_UNDEF || address == 0 {
                    continue;
                }
                let start = usize::try_from(symbol.st_name(LittleEndian)).unwrap_or(usize::MAX);
                let Some(name) = names.get(start..).map(up_to_zero).filter(|name| !name.is_empty()) else { continue };
                // Names may overlap, so that a small file could hold more of them than can be read.
                bytes += name.len() as u64;
                if bytes > SYMBOL_BYTES_LIMIT {
                    let (path, limit) = (file.path().to_owned(), SYMBOL_BYTES_LIMIT);
                    return Err(SymbolError::TooLarge { path, table: "list of names", bytes, limit });
                }
                let (size, local) = (symbol.st_size(LittleEndian), symbol.st_bind() == elf::STB_LOCAL);
                entries.push(Entry { address, size, indirect, local, name });
            }
        }
        entries.sort_unstable_by_key(|entry: &Entry<'_>| (entry.address, entry.local, entry.name));
        entries.dedup_by_key(|entry| (entry.address, entry.name));
        Ok(Self { entries })
    }

    /// The functions that are asked for, by address. Only symbols that pass the quick test are demangled; `rank` says
    /// whether a name is asked for, and what comes first where there is too much: the smaller number.
    pub fn find(&self, may_match: impl Fn(&str) -> bool, rank: impl Fn(&FunctionName) -> Option<u8>) -> Found {
        let Sifted { wanted, coroutine_makers, closures, not_understood, mut uncounted } = self.sift(may_match, &rank);
        let mut ranked: Vec<(Rank, u64)> = wanted.into_iter().map(|(address, rank)| (rank, address)).collect();
        ranked.sort_unstable();
        let beyond = ranked.split_off(ranked.len().min(MATCH_LIMIT));
        uncounted += beyond.len().saturating_sub(NAMED_LIMIT);
        let left_out = beyond.into_iter().take(NAMED_LIMIT).filter_map(|(_, address)| self.first_name(address, &rank));
        let left_out = left_out.collect();
        let named: BTreeMap<u64, Vec<Named>> =
            ranked.into_iter().map(|(_, address)| (address, self.names_at(address, &rank))).collect();
        let wholes = self.addresses_of(&named);
        let candidates = named
            .into_iter()
            .filter_map(|(address, names)| {
                let mut candidate = self.candidate(address, names, &wholes)?;
                candidate.makes_coroutine =
                    candidate.names.iter().any(|name| coroutine_makers.contains(suffix::split(&name.symbol).0));
                let inside = candidate.names.iter().filter_map(|name| closures.get(&name.path)).flatten();
                candidate.closures = inside.copied().collect();
                Some(candidate)
            })
            .collect();
        Found { candidates, left_out, not_understood, uncounted }
    }

    fn sift(&self, may_match: impl Fn(&str) -> bool, rank: impl Fn(&FunctionName) -> Option<u8>) -> Sifted {
        let mut sifted = Sifted::default();
        for entry in &self.entries {
            // Demangling is dear: a large library has 200,000 symbols, and a handful pass.
            let symbol = String::from_utf8_lossy(entry.name);
            if !may_match(&symbol) {
                continue;
            }
            match entry.read() {
                Reading::Function(name, _) | Reading::Thunk { name, .. } => {
                    if let Some(rule) = rank(&name) {
                        let rank = (rule, name.class.is_none(), entry.local, symbol.len());
                        let best = sifted.wanted.entry(entry.address).or_insert(rank);
                        *best = rank.min(*best);
                    } else if let Some(outer) = around_closure(&name) {
                        sifted.closures.entry(outer.to_owned()).or_default().push(entry.address);
                    }
                }
                Reading::Other => {
                    sifted.coroutine_makers.extend(suffix::maker_of_coroutine(&symbol).map(str::to_owned));
                }
                Reading::NotUnderstood if sifted.not_understood.len() < NAMED_LIMIT => {
                    sifted.not_understood.push(shortened(&symbol));
                }
                Reading::NotUnderstood => sifted.uncounted += 1,
            }
        }
        sifted
    }

    fn names_at(&self, address: u64, rank: impl Fn(&FunctionName) -> Option<u8>) -> Vec<Named> {
        let here = self.at(address).iter();
        let mut names: Vec<Named> = here
            .filter_map(|entry| {
                let (name, kind, behind) = match entry.read() {
                    Reading::Function(name, Body::Part) => (name, Kind::Part, None),
                    Reading::Function(name, _) => (name, Kind::Whole, None),
                    Reading::Thunk { name, behind } => (name, Kind::Thunk, Some(behind)),
                    Reading::Other | Reading::NotUnderstood => return None,
                };
                rank(&name).map(|_| Named { name, kind, local: entry.local, behind })
            })
            .collect();
        // A name with a class says most; then the whole function before its copies, what the linker exports before
        // what is local, the shorter before the longer. The symbol decides last, so that the order never depends on chance.
        names.sort_by_cached_key(|named| {
            let Named { name, kind, local, .. } = named;
            (*kind == Kind::Thunk, name.class.is_none(), *kind, *local, name.symbol.len(), name.symbol.clone())
        });
        names
    }

    fn first_name(&self, address: u64, rank: impl Fn(&FunctionName) -> Option<u8>) -> Option<FunctionName> {
        self.names_at(address, rank).into_iter().next().map(|named| named.name)
    }

    fn candidate(&self, address: u64, names: Vec<Named>, wholes: &HashMap<String, Vec<u64>>) -> Option<Candidate> {
        let first = names.first()?;
        let part_of = (first.kind == Kind::Part).then(|| suffix::split(&first.name.symbol).0);
        let part_of = part_of.filter(|base| wholes.contains_key(*base)).map(str::to_owned);
        let behind_thunk = first.behind.as_ref().map(|behind| wholes.get(behind).cloned().unwrap_or_default());
        let here = self.at(address);
        let names: Vec<FunctionName> = names.into_iter().map(|named| named.name).collect();
        let is_named = |entry: &&Entry<'_>| names.iter().any(|name| name.symbol.as_bytes() == entry.name);
        let unnamed: Vec<&Entry<'_>> = here.iter().filter(|entry| !is_named(entry)).take(ALIAS_LIMIT).collect();
        let others = unnamed.iter().filter_map(|entry| match entry.read() {
            Reading::Function(name, _) => Some(name),
            _ => None,
        });
        Some(Candidate {
            address: VirtualAddress(address),
            size: here.iter().map(|entry| entry.size).max().unwrap_or(0),
            indirect: here.iter().any(|entry| entry.indirect),
            others: others.collect(),
            aliases: unnamed.iter().map(|entry| String::from_utf8_lossy(entry.name).into_owned()).collect(),
            names,
            part_of,
            behind_thunk,
            makes_coroutine: false,
            closures: Vec::new(),
        })
    }

    /// Addresses of the whole functions that the file has beside a `.part` or a thunk of them, by their symbols.
    fn addresses_of(&self, found: &BTreeMap<u64, Vec<Named>>) -> HashMap<String, Vec<u64>> {
        let bases: HashSet<&[u8]> = found
            .values()
            .flatten()
            .filter_map(|named| match named.kind {
                Kind::Whole => None,
                Kind::Part => Some(suffix::split(&named.name.symbol).0.as_bytes()),
                Kind::Thunk => named.behind.as_deref().map(str::as_bytes),
            })
            .collect();
        let mut addresses: HashMap<String, Vec<u64>> = HashMap::new();
        if !bases.is_empty() {
            for entry in self.entries.iter().filter(|entry| bases.contains(entry.name)) {
                let symbol = String::from_utf8_lossy(entry.name).into_owned();
                addresses.entry(symbol).or_default().push(entry.address);
            }
        }
        addresses
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
    fn read(&self) -> Reading {
        match std::str::from_utf8(self.name) {
            Ok(name) if name.len() < SYMBOL_LIMIT => function_name::read(name),
            _ => Reading::NotUnderstood,
        }
    }

    /// The symbol, if it is text.
    pub fn symbol(&self) -> Option<&str> {
        std::str::from_utf8(self.name).ok()
    }

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

/// A name of a string table: what stands before the next zero byte, or as much of it as is read at most.
fn up_to_zero(names: &[u8]) -> &[u8] {
    let names = names.get(..names.len().min(SYMBOL_LIMIT)).unwrap_or(names);
    let end = names.iter().position(|byte| *byte == 0).unwrap_or(names.len());
    names.get(..end).unwrap_or(names)
}

fn shortened(symbol: &str) -> String {
    match symbol.char_indices().nth(SHOWN_LIMIT) {
        Some((end, _)) => format!("{}\u{2026}", symbol.get(..end).unwrap_or_default()),
        None => symbol.to_owned(),
    }
}

/// Path of the function that a Rust closure is written in.
fn around_closure(name: &FunctionName) -> Option<&str> {
    let start = (name.language == Language::Rust)
        .then(|| name.path.find("::{closure").or_else(|| name.path.find("::{{closure")))?;
    start.and_then(|start| name.path.get(..start))
}
