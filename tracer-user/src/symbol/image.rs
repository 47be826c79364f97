//! A file with its tables: what is code, where functions begin and end, what belongs together.

use std::cell::OnceCell;

use object::read::ReadRef;

use super::elf_file::ElfFile;
use super::function_table::FunctionTable;
use super::unwind_table::{StackLevel, UnwindTable};

/// Largest function size that a symbol is believed, bytes.
const SIZE_LIMIT: u64 = 16 << 20;

/// The file and its tables; the unwind table is read when it is first needed.
pub(super) struct Image<'data, R: ReadRef<'data>> {
    pub file: ElfFile<'data, R>,
    pub functions: FunctionTable<'data>,
    unwind: OnceCell<UnwindTable<'data>>,
}

impl<'data, R: ReadRef<'data>> Image<'data, R> {
    pub fn new(file: ElfFile<'data, R>, functions: FunctionTable<'data>) -> Self {
        Self { file, functions, unwind: OnceCell::new() }
    }

    /// The unwind table.
    pub fn unwind(&self) -> &UnwindTable<'data> {
        self.unwind.get_or_init(|| UnwindTable::read(&self.file))
    }

    /// Bytes of code of the function that begins at an address: what its symbol says, unless that is nothing, too
    /// much, or reaches into the next function; then what its unwind entry says. `None` without either.
    pub fn size_of(&self, address: u64, symbol_size: u64) -> Option<u64> {
        let overlaps = self
            .functions
            .next_after(address)
            .is_some_and(|next| address.checked_add(symbol_size).is_none_or(|end| next < end));
        if symbol_size != 0 && symbol_size <= SIZE_LIMIT && !overlaps {
            return Some(symbol_size);
        }
        match self.unwind().bounds(address) {
            Some((start, end)) if start == address => Some(end - start),
            // A symbol inside another's code (an alternative entry) is still as long as its own symbol says.
            _ => Some(symbol_size).filter(|size| (1..=SIZE_LIMIT).contains(size)),
        }
    }

    /// Bounds of the code at the target of a jump out of a function, if it belongs to the same call: it is the function's
    /// cold part by name, or the code there expects a frame, which a jump from where the stack pointer stands where the
    /// call left it cannot bring.
    pub fn part_at(&self, target: u64, level: StackLevel, symbols: &[&str]) -> Option<(u64, u64)> {
        let here = self.functions.containing(target);
        let bounds = self.unwind().bounds(target);
        let by_symbol = || here.iter().map(|entry| (entry.address, entry.address.saturating_add(entry.size))).max();
        let is_cold_part = || here.iter().any(|entry| entry.is_cold_part_of(symbols));
        let continues = || {
            let (start, end) = bounds?;
            (self.unwind().levels(start, end).at(target) == StackLevel::Below).then_some(())
        };
        let belongs = is_cold_part() || (level != StackLevel::Entry && continues().is_some());
        bounds.or_else(by_symbol).filter(|(start, end)| belongs && (*start..*end).contains(&target))
    }
}
