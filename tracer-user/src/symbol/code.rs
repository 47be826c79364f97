//! All instructions of one function, its split-off cold parts included.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use object::read::ReadRef;

use super::image::Image;
use super::jump_table::{self, JumpTable};
use super::registers::{self, StackChange};
use super::unwind_table::{StackLevel, StackLevels};
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

/// The instructions of a function, in the order of their addresses within each part, and what is known of them.
pub(super) struct Code<'data> {
    /// The parts; the first one holds the entry.
    pub parts: Vec<Part<'data>>,
    /// The direct jumps of the function by their target, wherever that is.
    pub jumps_to: BTreeMap<u64, Vec<u64>>,
    /// The jumps through registers and memory.
    pub indirect_jumps: Vec<Instruction>,
    /// The tables of a `switch` that were read to their end, by the jump that goes through them.
    pub tables: BTreeMap<u64, JumpTable>,
    /// The jumps through those tables by their target.
    pub table_jumps_to: BTreeMap<u64, Vec<u64>>,
}

/// One contiguous piece of a function.
pub(super) struct Part<'data> {
    start: u64,
    end: u64,
    bytes: &'data [u8],
    levels: StackLevels,
    /// The instructions of the part, none missing.
    pub instructions: Vec<Instruction>,
}

impl<'data> Code<'data> {
    /// Decodes the function at an address, and with it every part of it that its jumps lead to.
    pub fn decode<R: ReadRef<'data>>(
        image: &Image<'data, R>,
        address: u64,
        size: u64,
        symbols: &[&str],
    ) -> Result<Self, SkipReason> {
        let mut code = Self {
            parts: Vec::new(),
            jumps_to: BTreeMap::new(),
            indirect_jumps: Vec::new(),
            tables: BTreeMap::new(),
            table_jumps_to: BTreeMap::new(),
        };
        let mut bytes = 0;
        code.follow(image, symbols, vec![(address, address.saturating_add(size))], &mut bytes)?;
        let mut has_all_cold_parts = false;
        // A table can lead to code with a table of its own, and what leads to a jump decides how long its table is.
        for _ in 0..ROUND_LIMIT {
            let (parts, has_changed) = code.read_tables(image, symbols, address);
            if !has_changed && !has_all_cold_parts && code.tables.len() < code.indirect_jumps.len() {
                // What a table leads to that cannot be read is known by name at least.
                has_all_cold_parts = true;
                code.follow(image, symbols, image.functions.cold_parts_of(symbols).collect(), &mut bytes)?;
                continue;
            }
            if !has_changed {
                code.check_targets()?;
                return Ok(code);
            }
            code.follow(image, symbols, parts, &mut bytes)?;
        }
        // Tables that were read too early may be too short.
        code.forget_tables();
        code.check_targets()?;
        Ok(code)
    }

    /// Decodes these parts, and every further part that their jumps lead to.
    fn follow<R: ReadRef<'data>>(
        &mut self,
        image: &Image<'data, R>,
        symbols: &[&str],
        mut wanted: Vec<(u64, u64)>,
        bytes: &mut u64,
    ) -> Result<(), SkipReason> {
        while let Some((start, end)) = wanted.pop() {
            if self.contains(start) {
                continue;
            }
            *bytes = bytes.saturating_add(end - start);
            if *bytes > CODE_LIMIT || self.parts.len() >= PART_LIMIT {
                return Err(SkipReason::OverBudget);
            }
            let part = Part::decode(image, start, end)?;
            for instruction in part.instructions.iter().filter(|instruction| is_direct_jump(instruction)) {
                let target = instruction.near_branch_target();
                self.jumps_to.entry(target).or_default().push(instruction.ip());
                let is_known = part.contains(target)
                    || self.contains(target)
                    || wanted.iter().any(|(start, end)| (*start..*end).contains(&target));
                if is_known {
                    continue;
                }
                if let Some(bounds) = image.part_at(target, part.levels.at(instruction.ip()), symbols)? {
                    wanted.push(bounds);
                }
            }
            let is_indirect = |jump: &&Instruction| jump.flow_control() == FlowControl::IndirectBranch;
            self.indirect_jumps.extend(part.instructions.iter().filter(is_indirect));
            self.parts.push(part);
        }
        Ok(())
    }

    /// Reads the tables of all indirect jumps by what is known now. Gives the parts that they lead to, and whether anything
    /// is new.
    fn read_tables<R: ReadRef<'data>>(
        &mut self,
        image: &Image<'data, R>,
        symbols: &[&str],
        entry: u64,
    ) -> (Vec<(u64, u64)>, bool) {
        let mut parts = Vec::new();
        let mut tables = BTreeMap::new();
        // The interpreters of this world have hundreds, which lead to each other.
        if self.indirect_jumps.len() <= TABLE_LIMIT {
            for jump in &self.indirect_jumps {
                let Some(table) = jump_table::read(image, self, jump) else { continue };
                let Some(wanted) = self.pieces(image, symbols, entry, jump, &table) else { continue };
                parts.extend(wanted);
                tables.insert(jump.ip(), table);
            }
        }
        let has_changed = tables != self.tables || !parts.is_empty();
        self.forget_tables();
        for (jump, table) in &tables {
            for target in &table.targets {
                self.table_jumps_to.entry(*target).or_default().push(*jump);
            }
        }
        self.tables = tables;
        (parts, has_changed)
    }

    fn forget_tables(&mut self) {
        self.tables.clear();
        self.table_jumps_to.clear();
    }

    /// The parts of the function that a table leads to and that are not decoded yet; `None` for a table of pointers to
    /// functions, and for one that leads to where no part of this function can be.
    fn pieces<R: ReadRef<'data>>(
        &self,
        image: &Image<'data, R>,
        symbols: &[&str],
        entry: u64,
        jump: &Instruction,
        table: &JumpTable,
    ) -> Option<Vec<(u64, u64)>> {
        let (part, _) = self.position(jump.ip())?;
        let level = part.level_at(jump);
        let is_part_of_it =
            |target: u64| target != entry && (self.contains(target) || image.is_cold_part(target, symbols));
        let is_switch = table.holds_distances
            || level == StackLevel::Below
            || table.targets.iter().any(|target| is_part_of_it(*target));
        if !is_switch {
            return None;
        }
        let mut pieces = Vec::new();
        for target in &table.targets {
            if self.contains(*target) {
                // An entry between two instructions of what was decoded: not all of this is code, or it is no table.
                self.position(*target)?;
            } else if !pieces.iter().any(|(start, end)| (*start..*end).contains(target)) {
                pieces.push(image.piece_at(*target, level, symbols)?);
            }
        }
        Some(pieces)
    }

    /// A jump into the middle of an instruction means that what was decoded is not what runs.
    fn check_targets(&self) -> Result<(), SkipReason> {
        for part in &self.parts {
            for (target, _) in self.jumps_to.range(part.start..part.end) {
                if part.instructions.binary_search_by_key(target, Instruction::ip).is_err() {
                    return Err(SkipReason::Undecodable { address: VirtualAddress(*target) });
                }
            }
        }
        Ok(())
    }

    /// Whether an address lies in the function.
    pub fn contains(&self, address: u64) -> bool {
        self.parts.iter().any(|part| part.contains(address))
    }

    /// Start and end of its parts.
    pub fn bounds(&self) -> impl Iterator<Item = (u64, u64)> {
        self.parts.iter().map(|part| (part.start, part.end))
    }

    /// All instructions, part by part.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.parts.iter().flat_map(|part| &part.instructions)
    }

    /// The instruction at an address, as its part and its number there.
    pub fn position(&self, address: u64) -> Option<(&Part<'data>, usize)> {
        let part = self.parts.iter().find(|part| part.contains(address))?;
        let index = part.instructions.binary_search_by_key(&address, Instruction::ip).ok()?;
        Some((part, index))
    }

    /// Whether the function begins at an address, and at once makes a frame: a jump there that comes without a frame is
    /// a call in the place of a return, not the turn of a loop.
    pub fn begins_with_a_frame(&self, address: u64) -> bool {
        let Some(part) = self.parts.first() else { return false };
        let first = part.instructions.iter().find(|instruction| !registers::does_nothing(instruction));
        part.start == address
            && first.is_some_and(|first| matches!(registers::stack_change(first), StackChange::By(..0)))
    }

    /// Whether a direct jump of the function leads to an address.
    pub fn is_jumped_to(&self, address: u64) -> bool {
        self.jumps_to.contains_key(&address)
    }
}

impl<'data> Part<'data> {
    fn decode<R: ReadRef<'data>>(image: &Image<'data, R>, start: u64, end: u64) -> Result<Self, SkipReason> {
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
        Ok(Self { start, end, bytes, levels: image.levels(start, end)?, instructions })
    }

    fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// The bytes of one of its instructions.
    pub fn bytes_of(&self, instruction: &Instruction) -> &'data [u8] {
        let start = usize::try_from(instruction.ip().wrapping_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.get(start..start.saturating_add(instruction.len())).unwrap_or_default()
    }

    /// Where the stack pointer stands before one of its instructions runs.
    pub fn level_at(&self, instruction: &Instruction) -> StackLevel {
        self.levels.at(instruction.ip())
    }
}

/// Whether the instruction behind this one may run next.
pub(super) fn falls_through(instruction: &Instruction) -> bool {
    !matches!(
        instruction.flow_control(),
        FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Exception
    )
}

/// Whether an instruction is a jump, conditional or not, whose target is part of it.
pub(super) fn is_direct_jump(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch)
        && instruction.near_branch_target() != 0
}
