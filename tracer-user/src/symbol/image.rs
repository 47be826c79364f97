//! A file with its tables: what is code, where functions begin and end, what belongs together.

use std::cell::{Cell, OnceCell};

use object::read::ReadRef;

use super::code_pointers::{CodePointer, code_pointers};
use super::elf_file::ElfFile;
use super::function_table::FunctionTable;
use super::unwind_table::{StackLevel, StackLevels, UnwindTable};
use crate::model::SkipReason;

/// Largest function size that a symbol is believed, bytes.
const SIZE_LIMIT: u64 = 16 << 20;

/// Work done for one file at most: bytes of code decoded, rows of unwind tables, steps of searches. All functions of
/// libxgboost together take 30 million; this many take a few seconds.
const WORK_LIMIT: u64 = 128 << 20;

/// The file and its tables; the unwind table is read when it is first needed.
pub(super) struct Image<'data, R: ReadRef<'data>> {
    pub file: ElfFile<'data, R>,
    pub functions: FunctionTable<'data>,
    unwind: OnceCell<UnwindTable<'data>>,
    code_pointers: OnceCell<Vec<CodePointer>>,
    work_left: Cell<u64>,
}

impl<'data, R: ReadRef<'data>> Image<'data, R> {
    pub fn new(file: ElfFile<'data, R>, functions: FunctionTable<'data>) -> Self {
        Self {
            file,
            functions,
            unwind: OnceCell::new(),
            code_pointers: OnceCell::new(),
            work_left: Cell::new(WORK_LIMIT),
        }
    }

    /// Counts work, so that no file can keep the tracer busy without end. The unit is about 10 ns.
    pub fn spend(&self, work: usize) -> Result<(), SkipReason> {
        let left = self.work_left.get().checked_sub(work as u64);
        self.work_left.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(SkipReason::OverBudget)
    }

    /// The unwind table.
    pub fn unwind(&self) -> &UnwindTable<'data> {
        self.unwind.get_or_init(|| UnwindTable::read(&self.file))
    }

    /// The pointers to code in the file's data, by their own address.
    pub fn code_pointers(&self) -> &[CodePointer] {
        self.code_pointers.get_or_init(|| code_pointers(&self.file))
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

    /// Stack levels between two addresses.
    pub fn levels(&self, start: u64, end: u64) -> Result<StackLevels, SkipReason> {
        let levels = self.unwind().levels(start, end);
        self.spend(levels.rows())?;
        Ok(levels)
    }

    /// Bounds of the code at the target of a jump out of a function, if it belongs to the same call: it is the function's
    /// cold part by name, or the code there expects a frame, which a jump from where the stack pointer stands where the
    /// call left it cannot bring.
    pub fn part_at(&self, target: u64, level: StackLevel, symbols: &[&str]) -> Result<Option<(u64, u64)>, SkipReason> {
        let here = self.functions.containing(target);
        let by_unwind = self.unwind().bounds(target);
        let by_symbol = || here.iter().map(|entry| (entry.address, entry.address.saturating_add(entry.size))).max();
        let mut belongs = here.iter().any(|entry| entry.is_cold_part_of(symbols));
        if let Some((start, end)) = by_unwind.filter(|_| !belongs && level != StackLevel::Entry) {
            belongs = self.levels(start, end)?.at(target) == StackLevel::Below;
        }
        let bounds = by_unwind.or_else(by_symbol).filter(|(start, end)| (*start..*end).contains(&target));
        Ok(bounds.filter(|_| belongs))
    }

    /// Whether an address lies in a cold part, by its symbol, of the function with one of these base symbols.
    pub fn is_cold_part(&self, address: u64, symbols: &[&str]) -> bool {
        self.functions.containing(address).iter().any(|entry| entry.is_cold_part_of(symbols))
    }

    /// Bounds of the code at an entry of a function's jump table; `None` where that is another function, by its symbol or by
    /// where it expects the stack pointer, or no code that an unwind entry or a symbol is about.
    pub fn piece_at(&self, target: u64, level: StackLevel, symbols: &[&str]) -> Option<(u64, u64)> {
        let here = self.functions.containing(target);
        if !here.is_empty() && !self.is_cold_part(target, symbols) {
            return None;
        }
        let by_symbol = || here.iter().map(|entry| (entry.address, entry.address.saturating_add(entry.size))).max();
        let (start, end) =
            self.unwind().bounds(target).or_else(by_symbol).filter(|(start, end)| (*start..*end).contains(&target))?;
        let expected = self.levels(start, end).ok()?.at(target);
        let agrees = level == StackLevel::Unknown || expected == StackLevel::Unknown || level == expected;
        agrees.then_some((start, end))
    }
}
