//! All instructions of one function, its split-off cold parts included.

use std::collections::BTreeMap;

use iced_x86::{FlowControl, Instruction};

use super::registers::{self, StackChange};
use super::unwind_table::{StackLevel, StackLevels};

/// The instructions of a function, in the order of their addresses within each part, and what is known of them.
#[derive(Default)]
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

/// A table of a `switch`, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JumpTable {
    /// Where its entries lead: sorted, each once.
    pub targets: Vec<u64>,
    /// Whether it holds distances, which only a `switch` makes; pointers may be those of functions.
    pub holds_distances: bool,
}

/// One contiguous piece of a function.
pub(super) struct Part<'data> {
    pub start: u64,
    pub end: u64,
    pub bytes: &'data [u8],
    pub levels: StackLevels,
    /// The instructions of the part, none missing.
    pub instructions: Vec<Instruction>,
}

impl<'data> Code<'data> {
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
    /// Whether an address lies in it.
    pub fn contains(&self, address: u64) -> bool {
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
