//! What the loader is told of a file: enough to find exported symbols and unwind entries where the section headers are gone.

use object::elf;
use object::read::ReadRef;

use super::elf_file::{ElfFile, STRING_TABLE_LIMIT, SYMBOL_TABLE_LIMIT, Symbol, SymbolTable};

/// Most entries of the loader's list; real files have about thirty.
const ENTRY_LIMIT: u64 = 4096;
/// Bytes of a symbol.
const SYMBOL_BYTES: u64 = size_of::<Symbol>() as u64;
/// How the address of `.eh_frame` is written by every linker: four bytes, signed, relative to where they stand.
const RELATIVE_WORD: u8 = 0x1b;

/// The tables that the loader's list names.
#[derive(Default)]
struct Tables {
    symbols: Option<u64>,
    names: Option<u64>,
    names_size: Option<u64>,
    hash: Option<u64>,
    gnu_hash: Option<u64>,
}

impl<'data, R: ReadRef<'data>> ElfFile<'data, R> {
    /// The symbols that the loader links by: `.dynsym` without its section header.
    pub(super) fn loader_symbols(&self) -> Option<SymbolTable<'data>> {
        let tables = self.tables()?;
        let (start, names) = (tables.symbols?, tables.names?);
        let names = self.initial_bytes(names, tables.names_size?.min(STRING_TABLE_LIMIT))?;
        let limit = SYMBOL_TABLE_LIMIT / SYMBOL_BYTES;
        let count = tables
            .hash
            .and_then(|hash| self.count_by_hash(hash))
            .or_else(|| self.count_by_gnu_hash(tables.gnu_hash?, limit))?;
        let bytes = self.initial_bytes(start, count.min(limit).checked_mul(SYMBOL_BYTES)?)?;
        let (symbols, _) = object::pod::slice_from_bytes(bytes, usize::try_from(count.min(limit)).ok()?).ok()?;
        Some(SymbolTable { symbols, names, dynamic: true })
    }

    /// Address and bytes of `.eh_frame` by the index that the unwinder finds it by.
    pub(super) fn indexed_unwind_entries(&self, limit: u64) -> Option<(u64, &'data [u8])> {
        let index = self.loader.1?;
        let header = self.initial_bytes(index, 8)?;
        let ([1, RELATIVE_WORD, _, _], distance) = header.split_first_chunk::<4>()? else { return None };
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        let start = index.checked_add(4)?.checked_add_signed(i64::from(distance))?;
        Some((start, self.initial_bytes_from(start, limit)?))
    }

    fn tables(&self) -> Option<Tables> {
        let (offset, size) = self.loader.0?;
        let bytes = self.bytes_at(offset, size.min(ENTRY_LIMIT * 16))?;
        let (entries, _) = bytes.as_chunks::<16>();
        let mut tables = Tables::default();
        for entry in entries {
            let (tag, value) = entry.split_first_chunk::<8>()?;
            let (tag, value) = (i64::from_le_bytes(*tag), u64::from_le_bytes(value.try_into().ok()?));
            match elf::DynamicTag(tag) {
                elf::DT_NULL => break,
                elf::DT_SYMTAB => tables.symbols = Some(value),
                elf::DT_STRTAB => tables.names = Some(value),
                elf::DT_STRSZ => tables.names_size = Some(value),
                elf::DT_HASH => tables.hash = Some(value),
                elf::DT_GNU_HASH => tables.gnu_hash = Some(value),
                _ => {}
            }
        }
        Some(tables)
    }

    fn u32(&self, address: u64) -> Option<u32> {
        self.initial_bytes(address, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// The old hash table has a link for each symbol.
    fn count_by_hash(&self, table: u64) -> Option<u64> {
        self.u32(table.checked_add(4)?).map(u64::from)
    }

    /// The other one ends the list of its last bucket with a mark.
    fn count_by_gnu_hash(&self, table: u64, limit: u64) -> Option<u64> {
        let buckets = u64::from(self.u32(table)?);
        let first = u64::from(self.u32(table.checked_add(4)?)?);
        let bloom = u64::from(self.u32(table.checked_add(8)?)?);
        let start = table.checked_add(16)?.checked_add(bloom.checked_mul(8)?)?;
        let heads = self.initial_bytes(start, buckets.checked_mul(4)?)?;
        let (heads, _) = heads.as_chunks::<4>();
        let mut last = heads.iter().map(|head| u64::from(u32::from_le_bytes(*head))).max()?;
        if last < first {
            return Some(first);
        }
        let links = start.checked_add(buckets.checked_mul(4)?)?;
        while last < limit && self.u32(links.checked_add((last - first).checked_mul(4)?)?)? & 1 == 0 {
            last += 1;
        }
        Some(last + 1)
    }
}
