//! What debugging information says of member functions: whether they have an object, and how they return.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use gimli::{
    Attribute, AttributeValue, DebuggingInformationEntry, DwCc, Dwarf, DwarfSections, EndianSlice, LittleEndian, Unit,
    UnitOffset,
};
use object::read::ReadRef;

use super::elf_file::ElfFile;

/// Largest `.debug_info`, and largest section beside it, that is read, bytes.
const SECTION_LIMIT: u64 = 64 << 20;
/// Time that is taken at most, looked at before each unit. What was not reached counts as not described.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Longest chain of references that is followed (copy, declaration, typedef, const).
const CHAIN_LIMIT: usize = 16;
/// Size from which on no value comes back in registers, bytes (System V AMD64 ABI, 3.2.3).
const MEMORY_BYTES: u64 = 17;

type Slice<'data> = EndianSlice<'data, LittleEndian>;
type Entry<'data> = DebuggingInformationEntry<Slice<'data>>;

/// A function by its debugging information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method {
    /// Whether it is called on an object.
    pub has_object: bool,
    pub returned: Returned,
}

/// How a function returns its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// In registers, or not at all.
    InRegisters,
    /// In memory that the caller provides: its address is the first argument.
    InMemory,
    /// Not known.
    Unknown,
}

/// What debugging information says of some functions, and why it does not say more.
#[derive(Debug, Default)]
pub(super) struct Described {
    pub methods: HashMap<u64, Method>,
    /// Half a sentence, after "its debugging information".
    pub problem: Option<&'static str>,
}

/// What is known of the functions at these addresses. Malformed entries are passed over.
pub(super) fn describe<'data, R: ReadRef<'data>>(file: &ElfFile<'data, R>, addresses: &BTreeSet<u64>) -> Described {
    let mut found = Described::default();
    let sections = match sections(file) {
        Ok(sections) => sections,
        Err(problem) => return Described { problem: Some(problem), ..found },
    };
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let deadline = Instant::now() + TIME_LIMIT;
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        if Instant::now() >= deadline {
            found.problem = Some("takes too long to read");
            break;
        }
        let Ok(unit) = dwarf.unit(header) else { continue };
        if !covers(&dwarf, &unit, addresses) {
            continue;
        }
        if unit.dwo_name().is_ok_and(|name| name.is_some()) {
            found.problem = Some("lies in files of its own (-gsplit-dwarf), which are not looked at");
            continue;
        }
        // A malformed entry ends its unit: what follows it cannot be read.
        let _ = describe_unit(&dwarf, &unit, addresses, &mut found.methods);
    }
    found
}

/// The sections, unpacked where they are compressed.
fn sections<'data, R: ReadRef<'data>>(
    file: &ElfFile<'data, R>,
) -> Result<DwarfSections<Cow<'data, [u8]>>, &'static str> {
    DwarfSections::load(|section: gimli::SectionId| file.debug_section(section.name(), SECTION_LIMIT))
}

/// Of the Rust functions at these addresses those that return a future: to call them is to make it.
pub(super) fn returning_futures<'data, R: ReadRef<'data>>(
    file: &ElfFile<'data, R>,
    addresses: &BTreeSet<u64>,
) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let Ok(sections) = sections(file) else { return found };
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let deadline = Instant::now() + TIME_LIMIT;
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next()
        && Instant::now() < deadline
    {
        let Ok(unit) = dwarf.unit(header) else { continue };
        if !covers(&dwarf, &unit, addresses) {
            continue;
        }
        let _ = visit_functions(&dwarf, &unit, addresses, |address, entry| {
            if returned_name(&dwarf, &unit, entry).is_some_and(|name| is_future(&name)) {
                found.insert(address);
            }
        });
    }
    found
}

/// Whether a type of rustc's is what an `async fn` or block becomes, or a box of one.
fn is_future(name: &str) -> bool {
    ["{async_fn_env", "{async_block_env", "{gen_fn_env", "{async_gen_fn_env", "dyn core::future::future::Future"]
        .iter()
        .any(|word| name.contains(word))
}

/// Name of the type that a function returns.
fn returned_name<'data>(
    dwarf: &Dwarf<Slice<'data>>,
    unit: &Unit<Slice<'data>>,
    entry: &Entry<'data>,
) -> Option<String> {
    let mut entry = entry.clone();
    for _ in 0..CHAIN_LIMIT {
        if let Some(of_type) = entry.attr(gimli::DW_AT_type) {
            let name = referred(unit, of_type)?.attr_value(gimli::DW_AT_name)?;
            return dwarf.attr_string(unit, name).ok().map(|name| name.to_string_lossy().into_owned());
        }
        let reference = entry.attr(gimli::DW_AT_abstract_origin).or_else(|| entry.attr(gimli::DW_AT_specification));
        entry = referred(unit, reference?)?;
    }
    None
}

/// Whether a unit may hold one of the functions.
fn covers<'data>(dwarf: &Dwarf<Slice<'data>>, unit: &Unit<Slice<'data>>, addresses: &BTreeSet<u64>) -> bool {
    let Ok(mut ranges) = dwarf.unit_ranges(unit) else { return true };
    let mut any = false;
    while let Ok(Some(range)) = ranges.next() {
        any = true;
        if range.begin < range.end && addresses.range(range.begin..range.end).next().is_some() {
            return true;
        }
    }
    !any
}

fn describe_unit<'data>(
    dwarf: &Dwarf<Slice<'data>>,
    unit: &Unit<Slice<'data>>,
    addresses: &BTreeSet<u64>,
    found: &mut HashMap<u64, Method>,
) -> gimli::Result<()> {
    visit_functions(dwarf, unit, addresses, |address, entry| {
        found.insert(address, describe_function(unit, entry));
    })
}

/// Calls `visit` with each function of a unit at one of the addresses.
fn visit_functions<'data>(
    dwarf: &Dwarf<Slice<'data>>,
    unit: &Unit<Slice<'data>>,
    addresses: &BTreeSet<u64>,
    mut visit: impl FnMut(u64, &Entry<'data>),
) -> gimli::Result<()> {
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        if entry.tag() != gimli::DW_TAG_subprogram {
            continue;
        }
        let Some(start) = entry.attr_value(gimli::DW_AT_low_pc) else { continue };
        if let Some(address) = dwarf.attr_address(unit, start)?
            && addresses.contains(&address)
        {
            visit(address, entry);
        }
    }
    Ok(())
}

/// Reads a function's entry, and those that it refers to: the abstract function it is a copy of, its declaration.
fn describe_function<'data>(unit: &Unit<Slice<'data>>, entry: &Entry<'data>) -> Method {
    let mut method = Method { has_object: false, returned: Returned::InRegisters };
    let mut next = Some(entry.clone());
    for _ in 0..CHAIN_LIMIT {
        let Some(entry) = next.take() else { return method };
        method.has_object |= entry.attr(gimli::DW_AT_object_pointer).is_some();
        if let Some(of_type) = entry.attr(gimli::DW_AT_type) {
            method.returned = returned(unit, of_type);
        }
        let reference = entry.attr(gimli::DW_AT_abstract_origin).or_else(|| entry.attr(gimli::DW_AT_specification));
        match reference.map(|attribute| referred(unit, attribute)) {
            None => return method,
            Some(None) => {
                // The declaration, and with it the returned type, is out of reach.
                method.returned = Returned::Unknown;
                return method;
            }
            Some(entry) => next = entry,
        }
    }
    Method { returned: Returned::Unknown, ..method }
}

fn returned<'data>(unit: &Unit<Slice<'data>>, of_type: &Attribute<Slice<'data>>) -> Returned {
    let mut of_type = referred(unit, of_type);
    for _ in 0..CHAIN_LIMIT {
        let Some(entry) = of_type else { return Returned::Unknown };
        match entry.tag() {
            gimli::DW_TAG_base_type
            | gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => return Returned::InRegisters,
            gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => {
                return class_returned(&entry);
            }
            gimli::DW_TAG_typedef | gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type => {
                let Some(under) = entry.attr(gimli::DW_AT_type) else { return Returned::Unknown };
                of_type = referred(unit, under);
            }
            _ => return Returned::Unknown,
        }
    }
    Returned::Unknown
}

fn class_returned(class: &Entry<'_>) -> Returned {
    let size = class.attr_value(gimli::DW_AT_byte_size).and_then(|value| value.udata_value());
    let convention = match class.attr_value(gimli::DW_AT_calling_convention) {
        Some(AttributeValue::CallingConvention(convention)) => Some(convention),
        Some(value) => value.udata_value().and_then(|value| u8::try_from(value).ok()).map(DwCc),
        None => None,
    };
    match (convention, size) {
        (Some(gimli::DW_CC_pass_by_reference), _) => Returned::InMemory,
        (_, Some(MEMORY_BYTES..)) => Returned::InMemory,
        (Some(gimli::DW_CC_pass_by_value), Some(_)) => Returned::InRegisters,
        // Small, but it may have a copy constructor, which forces it into memory.
        _ => Returned::Unknown,
    }
}

/// The entry of the same unit that an attribute refers to.
fn referred<'data>(unit: &Unit<Slice<'data>>, attribute: &Attribute<Slice<'data>>) -> Option<Entry<'data>> {
    let offset: UnitOffset = match attribute.value() {
        AttributeValue::UnitRef(offset) => offset,
        AttributeValue::DebugInfoRef(offset) => offset.to_unit_offset(&unit.header)?,
        _ => return None,
    };
    unit.entry(offset).ok()
}
