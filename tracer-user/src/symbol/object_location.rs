//! Where the object of a C++ member function is when it is called; nothing unless that is certain.

use std::collections::{BTreeSet, HashMap, HashSet};

use iced_x86::{FlowControl, Instruction, OpKind, Register};
use object::elf;
use object::endian::LittleEndian;
use object::read::ReadRef;
use object::read::elf::{Rela, Sym};

use super::code::Code;
use super::cpp_name;
use super::disassembly;
use super::dwarf_methods::{self, Described, Method, Returned};
use super::elf_file::{ElfFile, SymbolTable};
use super::exits::{self, ExitKind};
use super::first_argument;
use super::registers;
use super::resolve::Functions;
use crate::model::{Language, ObjectLocation, ResolvedFunction};

/// Instructions followed back from one return.
const LOOK_BACK: usize = 64;
/// Largest relocation section and largest virtual table that are read, bytes.
const RELOCATION_LIMIT: u64 = 64 << 20;
const TABLE_LIMIT: u64 = 1 << 20;

impl<'data, R: ReadRef<'data>> Functions<'data, R> {
    /// Sets where the object is for those C++ functions of this file of which it can be proved. Dear: reads debugging
    /// information where there is some, relocations and code otherwise. Gives half a sentence, after "its debugging information",
    /// where that could not be read and the object of a function is not known for want of it.
    pub fn locate_objects(&self, functions: &mut [&mut ResolvedFunction]) -> Option<&'static str> {
        let is_method =
            |function: &ResolvedFunction| function.name.language == Language::Cpp && function.name.class.is_some();
        let addresses: BTreeSet<u64> =
            functions.iter().filter(|function| is_method(function)).map(|function| function.address.0).collect();
        if addresses.is_empty() {
            return None;
        }
        let Described { methods: described, problem } = dwarf_methods::describe(&self.image.file, &addresses);
        let virtual_functions = virtual_functions(&self.image.file, &addresses);
        for function in functions.iter_mut().filter(|function| is_method(function)) {
            function.object = self.locate(function, &described, &virtual_functions);
        }
        let mut missed = functions.iter().filter(|function| {
            is_method(function)
                && function.object == ObjectLocation::None
                && !described.contains_key(&function.address.0)
        });
        problem.filter(|_| missed.next().is_some())
    }

    /// Of these functions those that debugging information says return a future (Rust).
    pub fn returning_futures(&self, functions: &[ResolvedFunction]) -> BTreeSet<u64> {
        let is_rust = |function: &&ResolvedFunction| function.name.language == Language::Rust;
        let addresses: BTreeSet<u64> = functions.iter().filter(is_rust).map(|function| function.address.0).collect();
        if addresses.is_empty() { addresses } else { dwarf_methods::returning_futures(&self.image.file, &addresses) }
    }

    fn locate(
        &self,
        function: &ResolvedFunction,
        described: &HashMap<u64, Method>,
        virtual_functions: &HashSet<u64>,
    ) -> ObjectLocation {
        // A thunk is called with a pointer to a part of the object.
        if cpp_name::is_special(&function.name.symbol) {
            return ObjectLocation::None;
        }
        let returned = match described.get(&function.address.0) {
            Some(Method { has_object: false, .. }) => return ObjectLocation::None,
            Some(Method { returned, .. }) => *returned,
            None => {
                let symbols = std::iter::once(&function.name.symbol).chain(&function.aliases);
                let is_member = virtual_functions.contains(&function.address.0)
                    || symbols.into_iter().any(|symbol| cpp_name::has_object_qualifier(symbol));
                if !is_member {
                    return ObjectLocation::None;
                }
                Returned::Unknown
            }
        };
        match returned {
            Returned::InRegisters => ObjectLocation::FirstArgument,
            Returned::InMemory => ObjectLocation::SecondArgument,
            Returned::Unknown if self.first_argument_is_no_result(function) => ObjectLocation::FirstArgument,
            Returned::Unknown => ObjectLocation::None,
        }
    }

    fn first_argument_is_no_result(&self, function: &ResolvedFunction) -> bool {
        let Ok(code) = disassembly::decode(&self.image, function.address.0, function.size, &[]) else { return false };
        first_argument::is_read_before_written(&code) || self.returns_no_address(&code)
    }

    /// Whether a return exists before which `rax` holds no address that was passed in. A function that returns a large
    /// value returns the address it was given for it on every path (System V AMD64 ABI, 3.2.3).
    fn returns_no_address(&self, code: &Code<'data>) -> bool {
        let Ok(found) = exits::find(&self.image, code) else { return false };
        let mut returns = found.iter().filter(|exit| exit.kind == ExitKind::Return);
        returns.any(|exit| result_is_no_address(code, exit.address))
    }
}

/// Follows one path back from a return to what wrote `rax`.
fn result_is_no_address(code: &Code<'_>, mut address: u64) -> bool {
    for _ in 0..LOOK_BACK {
        let Some(previous) = previous(code, address) else {
            // The function's beginning: `rax` was never written, so nothing is returned.
            return code
                .parts
                .first()
                .and_then(|part| part.instructions.first())
                .is_some_and(|first| first.ip() == address);
        };
        if matches!(previous.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            return false;
        }
        if registers::written(previous).any(|register| register == Register::RAX) {
            // Writing the lower half clears the upper half: 32 bits are no address.
            return previous.op0_kind() == OpKind::Register && previous.op0_register() == Register::EAX;
        }
        address = previous.ip();
    }
    false
}

/// An instruction that can run right before the one at an address.
fn previous<'code>(code: &'code Code<'_>, address: u64) -> Option<&'code Instruction> {
    let (part, index) = code.position(address)?;
    let above = index.checked_sub(1).and_then(|index| part.instructions.get(index));
    let falls_through = above.filter(|above| {
        !matches!(
            above.flow_control(),
            FlowControl::Return
                | FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Exception
        )
    });
    falls_through.or_else(|| {
        let source = code.jumps_to.get(&address)?.first()?;
        let (part, index) = code.position(*source)?;
        part.instructions.get(index)
    })
}

/// Those of the given functions that stand in a virtual table.
fn virtual_functions<'data, R: ReadRef<'data>>(file: &ElfFile<'data, R>, addresses: &BTreeSet<u64>) -> HashSet<u64> {
    let Ok(tables) = file.symbol_tables() else { return HashSet::new() };
    let mut ranges: Vec<(u64, u64)> = tables.iter().flat_map(virtual_tables).collect();
    ranges.sort_unstable();
    ranges.dedup();
    let in_table = |address: u64| {
        let after = ranges.partition_point(|(start, _)| *start <= address);
        after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, end)| address < *end)
    };
    let mut found = HashSet::new();
    // Slots that the loader fills: by an address of the file, or by a symbol.
    for relocation in file.relocations(RELOCATION_LIMIT).flatten().filter(|slot| in_table(slot.r_offset(LittleEndian)))
    {
        let addend = relocation.r_addend(LittleEndian) as u64;
        let symbol = relocation.r_sym(LittleEndian, false);
        let is_dynamic = |table: &&SymbolTable<'_>| table.dynamic;
        let base = match symbol {
            0 => Some(0),
            index => tables
                .iter()
                .find(is_dynamic)
                .and_then(|table| table.symbols.get(usize::try_from(index).ok()?))
                .map(|symbol| symbol.st_value(LittleEndian)),
        };
        found.extend(base.map(|base| base.wrapping_add(addend)).filter(|address| addresses.contains(address)));
    }
    // Slots that the file holds as they are: programs at fixed addresses, packed relocations.
    for (start, end) in ranges.iter().filter(|(start, end)| end - start <= TABLE_LIMIT) {
        let slots = file.initial_bytes(*start, end - start).unwrap_or_default();
        let slots = slots.chunks_exact(8).filter_map(|slot| slot.try_into().ok().map(u64::from_le_bytes));
        found.extend(slots.filter(|address| addresses.contains(address)));
    }
    found
}

fn virtual_tables(table: &SymbolTable<'_>) -> impl Iterator<Item = (u64, u64)> {
    table.symbols.iter().filter_map(|symbol| {
        let start = symbol.st_value(LittleEndian);
        let is_table = symbol.st_type() == elf::STT_OBJECT
            && usize::try_from(symbol.st_name(LittleEndian))
                .ok()
                .and_then(|name| table.names.get(name..))
                .is_some_and(|name| name.starts_with(b"_ZTV"));
        (is_table && start != 0).then(|| (start, start.saturating_add(symbol.st_size(LittleEndian))))
    })
}
