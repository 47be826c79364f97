//! One ELF file: its segments and sections, and the translation of its addresses to file offsets.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use object::elf;
use object::endian::LittleEndian;
use object::read::elf::{CompressionHeader, FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::read::{FileKind, ReadRef};

use super::error::SymbolError;
use super::unpack::{self, Packing};
use crate::model::{FileOffset, VirtualAddress};

type Header = elf::FileHeader64<LittleEndian>;
pub(super) type Section = elf::SectionHeader64<LittleEndian>;
pub(super) type Symbol = elf::Sym64<LittleEndian>;
pub(super) type Relocation = elf::Rela64<LittleEndian>;

/// Largest symbol table that is read; the largest seen have 6 MB.
pub(super) const SYMBOL_TABLE_LIMIT: u64 = 64 << 20;
/// Largest string table that is read.
pub(super) const STRING_TABLE_LIMIT: u64 = 256 << 20;

/// An ELF file, read through anything that hands out its bytes: a slice, or a cache over an open file.
#[derive(Debug)]
pub struct ElfFile<'data, R: ReadRef<'data>> {
    data: R,
    path: PathBuf,
    machine: elf::Machine,
    is_fixed: bool,
    is_program: bool,
    segments: Vec<Segment>,
    /// Offset and size in the file of what the loader is told (`PT_DYNAMIC`), and address of the index of unwind entries
    /// (`PT_GNU_EH_FRAME`).
    pub(super) loader: (Option<(u64, u64)>, Option<u64>),
    sections: SectionTable<'data, Header, R>,
}

/// A part of the file that is mapped when the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    executable: bool,
    writable: bool,
}

/// A symbol table with the bytes of its names.
pub(super) struct SymbolTable<'data> {
    pub symbols: &'data [Symbol],
    pub names: &'data [u8],
    /// Whether it is the one that relocations refer to.
    pub dynamic: bool,
}

impl<'data, R: ReadRef<'data>> ElfFile<'data, R> {
    /// Reads the headers; nothing else is read until it is asked for.
    ///
    /// # Errors
    /// `Malformed` for what is no whole ELF file, `WrongClass` for 32-bit and big-endian ones. `path` serves the
    /// messages only.
    pub fn parse(data: R, path: &Path) -> Result<Self, SymbolError> {
        let malformed = |detail| SymbolError::Malformed { path: path.to_owned(), detail };
        let wrong_class = || SymbolError::WrongClass { path: path.to_owned() };
        match FileKind::parse(data).map_err(malformed)? {
            FileKind::Elf64 => {}
            _ => return Err(wrong_class()),
        }
        let header = Header::parse(data).map_err(malformed)?;
        let endian = header.endian().map_err(|_| wrong_class())?;
        let headers = header.program_headers(endian, data).map_err(malformed)?;
        let of_kind = |kind| headers.iter().find(move |segment| segment.p_type(endian) == kind);
        let dynamic = of_kind(elf::PT_DYNAMIC).map(|segment| (segment.p_offset(endian), segment.p_filesz(endian)));
        let unwind_index = of_kind(elf::PT_GNU_EH_FRAME).map(|segment| segment.p_vaddr(endian));
        let segments = headers
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .map(|segment| Segment {
                address: segment.p_vaddr(endian),
                offset: segment.p_offset(endian),
                size: segment.p_filesz(endian),
                executable: segment.p_flags(endian).0 & elf::PF_X.0 != 0,
                writable: segment.p_flags(endian).0 & elf::PF_W.0 != 0,
            })
            .collect();
        // Packers cut section headers off, or leave an offset that leads nowhere: programs run without them.
        let sections = header.sections(endian, data).unwrap_or_default();
        Ok(Self {
            data,
            path: path.to_owned(),
            machine: header.e_machine(endian),
            is_fixed: header.e_type(endian) == elf::ET_EXEC,
            is_program: of_kind(elf::PT_INTERP).is_some() || header.e_type(endian) == elf::ET_EXEC,
            segments,
            loader: (dynamic, unwind_index),
            sections,
        })
    }

    /// Whether the code is x86-64 code.
    pub(super) fn is_x86_64(&self) -> bool {
        self.machine == elf::EM_X86_64
    }

    /// Whether the file is loaded at the addresses that it states, so that pointers in it need no relocation.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// Offset in the file of the byte at an address that is mapped executable.
    pub(super) fn code_offset(&self, address: u64) -> Option<FileOffset> {
        let segment = self.segments.iter().find(|segment| segment.executable && segment.contains(address))?;
        segment.offset.checked_add(address - segment.address).map(FileOffset)
    }

    /// Bytes of code; `None` unless the whole range lies in one executable segment.
    pub(super) fn code(&self, address: VirtualAddress, size: u64) -> Option<&'data [u8]> {
        let segment = self.segments.iter().find(|segment| segment.executable && segment.contains(address.0))?;
        self.read(segment, address.0, size)
    }

    /// Bytes as the file has them at an address of any mapped segment, before relocation.
    pub(super) fn initial_bytes(&self, address: u64, size: u64) -> Option<&'data [u8]> {
        let segment = self.segments.iter().find(|segment| segment.contains(address))?;
        self.read(segment, address, size)
    }

    /// Bytes of code from an address on, as many as the segment has, and no more than `limit`.
    pub(super) fn code_from(&self, address: u64, limit: u64) -> Option<&'data [u8]> {
        let segment = self.segments.iter().find(|segment| segment.executable && segment.contains(address))?;
        self.read(segment, address, limit.min(segment.address.checked_add(segment.size)?.checked_sub(address)?))
    }

    /// Bytes as the file has them from an address on, up to the end of its segment, and no more than `limit`.
    pub(super) fn initial_bytes_from(&self, address: u64, limit: u64) -> Option<&'data [u8]> {
        let segment = self.segments.iter().find(|segment| segment.contains(address))?;
        self.read(segment, address, limit.min(segment.address.checked_add(segment.size)?.checked_sub(address)?))
    }

    /// Bytes at an offset of the file.
    pub(super) fn bytes_at(&self, offset: u64, size: u64) -> Option<&'data [u8]> {
        self.data.read_bytes_at(offset, size).ok()
    }

    /// Bytes at an address that stay as the file has them, because they are mapped to be read only.
    pub(super) fn constant_bytes(&self, address: u64, size: u64) -> Option<&'data [u8]> {
        let segment = self.segments.iter().find(|segment| segment.contains(address))?;
        if segment.writable { None } else { self.read(segment, address, size) }
    }

    fn read(&self, segment: &Segment, address: u64, size: u64) -> Option<&'data [u8]> {
        let skip = address.checked_sub(segment.address)?;
        if skip.checked_add(size)? > segment.size {
            return None;
        }
        self.data.read_bytes_at(segment.offset.checked_add(skip)?, size).ok()
    }

    /// Whether the file has a table of sections.
    pub(super) fn has_sections(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Bytes of the segments that are not code, as far as each is no larger than `limit` bytes.
    pub(super) fn data_segments(&self, limit: u64) -> impl Iterator<Item = &'data [u8]> + use<'_, 'data, R> {
        let data = self.segments.iter().filter(move |segment| !segment.executable && segment.size <= limit);
        data.filter_map(|segment| self.read(segment, segment.address, segment.size))
    }

    /// A section by name.
    pub(super) fn section(&self, name: &str) -> Option<&'data Section> {
        self.sections.section_by_name(LittleEndian, name.as_bytes()).map(|(_, section)| section)
    }

    /// Contents of a section that is there, not compressed, and no larger than `limit` bytes.
    pub(super) fn section_bytes(&self, name: &str, limit: u64) -> Option<&'data [u8]> {
        let section = self.section(name)?;
        if section.sh_size(LittleEndian) > limit || section.sh_flags(LittleEndian).0 & elf::SHF_COMPRESSED.0 != 0 {
            return None;
        }
        section.data(LittleEndian, self.data).ok()
    }

    /// Contents of a section of debugging information, unpacked (`-gz`, `.zdebug_*`); empty where there is none.
    ///
    /// # Errors
    /// Why it cannot be read, for a sentence.
    pub(super) fn debug_section(&self, name: &str, limit: u64) -> Result<Cow<'data, [u8]>, &'static str> {
        let old_name = name.replacen(".debug", ".zdebug", 1);
        let (section, is_old) = match (self.section(name), self.section(&old_name)) {
            (Some(section), _) => (section, false),
            (None, Some(section)) => (section, true),
            (None, None) => return Ok(Cow::Borrowed(&[])),
        };
        let header = section.compression(LittleEndian, self.data).map_err(|_| unpack::DAMAGED)?;
        if let Some((header, offset, size)) = header {
            let packing = match header.ch_type(LittleEndian) {
                elf::ELFCOMPRESS_ZLIB => Packing::Zlib,
                elf::ELFCOMPRESS_ZSTD => Packing::Zstandard,
                _ => return Err("is compressed in a way that is not known here"),
            };
            let data = self.bytes_at(offset, size).ok_or(unpack::DAMAGED)?;
            return unpack::unpack(packing, data, header.ch_size(LittleEndian), limit).map(Cow::Owned);
        }
        let data = section.data(LittleEndian, self.data).map_err(|_| unpack::DAMAGED)?;
        let old = data.strip_prefix(b"ZLIB").and_then(|rest| rest.split_first_chunk::<8>()).filter(|_| is_old);
        match old {
            Some((size, data)) => unpack::unpack(Packing::Zlib, data, u64::from_be_bytes(*size), limit).map(Cow::Owned),
            None if data.len() as u64 > limit => Err(unpack::TOO_LARGE),
            None => Ok(Cow::Borrowed(data)),
        }
    }

    /// Sections with relocations that the loader applies (`SHT_RELA`).
    pub(super) fn relocations(&self, limit: u64) -> impl Iterator<Item = &'data [Relocation]> + use<'_, 'data, R> {
        self.sections.iter().filter(move |section| section.sh_size(LittleEndian) <= limit).filter_map(|section| {
            section.rela(LittleEndian, self.data).ok().flatten().map(|(relocations, _)| relocations)
        })
    }

    /// Addresses of pointers that the loader moves with the file (`SHT_RELR`); the file holds their values before.
    pub(super) fn packed_relocations(&self, limit: u64) -> impl Iterator<Item = u64> + use<'_, 'data, R> {
        let packed = self.sections.iter().filter(move |section| section.sh_size(LittleEndian) <= limit);
        packed.filter_map(|section| section.relr(LittleEndian, self.data).ok().flatten()).flatten()
    }

    /// Sections of data that the file holds and the program maps: start address and bytes.
    pub(super) fn data_sections(&self, limit: u64) -> impl Iterator<Item = (u64, &'data [u8])> + use<'_, 'data, R> {
        let is_data = |section: &&Section| {
            let flags = section.sh_flags(LittleEndian).0;
            section.sh_type(LittleEndian) == elf::SHT_PROGBITS
                && flags & elf::SHF_ALLOC.0 != 0
                && flags & (elf::SHF_EXECINSTR.0 | elf::SHF_COMPRESSED.0) == 0
        };
        self.sections
            .iter()
            .filter(is_data)
            .filter(move |section| section.sh_size(LittleEndian) <= limit)
            .filter_map(|section| Some((section.sh_addr(LittleEndian), section.data(LittleEndian, self.data).ok()?)))
    }

    /// The symbol tables that the file has: `.symtab` (`SHT_SYMTAB`), `.dynsym` (`SHT_DYNSYM`) or both.
    ///
    /// # Errors
    /// `Malformed` where a table does not lie within the file, `TooLarge` where it exceeds every sensible size.
    pub(super) fn symbol_tables(&self) -> Result<Vec<SymbolTable<'data>>, SymbolError> {
        let kinds = [elf::SHT_SYMTAB, elf::SHT_DYNSYM];
        kinds.into_iter().filter_map(|kind| self.symbol_table(kind).transpose()).collect()
    }

    /// The symbol table of one kind, `SHT_SYMTAB` or `SHT_DYNSYM`, if the file has it.
    pub(super) fn symbol_table(&self, kind: elf::SectionType) -> Result<Option<SymbolTable<'data>>, SymbolError> {
        let malformed = |detail| SymbolError::Malformed { path: self.path.clone(), detail };
        if self.sections.is_empty() && kind == elf::SHT_DYNSYM {
            return Ok(self.loader_symbols());
        }
        let Some(section) = self.sections.iter().find(|section| section.sh_type(LittleEndian) == kind) else {
            return Ok(None);
        };
        let names = self.sections.section(section.link(LittleEndian)).map_err(malformed)?;
        self.check_size("symbol table", section, SYMBOL_TABLE_LIMIT)?;
        self.check_size("string table", names, STRING_TABLE_LIMIT)?;
        Ok(Some(SymbolTable {
            symbols: section.data_as_array(LittleEndian, self.data).map_err(malformed)?,
            names: names.data(LittleEndian, self.data).map_err(malformed)?,
            dynamic: kind == elf::SHT_DYNSYM,
        }))
    }

    /// Offset in the file and address of the segments that are mapped executable.
    pub(super) fn executable_segments(
        &self,
    ) -> impl Iterator<Item = (FileOffset, VirtualAddress, u64)> + use<'_, 'data, R> {
        let executable = self.segments.iter().filter(|segment| segment.executable);
        executable.map(|segment| (FileOffset(segment.offset), VirtualAddress(segment.address), segment.size))
    }

    /// Whether it is a program whose own functions, those that it does not export, have no symbols any more.
    pub(super) fn is_stripped_program(&self) -> bool {
        self.is_program && !self.sections.iter().any(|section| section.sh_type(LittleEndian) == elf::SHT_SYMTAB)
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn check_size(&self, table: &'static str, section: &Section, limit: u64) -> Result<(), SymbolError> {
        let bytes = section.sh_size(LittleEndian);
        if bytes <= limit {
            return Ok(());
        }
        Err(SymbolError::TooLarge { path: self.path.clone(), table, bytes, limit })
    }
}

impl Segment {
    fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|skip| skip < self.size)
    }
}
