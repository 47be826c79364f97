//! Whether a function reads memory through its first argument before anything can have been written there: then that memory
//! is no room for a result, which is not initialised when the function is called.

use std::collections::HashSet;

use iced_x86::{
    Code as Opcode, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind, Register, UsedMemory,
};

use super::code::Code;
use super::registers::{self, StackChange};

/// Instructions looked at, over all paths.
const MOST_STEPS: usize = 512;

/// Registers that a called function may be handed something in (System V AMD64 ABI, figure 3.4).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
/// Registers that a called function leaves as they were.
const KEPT_BY_CALLS: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

/// Follows the paths from the function's beginning, each instruction once, past calls that are not handed the address.
pub(super) fn is_read_before_written(code: &Code<'_>) -> bool {
    let Some(first) = code.parts.first().and_then(|part| part.instructions.first()) else { return false };
    let held = Held { registers: vec![Register::RDI], slots: Vec::new(), stack: Some(0), frame: None };
    let mut factory = InstructionInfoFactory::new();
    let mut paths = vec![(first.ip(), held)];
    let mut seen = HashSet::new();
    while let Some((address, mut held)) = paths.pop() {
        if seen.len() >= MOST_STEPS || !seen.insert(address) {
            continue;
        }
        let Some(instruction) = code.position(address).and_then(|(part, index)| part.instructions.get(index)) else {
            continue;
        };
        let memory = factory.info(instruction).used_memory();
        let mut through = memory.iter().filter(|used| held.registers.contains(&used.base().full_register()));
        match through.next().map(UsedMemory::access) {
            Some(OpAccess::Read) => return true,
            // Only an address is computed (`lea`): nothing is read.
            None | Some(OpAccess::NoMemAccess) => {}
            Some(_) => continue,
        }
        let flow = instruction.flow_control();
        match flow {
            FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                held.follow(instruction);
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                if held.registers.iter().any(|register| ARGUMENTS.contains(register)) {
                    continue;
                }
                held.registers.retain(|register| KEPT_BY_CALLS.contains(register));
            }
            _ => continue,
        }
        if held.registers.is_empty() && held.slots.is_empty() {
            continue;
        }
        if matches!(flow, FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch) {
            paths.push((instruction.near_branch_target(), held.clone()));
        }
        if flow != FlowControl::UnconditionalBranch {
            paths.push((instruction.next_ip(), held));
        }
    }
    false
}

/// Where the argument, or an address derived from it, is held.
#[derive(Clone)]
struct Held {
    registers: Vec<Register>,
    /// Slots of the function's own stack, by distance from the stack pointer at its beginning.
    slots: Vec<i64>,
    /// Distance of the stack pointer from its value at the beginning, as far as it is known.
    stack: Option<i64>,
    /// Distance of `rbp` from that value, once it is a frame pointer.
    frame: Option<i64>,
}

impl Held {
    fn follow(&mut self, instruction: &Instruction) {
        let slot = self.slot(instruction);
        let register = |kind: OpKind, register: Register| (kind == OpKind::Register).then_some(register);
        let target = register(instruction.op0_kind(), instruction.op0_register());
        let source = register(instruction.op1_kind(), instruction.op1_register());
        let moves = matches!(instruction.code(), Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64);
        // An address derived from the argument may be handed on: a call with it must end the search.
        let derives = instruction.code() == Opcode::Lea_r64_m && self.registers.contains(&instruction.memory_base());
        let receives = derives
            || moves
                && match source {
                    Some(source) => self.registers.contains(&source),
                    None => slot.is_some_and(|slot| self.slots.contains(&slot)),
                };
        let sets_frame = moves && (target, source) == (Some(Register::RBP), Some(Register::RSP));

        self.registers.retain(|held| !registers::written(instruction).any(|written| written == *held));
        if target.is_none() {
            self.slots.retain(|held| Some(*held) != slot);
        }
        match (receives, target, slot) {
            (true, Some(register), _) => self.registers.push(register),
            (true, None, Some(slot)) => self.slots.push(slot),
            _ => {}
        }
        if sets_frame {
            self.frame = self.stack;
        } else if registers::written(instruction).any(|written| written == Register::RBP) {
            self.frame = None;
        }
        self.stack = match (self.stack, registers::stack_change(instruction)) {
            (Some(stack), StackChange::By(bytes)) => stack.checked_add(bytes),
            _ => None,
        };
    }

    /// The slot of the function's own stack that an instruction names as an operand.
    fn slot(&self, instruction: &Instruction) -> Option<i64> {
        if instruction.memory_index() != Register::None {
            return None;
        }
        let base = match instruction.memory_base() {
            Register::RSP => self.stack?,
            Register::RBP => self.frame?,
            _ => return None,
        };
        base.checked_add(instruction.memory_displacement64().cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compile;
    use crate::model::ObjectLocation;

    /// Each method calls something else before it looks at its object.
    const SOURCE: &str = r#"
        #include <vector>
        void log(const char *);
        struct Base { virtual ~Base() {} virtual void predict(const int *in, std::vector<int> &out) const = 0; };
        struct Model : Base {
            int weight = 3, many[100] = {};
            void predict(const int *in, std::vector<int> &out) const override {
                log("predict");
                out.assign(in[0], 0);
                for (int i = 0; i < in[0]; i++) for (int j = 0; j < in[1]; j++) out[i] += many[(i + j) % 100] * weight;
                log("done");
            }
            virtual std::vector<int> proba(const int *in) const { log("proba"); return std::vector<int>(in[0], weight); }
        };
        __attribute__((noinline)) void log(const char *text) { volatile const char *sink = text; (void)sink; }
        int main(int argc, char **) {
            Model model; std::vector<int> out; const int in[2] = {argc, argc};
            Base *base = &model;
            base->predict(in, out);
            return out[0] + model.proba(in)[0];
        }
    "#;

    #[test]
    fn an_object_kept_in_a_register_or_on_the_stack_is_found() {
        for options in [&["-O0"][..], &["-O1"], &["-O2"], &["-O3"]] {
            let Some(program) = compile("c++", "cpp", SOURCE, options) else { return };
            assert_eq!(program.method("Model", "predict").object, ObjectLocation::FirstArgument, "{options:?}");
            assert_eq!(program.method("Model", "proba").object, ObjectLocation::None, "{options:?}: room for a result");
        }
    }
}
