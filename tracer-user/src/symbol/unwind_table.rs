//! `.eh_frame`: the bounds of functions, and where their stack pointer stands at each instruction.

use gimli::{BaseAddresses, CfaRule, CieOrFde, EhFrame, LittleEndian, UnwindContext, UnwindSection, X86_64};
use object::endian;
use object::read::ReadRef;
use object::read::elf::SectionHeader;

use super::elf_file::ElfFile;

/// Largest `.eh_frame` that is read, bytes; libtorch's has 26 MB.
const SECTION_LIMIT: u64 = 128 << 20;
/// Most rows that are read for one stretch of code; the largest real functions have some thousand.
const ROW_LIMIT: usize = 1 << 16;

/// The unwind entries of a file by the address they begin at; empty where the file has none.
pub(super) struct UnwindTable<'data> {
    section: EhFrame<gimli::EndianSlice<'data, LittleEndian>>,
    bases: BaseAddresses,
    /// Start, end, offset in the section; sorted by start.
    entries: Vec<(u64, u64, usize)>,
}

/// Where the stack pointer stands, relative to where it stood at the first instruction of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StackLevel {
    /// Where it stood then: a jump from here can be a tail call.
    Entry,
    /// Below: whatever runs next belongs to the same call.
    Below,
    /// Not known.
    Unknown,
}

/// Stack levels of one function, from address to address.
pub(super) struct StackLevels(Vec<(u64, u64, StackLevel)>);

impl<'data> UnwindTable<'data> {
    /// Reads the section and indexes its entries. What does not parse ends the index; it never fails.
    pub fn read<R: ReadRef<'data>>(file: &ElfFile<'data, R>) -> Self {
        let address_of = |name| file.section(name).map(|section| section.sh_addr(endian::LittleEndian));
        let by_section = || Some((address_of(".eh_frame")?, file.section_bytes(".eh_frame", SECTION_LIMIT)?));
        let found = by_section().or_else(|| file.indexed_unwind_entries(SECTION_LIMIT));
        let (address, bytes) = found.unwrap_or_default();
        let mut table = Self {
            section: EhFrame::new(bytes, LittleEndian),
            bases: BaseAddresses::default().set_eh_frame(address).set_text(address_of(".text").unwrap_or(0)),
            entries: Vec::new(),
        };
        let mut common = None;
        let mut entries = table.section.entries(&table.bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            // Nearly all entries share one preamble; it is parsed once for a run of them.
            let parsed = partial.parse(|section, bases, offset| match &common {
                Some((known, cie)) if *known == offset => Ok(gimli::CommonInformationEntry::clone(cie)),
                _ => {
                    let cie = section.cie_from_offset(bases, offset)?;
                    common = Some((offset, cie.clone()));
                    Ok(cie)
                }
            });
            let Ok(parsed) = parsed else { continue };
            let (start, length) = (parsed.initial_address(), parsed.len());
            if let Some(end) = start.checked_add(length)
                && start != 0
                && length != 0
            {
                table.entries.push((start, end, parsed.offset()));
            }
        }
        table.entries.sort_unstable();
        table
    }

    /// Start and end of the entry that covers an address.
    pub fn bounds(&self, address: u64) -> Option<(u64, u64)> {
        self.entry(address).map(|(start, end, _)| (start, end))
    }

    fn entry(&self, address: u64) -> Option<(u64, u64, usize)> {
        let after = self.entries.partition_point(|(start, ..)| *start <= address);
        let entry = *self.entries.get(after.checked_sub(1)?)?;
        (address < entry.1).then_some(entry)
    }

    /// Whether exceptions have handlers, or objects are destroyed by them, in the code of the entry that covers an address.
    pub fn has_handlers(&self, address: u64) -> bool {
        let Some((_, _, offset)) = self.entry(address) else { return false };
        let entry = self.section.fde_from_offset(&self.bases, offset.into(), EhFrame::cie_from_offset);
        entry.is_ok_and(|entry| entry.lsda().is_some())
    }

    /// Stack levels between two addresses. Where there is no entry they are `Unknown`.
    pub fn levels(&self, start: u64, end: u64) -> StackLevels {
        let mut levels = Vec::new();
        let mut address = start;
        // One symbol may span several entries (hand-written assembly); an entry covers at least one byte.
        while address < end && levels.len() < ROW_LIMIT {
            let Some((_, entry_end, offset)) = self.entry(address) else { break };
            self.append_levels(offset, &mut levels);
            address = entry_end;
        }
        levels.sort_unstable_by_key(|(start, ..)| *start);
        StackLevels(levels)
    }

    fn append_levels(&self, offset: usize, levels: &mut Vec<(u64, u64, StackLevel)>) {
        let mut context = UnwindContext::new();
        let Ok(entry) = self.section.fde_from_offset(&self.bases, offset.into(), EhFrame::cie_from_offset) else {
            return;
        };
        let Ok(mut rows) = entry.rows(&self.section, &self.bases, &mut context) else { return };
        while let Ok(Some(row)) = rows.next_row()
            && levels.len() < ROW_LIMIT
        {
            let level = match row.cfa() {
                // The call pushed the return address: 8 bytes below the canonical frame address.
                CfaRule::RegisterAndOffset { register: X86_64::RSP, offset: 8 } => StackLevel::Entry,
                CfaRule::RegisterAndOffset { register: X86_64::RSP | X86_64::RBP, offset: 16.. } => StackLevel::Below,
                _ => StackLevel::Unknown,
            };
            levels.push((row.start_address(), row.end_address(), level));
        }
    }
}

impl StackLevels {
    /// How many pieces they were put together from.
    pub fn rows(&self) -> usize {
        self.0.len()
    }

    /// The level before the instruction at an address runs.
    pub fn at(&self, address: u64) -> StackLevel {
        let after = self.0.partition_point(|(start, ..)| *start <= address);
        match after.checked_sub(1).and_then(|index| self.0.get(index)) {
            Some((_, end, level)) if address < *end => *level,
            _ => StackLevel::Unknown,
        }
    }
}
