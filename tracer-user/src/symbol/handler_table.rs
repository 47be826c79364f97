//! The interpreter's table of instruction handlers: 256 code pointers, of which those of unassigned numbers are all the same.

use std::collections::BTreeMap;

use object::read::ReadRef;

use super::code_pointers::{CodePointer, code_pointers};
use super::image::Image;
use super::opcodes::VersionOpcodes;
use crate::model::NoInterpreterSites;

/// Numbers of instructions.
const LENGTH: usize = 256;
/// How many assigned numbers may share the handler of the unassigned ones: instructions that never run, whose handlers
/// the compiler leaves out.
const SHARED_LIMIT: usize = 4;
/// Fewest different handlers of a real table; 3.8 has 120.
const HANDLERS_MINIMUM: usize = 100;

/// Addresses of the handlers by instruction number.
pub(super) struct HandlerTable {
    handlers: Vec<u64>,
}

impl HandlerTable {
    /// Finds the table of the version's instructions.
    pub fn find<'data, R: ReadRef<'data>>(
        image: &Image<'data, R>,
        opcodes: &VersionOpcodes,
    ) -> Result<Self, NoInterpreterSites> {
        let pointers = code_pointers(&image.file);
        let mut tables = pointers.windows(LENGTH).filter(|window| is_table(window, opcodes));
        let Some(table) = tables.next() else { return Err(NoInterpreterSites::NoHandlerTable) };
        let more = tables.count();
        if more > 0 {
            return Err(NoInterpreterSites::SeveralHandlerTables { count: 1 + more });
        }
        Ok(Self { handlers: table.iter().map(|pointer| pointer.target).collect() })
    }

    /// Address of the handler of an instruction.
    pub fn handler(&self, opcode: u8) -> Option<u64> {
        self.handlers.get(usize::from(opcode)).copied()
    }

    /// Bounds of the function that most handlers lie in: the interpreter loop. What of it seldom runs may lie elsewhere.
    pub fn interpreter_loop<'data, R: ReadRef<'data>>(
        &self,
        image: &Image<'data, R>,
    ) -> Result<(u64, u64), NoInterpreterSites> {
        let mut handlers = self.handlers.clone();
        handlers.sort_unstable();
        handlers.dedup();
        let mut functions: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for handler in &handlers {
            if let Some(bounds) = image.unwind().bounds(*handler) {
                *functions.entry(bounds).or_default() += 1;
            }
        }
        match functions.into_iter().max_by_key(|(_, count)| *count) {
            Some((bounds, count)) if count > handlers.len() / 2 => Ok(bounds),
            _ => Err(NoInterpreterSites::SeparateHandlers),
        }
    }
}

/// Whether this is the table: the unassigned numbers share one handler with hardly any other, the wanted ones do not.
fn is_table(window: &[CodePointer], opcodes: &VersionOpcodes) -> bool {
    let target = |number: u8| window.get(usize::from(number)).map(|pointer| pointer.target);
    let mut unassigned = opcodes.unassigned();
    let Some(unknown) = unassigned.next().and_then(target) else { return false };
    if !unassigned.all(|number| target(number) == Some(unknown)) {
        return false;
    }
    if opcodes.borders().chain(opcodes.wanted()).any(|number| target(number) == Some(unknown)) {
        return false;
    }
    let shared = window.iter().filter(|pointer| pointer.target == unknown).count();
    let follows = |pair: &[CodePointer]| matches!(pair, [left, right] if left.slot.checked_add(8) == Some(right.slot));
    let mut targets: Vec<u64> = window.iter().map(|pointer| pointer.target).collect();
    targets.sort_unstable();
    targets.dedup();
    shared <= opcodes.unassigned().count() + SHARED_LIMIT
        && targets.len() >= HANDLERS_MINIMUM
        && window.windows(2).all(follows)
}
