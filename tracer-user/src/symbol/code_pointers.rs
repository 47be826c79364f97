//! The pointers to code that a file's data holds.

use object::elf;
use object::endian::LittleEndian;
use object::read::ReadRef;
use object::read::elf::Rela;

use super::elf_file::ElfFile;

/// Largest section that is looked into, bytes; the relocations of libtorch take 30 MB.
const SECTION_LIMIT: u64 = 64 << 20;
/// Most pointers that are kept: 128 MB of memory.
const POINTER_LIMIT: usize = 8 << 20;

/// A pointer to code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CodePointer {
    /// Address of the pointer.
    pub slot: u64,
    /// Address that it holds, before the file is moved.
    pub target: u64,
}

/// All pointers into executable segments, by the address of the pointer, each once.
pub(super) fn code_pointers<'data, R: ReadRef<'data>>(file: &ElfFile<'data, R>) -> Vec<CodePointer> {
    let full = file
        .relocations(SECTION_LIMIT)
        .flatten()
        .filter(|relocation| relocation.r_type(LittleEndian, false) == elf::R_X86_64_RELATIVE)
        .map(|relocation| CodePointer {
            slot: relocation.r_offset(LittleEndian),
            target: relocation.r_addend(LittleEndian) as u64,
        });
    let packed = file.packed_relocations(SECTION_LIMIT).filter_map(|slot| {
        let bytes = file.initial_bytes(slot, 8)?.try_into().ok()?;
        Some(CodePointer { slot, target: u64::from_le_bytes(bytes) })
    });
    let fixed =
        file.is_fixed().then(|| file.data_sections(SECTION_LIMIT).flat_map(|(start, bytes)| words(start, bytes)));
    let mut pointers: Vec<CodePointer> = full
        .chain(packed)
        .chain(fixed.into_iter().flatten())
        .filter(|pointer| file.code_offset(pointer.target).is_some())
        .take(POINTER_LIMIT)
        .collect();
    pointers.sort_unstable();
    pointers.dedup_by_key(|pointer| pointer.slot);
    pointers
}

/// The aligned words of a section.
fn words(start: u64, bytes: &[u8]) -> impl Iterator<Item = CodePointer> {
    let padding = start.wrapping_neg() % 8;
    let aligned = usize::try_from(padding).ok().and_then(|padding| bytes.get(padding..)).unwrap_or_default();
    let (words, _) = aligned.as_chunks::<8>();
    let slots = (0..).map_while(move |index: u64| start.checked_add(padding)?.checked_add(index.checked_mul(8)?));
    slots.zip(words).map(|(slot, word)| CodePointer { slot, target: u64::from_le_bytes(*word) })
}
