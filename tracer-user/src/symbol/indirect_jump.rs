//! Where a jump through a register or through memory leads: into the function (a jump table) or out of it.

use std::collections::HashSet;

use iced_x86::{Code as Opcode, FlowControl, Instruction, OpKind, Register};
use object::read::ReadRef;

use super::code::{Code, Part, falls_through};
use super::image::Image;
use super::registers;

/// Where an indirect jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To a place of the same function, by a table of the compiler.
    Inside,
    /// To another function, by a pointer.
    Outside,
    /// Not known.
    Unclear,
}

/// Most instructions looked back over for the origin of one jump's register.
const LOOK_BACK: usize = 8192;
/// Most instructions between the load from a jump table and the sum with the table's address.
const SUM_LOOK_BACK: usize = 64;

/// Registers that hold integer arguments at the entry.
pub(super) const ARGUMENT_REGISTERS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Where an indirect jump leads, judged by its form and by what wrote its register.
pub(super) fn destination<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    part: &Part<'data>,
    jump: &Instruction,
) -> Destination {
    if jump.code() != Opcode::Jmp_rm64 {
        return Destination::Unclear;
    }
    if code.tables.contains_key(&jump.ip()) {
        return Destination::Inside;
    }
    // `notrack`: the compiler says that the target needs no landing pad, which only its own tables promise.
    if part.bytes_of(jump).first() == Some(&0x3e) {
        return Destination::Inside;
    }
    let search = Search { image, code };
    match jump.op0_kind() {
        OpKind::Register => search.origin(jump.ip(), jump.op0_register()),
        _ => search.slot(jump),
    }
}

struct Search<'search, 'data, R: ReadRef<'data>> {
    image: &'search Image<'data, R>,
    code: &'search Code<'data>,
}

/// What a look at one instruction says about a register's value.
enum Step {
    Found(Destination),
    /// The value comes from these registers.
    From(Vec<Register>),
}

impl<'data, R: ReadRef<'data>> Search<'_, 'data, R> {
    /// A pointer in memory: a slot of a table by its index, or a pointer in an object.
    fn slot(&self, instruction: &Instruction) -> Destination {
        if instruction.memory_index() == Register::None {
            // A virtual function, a function pointer in an object, or a slot of the global offset table.
            return Destination::Outside;
        }
        if instruction.memory_base() != Register::None {
            return Destination::Unclear;
        }
        // The table's address is part of the instruction: look where its first slot leads.
        let slot = self.image.file.initial_bytes(instruction.memory_displacement64(), 8);
        slot.and_then(|bytes| bytes.try_into().ok())
            .map_or(Destination::Unclear, |bytes| self.place(u64::from_le_bytes(bytes)))
    }

    fn place(&self, address: u64) -> Destination {
        if self.code.contains(address) { Destination::Inside } else { Destination::Outside }
    }

    /// Follows a register back along every path that leads to a jump. All its origins must agree.
    fn origin(&self, jump: u64, register: Register) -> Destination {
        let mut agreed = None;
        let mut seen = HashSet::new();
        let mut by_table: HashSet<Register> = HashSet::new();
        let mut wanted = vec![(jump, register.full_register())];
        while let Some((address, register)) = wanted.pop() {
            if !seen.insert((address, register)) {
                continue;
            }
            if seen.len() > LOOK_BACK || self.image.spend(1).is_err() {
                return Destination::Unclear;
            }
            let (mut sources, enters) = self.predecessors(address);
            if sources.is_empty() && !enters && !self.is_padding(address) {
                // Reached by a jump table: from one of the function's indirect jumps.
                sources.extend(self.code.indirect_jumps.iter().filter(|other| other.ip() != jump));
                if sources.is_empty() {
                    return Destination::Unclear;
                }
                if !by_table.insert(register) {
                    continue;
                }
                if self.image.spend(sources.len()).is_err() {
                    return Destination::Unclear;
                }
            }
            if enters && ARGUMENT_REGISTERS.contains(&register) {
                // A function pointer that was passed as an argument.
                if *agreed.get_or_insert(Destination::Outside) != Destination::Outside {
                    return Destination::Unclear;
                }
            } else if enters {
                return Destination::Unclear;
            }
            for source in sources {
                match self.step(&source, register) {
                    Step::From(registers) => {
                        wanted.extend(registers.into_iter().map(|register| (source.ip(), register)));
                    }
                    Step::Found(Destination::Unclear) => return Destination::Unclear,
                    Step::Found(found) if *agreed.get_or_insert(found) != found => return Destination::Unclear,
                    Step::Found(_) => {}
                }
            }
        }
        agreed.unwrap_or(Destination::Unclear)
    }

    /// The instructions that may run right before the one at an address, and whether the function may begin there.
    fn predecessors(&self, address: u64) -> (Vec<Instruction>, bool) {
        let jumps = self.code.jumps_to.get(&address).into_iter().flatten().copied();
        let mut sources: Vec<Instruction> = jumps.filter_map(|source| self.instruction(source)).collect();
        let Some((part, index)) = self.code.position(address) else { return (Vec::new(), false) };
        let previous = index.checked_sub(1).and_then(|index| part.instructions.get(index));
        sources.extend(previous.filter(|instruction| falls_through(instruction)));
        let begins = self.code.parts.first().and_then(|part| part.instructions.first());
        (sources, begins.is_some_and(|first| first.ip() == address))
    }

    /// Whether what nothing leads to is there for alignment alone.
    fn is_padding(&self, address: u64) -> bool {
        self.instruction(address).is_some_and(|instruction| registers::does_nothing(&instruction))
    }

    fn instruction(&self, address: u64) -> Option<Instruction> {
        let (part, index) = self.code.position(address)?;
        part.instructions.get(index).copied()
    }

    fn step(&self, instruction: &Instruction, register: Register) -> Step {
        let unclear = Step::Found(Destination::Unclear);
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            return match register {
                _ if registers::is_preserved(register) => Step::From(vec![register]),
                // A function that returns a pointer to a function.
                Register::RAX => Step::Found(Destination::Outside),
                _ => unclear,
            };
        }
        if !registers::written(instruction).any(|written| written == register) {
            return Step::From(vec![register]);
        }
        let writes_first = instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().full_register() == register
            && instruction.op_count() >= 2;
        if !writes_first {
            return unclear;
        }
        let source = (instruction.op1_kind() == OpKind::Register).then(|| instruction.op1_register().full_register());
        match (instruction.code(), source) {
            // The address of a table plus the distance that it holds for the case.
            (Opcode::Add_r64_rm64 | Opcode::Add_rm64_r64, Some(other)) => self.sum(instruction.ip(), register, other),
            (Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64, Some(other)) => Step::From(vec![other]),
            (Opcode::Cmovne_r64_rm64 | Opcode::Cmove_r64_rm64, Some(other)) => Step::From(vec![register, other]),
            (Opcode::Mov_r64_rm64, None) => Step::Found(self.slot(instruction)),
            (Opcode::Lea_r64_m, _) if instruction.is_ip_rel_memory_operand() => {
                Step::Found(self.place(instruction.ip_rel_memory_address()))
            }
            (Opcode::Mov_r32_imm32 | Opcode::Mov_rm64_imm32 | Opcode::Mov_r64_imm64, _) => {
                Step::Found(self.place(instruction.immediate(1)))
            }
            _ => unclear,
        }
    }

    /// A sum is a table's destination if either side was loaded from a table of 32-bit distances.
    fn sum(&self, address: u64, left: Register, right: Register) -> Step {
        let mut address = address;
        for _ in 0..SUM_LOOK_BACK {
            let (part, index) = match self.code.position(address) {
                Some((part, index)) if index > 0 => (part, index - 1),
                _ => break,
            };
            let Some(instruction) = part.instructions.get(index) else { break };
            address = instruction.ip();
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
            let loads_distance = instruction.code() == Opcode::Movsxd_r64_rm32
                && instruction.op1_kind() == OpKind::Memory
                && instruction.memory_index() != Register::None;
            if loads_distance && [left, right].contains(&instruction.op0_register()) {
                return Step::Found(Destination::Inside);
            }
        }
        Step::Found(Destination::Unclear)
    }
}
