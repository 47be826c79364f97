//! Whether every way through a function ends at a `ret`, with the stack pointer where it was, and leaves the return address
//! alone: what the kernel's return probe, which puts another return address there, takes for granted.
//!
//! Code that switches stacks, jumps as `longjmp` does, keeps its return address as `setjmp` does, or runs into what lies
//! behind it calls nothing either.

use std::collections::HashMap;

use iced_x86::{
    Code as Opcode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::code::{Code, is_direct_jump};
use super::registers::{self, StackChange};

/// Bytes of a return address.
const RETURN_ADDRESS: i64 = 8;

/// Whether the function is as plain as that. Calls are taken to return.
pub(super) fn is_plain(code: &Code<'_>) -> bool {
    let Some(entry) = code.parts.first().and_then(|part| part.instructions.first()) else { return false };
    let frame = Frame::of(code);
    // Where the stack pointer stands before an instruction, relative to the entry, where that is the same on every way.
    let mut heights: HashMap<u64, Option<i64>> = HashMap::new();
    let mut wanted = vec![(entry.ip(), Some(0))];
    while let Some((address, height)) = wanted.pop() {
        let height = match heights.get(&address) {
            Some(known) if *known == height || known.is_none() => continue,
            Some(_) => None,
            None => height,
        };
        heights.insert(address, height);
        let Some(instruction) = code.position(address).and_then(|(part, index)| part.instructions.get(index)) else {
            return false;
        };
        if frame.touches_return_address(instruction, height) {
            return false;
        }
        let next = match instruction.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall => height,
            _ => match frame.height_after(instruction, height) {
                Some(next) => next,
                None => return false,
            },
        };
        match instruction.flow_control() {
            FlowControl::Return if height.is_some_and(|height| height != 0) => return false,
            FlowControl::Return | FlowControl::Exception => {}
            FlowControl::UnconditionalBranch if is_direct_jump(instruction) => {
                wanted.push((instruction.near_branch_target(), next));
            }
            FlowControl::ConditionalBranch if is_direct_jump(instruction) => {
                wanted.extend([(instruction.near_branch_target(), next), (instruction.next_ip(), next)]);
            }
            FlowControl::IndirectBranch => match code.tables.get(&instruction.ip()) {
                Some(table) => wanted.extend(table.targets.iter().map(|target| (*target, next))),
                None => return false,
            },
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                wanted.push((instruction.next_ip(), next));
            }
            _ => return false,
        }
    }
    true
}

/// How a function keeps track of its frame.
struct Frame {
    /// Registers that the function gives the stack pointer's value, or one near it.
    copies: Vec<Register>,
    /// Whether `%rbp` is one, right after it was saved: the return address is 8 bytes above it then.
    has_frame_pointer: bool,
}

impl Frame {
    fn of(code: &Code<'_>) -> Self {
        let copies: Vec<Register> = code.instructions().filter_map(copy_of_stack_pointer).collect();
        let saves = |pair: &[Instruction]| {
            matches!(pair, [save, copy] if save.code() == Opcode::Push_r64
                && save.op0_register() == Register::RBP
                && is_move(copy)
                && copy_of_stack_pointer(copy) == Some(Register::RBP))
        };
        let has_frame_pointer = code.parts.iter().any(|part| part.instructions.windows(2).any(saves));
        Self { copies, has_frame_pointer }
    }

    /// Where the stack pointer stands after an instruction (`Some(None)`: at some place of the same stack); `None` where
    /// it may stand on another stack, or above the return address.
    fn height_after(&self, instruction: &Instruction, height: Option<i64>) -> Option<Option<i64>> {
        if instruction.flow_control() == FlowControl::Return {
            return Some(height);
        }
        match registers::stack_change(instruction) {
            StackChange::By(bytes) => match height.map(|height| height + bytes) {
                Some(1..) => None,
                after => Some(after),
            },
            StackChange::Unknown => self.stays_on_its_stack(instruction).then_some(None),
        }
    }

    fn stays_on_its_stack(&self, instruction: &Instruction) -> bool {
        match instruction.code() {
            Opcode::Leaveq => self.copies.contains(&Register::RBP),
            Opcode::And_rm64_imm8 | Opcode::And_rm64_imm32 | Opcode::Sub_r64_rm64 | Opcode::Sub_rm64_r64 => true,
            Opcode::Lea_r64_m => self.copies.contains(&instruction.memory_base()),
            _ => {
                is_move(instruction)
                    && instruction.op1_kind() == OpKind::Register
                    && self.copies.contains(&instruction.op1_register())
            }
        }
    }

    fn touches_return_address(&self, instruction: &Instruction, height: Option<i64>) -> bool {
        let takes_address_only = matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        if takes_address_only || instruction.flow_control() == FlowControl::Return {
            return false;
        }
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        info.used_memory().iter().any(|used| {
            let distance = match (used.base(), height) {
                (Register::RSP, Some(height)) => height.wrapping_add(used.displacement() as i64),
                (Register::RBP, _) if self.has_frame_pointer => {
                    (used.displacement() as i64).wrapping_sub(RETURN_ADDRESS)
                }
                _ => return false,
            };
            let size = i64::try_from(used.memory_size().size()).unwrap_or(i64::MAX);
            used.access() != OpAccess::NoMemAccess
                && used.index() == Register::None
                && distance < RETURN_ADDRESS
                && distance.saturating_add(size) > 0
        })
    }
}

/// The register that an instruction gives the stack pointer's value, or one at a distance from it.
fn copy_of_stack_pointer(instruction: &Instruction) -> Option<Register> {
    let copies = match instruction.code() {
        Opcode::Lea_r64_m => instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None,
        _ => {
            is_move(instruction)
                && instruction.op1_kind() == OpKind::Register
                && instruction.op1_register() == Register::RSP
        }
    };
    (copies && instruction.op0_register() != Register::RSP).then(|| instruction.op0_register())
}

fn is_move(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64)
        && instruction.op0_kind() == OpKind::Register
}
