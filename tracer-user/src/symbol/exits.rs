//! The instructions by which a function is left.

use iced_x86::{Code as Opcode, FlowControl, Instruction};
use object::read::ReadRef;

use super::code::{Code, Part, is_direct_jump};
use super::image::Image;
use super::indirect_jump::{self, Destination};
use super::unwind_table::StackLevel;
use crate::model::{SkipReason, VirtualAddress};

/// An instruction that leaves the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub address: u64,
    pub kind: ExitKind,
}

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitKind {
    /// A return.
    Return,
    /// A jump to another function.
    TailJump,
    /// A jump to another function under a condition: the low four bits of its opcode.
    ConditionalTailJump(u8),
}

/// Finds every exit of a decoded function, by address.
pub(super) fn find<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
) -> Result<Vec<Exit>, SkipReason> {
    let mut exits = Vec::new();
    for part in &code.parts {
        for instruction in &part.instructions {
            if let Some(kind) = exit_kind(image, code, part, instruction)? {
                exits.push(Exit { address: instruction.ip(), kind });
            }
        }
    }
    exits.sort_unstable_by_key(|exit| exit.address);
    Ok(exits)
}

fn exit_kind<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    part: &Part<'data>,
    instruction: &Instruction,
) -> Result<Option<ExitKind>, SkipReason> {
    let ambiguous = || Err(SkipReason::AmbiguousJump { address: VirtualAddress(instruction.ip()) });
    let level = part.level_at(instruction);
    match instruction.flow_control() {
        FlowControl::Return => match instruction.code() {
            Opcode::Retnq | Opcode::Retnq_imm16 => Ok(Some(ExitKind::Return)),
            _ => ambiguous(),
        },
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch if is_direct_jump(instruction) => {
            // With the stack pointer elsewhere than at the entry it cannot be the end of the call.
            let target = instruction.near_branch_target();
            let calls_itself = level == StackLevel::Entry && code.begins_with_a_frame(target);
            if (code.contains(target) && !calls_itself) || level == StackLevel::Below {
                return Ok(None);
            }
            if instruction.flow_control() == FlowControl::UnconditionalBranch {
                return Ok(Some(ExitKind::TailJump));
            }
            match condition(part.bytes_of(instruction)) {
                Some(condition) => Ok(Some(ExitKind::ConditionalTailJump(condition))),
                None => ambiguous(),
            }
        }
        FlowControl::IndirectBranch => match indirect_jump::destination(image, code, part, instruction) {
            Destination::Inside => Ok(None),
            // Whatever it leads to belongs to the same call.
            _ if level == StackLevel::Below => Ok(None),
            Destination::Outside => Ok(Some(ExitKind::TailJump)),
            Destination::Unclear => ambiguous(),
        },
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => ambiguous(),
        _ => Ok(None),
    }
}

/// The low four bits of the opcode of a conditional jump; `None` for `jrcxz` and `loop`, which test no flags.
pub(super) fn condition(bytes: &[u8]) -> Option<u8> {
    let is_prefix = |byte: &&u8| matches!(**byte, 0x2e | 0x3e | 0x66 | 0xf2 | 0xf3);
    let mut opcode = bytes.iter().skip_while(is_prefix);
    match (opcode.next()?, opcode.next()?) {
        (short @ 0x70..=0x7f, _) => Some(short & 0xf),
        (0x0f, near @ 0x80..=0x8f) => Some(near & 0xf),
        _ => None,
    }
}
