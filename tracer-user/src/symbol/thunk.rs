//! Thunks of virtual functions: code that corrects the pointer to the object and goes on to the function, or a copy of the function
//! that does so first. Only a copy is a call of its own.

use iced_x86::{FlowControl, Instruction, OpKind, Register};
use object::read::ReadRef;

use super::code::{Code, is_direct_jump};
use super::exits::{Exit, ExitKind};
use super::image::Image;
use super::registers;

/// Registers that correcting the pointer needs; it is the second argument where the result is returned in memory.
const CORRECTION: [Register; 5] = [Register::RDI, Register::RSI, Register::RAX, Register::R10, Register::R11];

/// Whether a thunk goes on to the function behind it, at one of these addresses, rather than being a copy of it.
pub(super) fn goes_on_to<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    exits: &[Exit],
    behind: &[u64],
) -> bool {
    let leads_there = |instruction: &Instruction| match instruction.op0_kind() {
        OpKind::NearBranch64 => {
            let target = instruction.near_branch_target();
            // The linker's stubs, which lead to a function of this or another file, have no symbol.
            behind.contains(&target) || image.functions.containing(target).is_empty()
        }
        // A slot that the loader fills with the function's address.
        _ => instruction.is_ip_rel_memory_operand(),
    };
    let mut branches = code.instructions().filter(|instruction| instruction.flow_control() != FlowControl::Next);
    match exits {
        [exit] if exit.kind == ExitKind::TailJump => {
            let is_straight = branches.all(|branch| branch.ip() == exit.address);
            let corrects_only = code
                .instructions()
                .filter(|instruction| instruction.ip() != exit.address)
                .all(|instruction| registers::written(instruction).all(|register| CORRECTION.contains(&register)));
            let jump = code.instructions().find(|instruction| instruction.ip() == exit.address);
            is_straight
                && corrects_only
                && jump.is_some_and(|jump| (is_direct_jump(jump) || jump.is_jmp_near_indirect()) && leads_there(jump))
        }
        // Where the result must be corrected too, the function is called.
        [exit] if exit.kind == ExitKind::Return => {
            let mut calls = branches
                .filter(|branch| matches!(branch.flow_control(), FlowControl::Call | FlowControl::IndirectCall));
            matches!((calls.next(), calls.next()), (Some(call), None) if leads_there(call))
                && !code.instructions().any(|instruction| instruction.flow_control() == FlowControl::IndirectBranch)
                && code.instructions().count() <= CORRECTED_RESULT_LIMIT
        }
        _ => false,
    }
}

/// Instructions of a thunk that corrects the result, at most.
const CORRECTED_RESULT_LIMIT: usize = 32;
