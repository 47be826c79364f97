//! Decodes a function: its instructions, the parts that its jumps lead to, and the tables that they go through.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use object::read::ReadRef;

use super::code::{Code, JumpTable, Part, is_direct_jump};
use super::image::Image;
use super::jump_table;
use super::unwind_table::StackLevel;
use crate::model::{SkipReason, VirtualAddress};

/// Most code of one function that is decoded, bytes. The largest real functions (interpreters, generated parsers)
/// stay under 1 MB.
const CODE_LIMIT: u64 = 4 << 20;
/// Most parts of one function that are followed.
const PART_LIMIT: usize = 64;
/// Most indirect jumps of one function whose tables are read.
const TABLE_LIMIT: usize = 64;
/// Most times that the tables of a function are read until nothing new is found.
const ROUND_LIMIT: usize = 16;

/// A function on its way to be decoded.
struct Disassembly<'decode, 'data, R: ReadRef<'data>> {
    image: &'decode Image<'data, R>,
    /// Symbols of the function: parts that were split off have them in their names.
    symbols: &'decode [&'decode str],
    /// Where the function begins.
    entry: u64,
    code: Code<'data>,
    /// Bytes decoded so far.
    bytes: u64,
}

/// Decodes the function at an address, and with it every part of it that its jumps lead to.
pub(super) fn decode<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    address: u64,
    size: u64,
    symbols: &[&str],
) -> Result<Code<'data>, SkipReason> {
    let mut function = Disassembly { image, symbols, entry: address, code: Code::default(), bytes: 0 };
    function.follow(vec![(address, address.saturating_add(size))])?;
    let mut has_all_cold_parts = false;
    // A table can lead to code with a table of its own, and what leads to a jump decides how long its table is.
    for _ in 0..ROUND_LIMIT {
        let (parts, has_changed) = function.read_tables();
        let code = &function.code;
        if !has_changed && !has_all_cold_parts && code.tables.len() < code.indirect_jumps.len() {
            // What a table leads to that cannot be read is known by name at least.
            has_all_cold_parts = true;
            function.follow(image.functions.cold_parts_of(symbols).collect())?;
            continue;
        }
        if !has_changed {
            return function.checked();
        }
        function.follow(parts)?;
    }
    // Tables that were read too early may be too short.
    function.forget_tables();
    function.checked()
}

impl<'data, R: ReadRef<'data>> Disassembly<'_, 'data, R> {
    /// Decodes these parts, and every further part that their jumps lead to.
    fn follow(&mut self, mut wanted: Vec<(u64, u64)>) -> Result<(), SkipReason> {
        let Self { image, symbols, code, bytes, .. } = self;
        while let Some((start, end)) = wanted.pop() {
            if code.contains(start) {
                continue;
            }
            *bytes = bytes.saturating_add(end - start);
            if *bytes > CODE_LIMIT || code.parts.len() >= PART_LIMIT {
                return Err(SkipReason::OverBudget);
            }
            let part = decode_part(image, start, end)?;
            for instruction in part.instructions.iter().filter(|instruction| is_direct_jump(instruction)) {
                let target = instruction.near_branch_target();
                code.jumps_to.entry(target).or_default().push(instruction.ip());
                let is_known = part.contains(target)
                    || code.contains(target)
                    || wanted.iter().any(|(start, end)| (*start..*end).contains(&target));
                if is_known {
                    continue;
                }
                if let Some(bounds) = image.part_at(target, part.level_at(instruction), symbols)? {
                    wanted.push(bounds);
                }
            }
            let is_indirect = |jump: &&Instruction| jump.flow_control() == FlowControl::IndirectBranch;
            code.indirect_jumps.extend(part.instructions.iter().filter(is_indirect));
            code.parts.push(part);
        }
        Ok(())
    }

    /// Reads the tables of all indirect jumps by what is known now. Gives the parts that they lead to, and whether anything
    /// is new.
    fn read_tables(&mut self) -> (Vec<(u64, u64)>, bool) {
        let mut parts = Vec::new();
        let mut tables = BTreeMap::new();
        // The interpreters of this world have hundreds, which lead to each other.
        if self.code.indirect_jumps.len() <= TABLE_LIMIT {
            for jump in &self.code.indirect_jumps {
                let Some(table) = jump_table::read(self.image, &self.code, jump) else { continue };
                let Some(wanted) = self.pieces(jump, &table) else { continue };
                parts.extend(wanted);
                tables.insert(jump.ip(), table);
            }
        }
        let has_changed = tables != self.code.tables || !parts.is_empty();
        self.forget_tables();
        for (jump, table) in &tables {
            for target in &table.targets {
                self.code.table_jumps_to.entry(*target).or_default().push(*jump);
            }
        }
        self.code.tables = tables;
        (parts, has_changed)
    }

    fn forget_tables(&mut self) {
        self.code.tables.clear();
        self.code.table_jumps_to.clear();
    }

    /// The parts of the function that a table leads to and that are not decoded yet; `None` for a table of pointers to
    /// functions, and for one that leads to where no part of this function can be.
    fn pieces(&self, jump: &Instruction, table: &JumpTable) -> Option<Vec<(u64, u64)>> {
        let Self { image, symbols, entry, code, .. } = self;
        let (part, _) = code.position(jump.ip())?;
        let level = part.level_at(jump);
        let is_part_of_it =
            |target: u64| target != *entry && (code.contains(target) || image.is_cold_part(target, symbols));
        let is_switch = table.holds_distances
            || level == StackLevel::Below
            || table.targets.iter().any(|target| is_part_of_it(*target));
        if !is_switch {
            return None;
        }
        let mut pieces = Vec::new();
        for target in &table.targets {
            if code.contains(*target) {
                // An entry between two instructions of what was decoded: not all of this is code, or it is no table.
                code.position(*target)?;
            } else if !pieces.iter().any(|(start, end)| (*start..*end).contains(target)) {
                pieces.push(image.piece_at(*target, level, symbols)?);
            }
        }
        Some(pieces)
    }

    /// A jump into the middle of an instruction means that what was decoded is not what runs.
    fn checked(self) -> Result<Code<'data>, SkipReason> {
        for part in &self.code.parts {
            for (target, _) in self.code.jumps_to.range(part.start..part.end) {
                if part.instructions.binary_search_by_key(target, Instruction::ip).is_err() {
                    return Err(SkipReason::Undecodable { address: VirtualAddress(*target) });
                }
            }
        }
        Ok(self.code)
    }
}

fn decode_part<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    start: u64,
    end: u64,
) -> Result<Part<'data>, SkipReason> {
    let size = end.saturating_sub(start);
    let bytes = image.file.code(VirtualAddress(start), size).ok_or(SkipReason::NoCode)?;
    image.spend(bytes.len())?;
    let mut instructions = Vec::with_capacity(bytes.len() / 4);
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Err(SkipReason::Undecodable { address: VirtualAddress(instruction.ip()) });
        }
        instructions.push(instruction);
    }
    Ok(Part { start, end, bytes, levels: image.levels(start, end)?, instructions })
}
