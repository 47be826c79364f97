//! All instructions of one function, its split-off cold parts included.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use object::read::ReadRef;

use super::image::Image;
use super::registers::{self, StackChange};
use super::unwind_table::{StackLevel, StackLevels};
use crate::model::{SkipReason, VirtualAddress};

/// Most code of one function that is decoded, bytes. The largest real functions (interpreters, generated parsers)
/// stay under 1 MB.
const CODE_LIMIT: u64 = 4 << 20;
/// Most parts of one function that are followed.
const PART_LIMIT: usize = 64;

/// The instructions of a function, in the order of their addresses within each part, and what is known of them.
pub(super) struct Code<'data> {
    /// The parts; the first one holds the entry.
    pub parts: Vec<Part<'data>>,
    /// The direct jumps of the function by their target, wherever that is.
    pub jumps_to: BTreeMap<u64, Vec<u64>>,
    /// The jumps through registers and memory.
    pub indirect_jumps: Vec<Instruction>,
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
        let mut code = Self { parts: Vec::new(), jumps_to: BTreeMap::new(), indirect_jumps: Vec::new() };
        let mut wanted = vec![(address, address.saturating_add(size))];
        let mut bytes = 0_u64;
        while let Some((start, end)) = wanted.pop() {
            if code.contains(start) {
                continue;
            }
            bytes = bytes.saturating_add(end - start);
            if bytes > CODE_LIMIT || code.parts.len() >= PART_LIMIT {
                return Err(SkipReason::OverBudget);
            }
            let part = Part::decode(image, start, end)?;
            for instruction in part.instructions.iter().filter(|instruction| is_direct_jump(instruction)) {
                let target = instruction.near_branch_target();
                code.jumps_to.entry(target).or_default().push(instruction.ip());
                let is_known = part.contains(target)
                    || code.contains(target)
                    || wanted.iter().any(|(start, end)| (*start..*end).contains(&target));
                if is_known {
                    continue;
                }
                if let Some(bounds) = image.part_at(target, part.levels.at(instruction.ip()), symbols)? {
                    wanted.push(bounds);
                }
            }
            let is_indirect = |jump: &&Instruction| jump.flow_control() == FlowControl::IndirectBranch;
            code.indirect_jumps.extend(part.instructions.iter().filter(is_indirect));
            code.parts.push(part);
        }
        code.check_targets()?;
        Ok(code)
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

/// Whether an instruction is a jump, conditional or not, whose target is part of it.
pub(super) fn is_direct_jump(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch)
        && instruction.near_branch_target() != 0
}
