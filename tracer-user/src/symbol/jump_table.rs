//! The tables of a `switch`: where a jump through one leads, known only where the table was read to its end.
//!
//! Three forms are read, as gcc, clang and BOLT write them: `jmp *table(,%index,8)` and a load of the same form before
//! `jmp *%register`, with addresses in the table; and `movslq (%table,%index,4)`, `add %table`, `jmp *%register`, with
//! distances. How long a table is no file says, so the comparison in front of the jump has to be found, on every way to it.

use std::collections::HashSet;

use iced_x86::{Code as Opcode, ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::read::ReadRef;

use super::code::{Code, JumpTable, falls_through, is_direct_jump};
use super::exits;
use super::image::Image;
use super::registers;

/// Most entries of one table; the largest of real programs have some hundred.
const ENTRY_LIMIT: u64 = 4096;
/// Most steps back in search of one value.
const LOOK_BACK: usize = 4096;

/// A load from a table, and what is added to what was loaded.
struct Access {
    load: Instruction,
    origin: Option<u64>,
}

/// Reads the tables that an indirect jump goes through; `None` where that is not all known.
pub(super) fn read<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    jump: &Instruction,
) -> Option<JumpTable> {
    let search = Search { image, code };
    let mut table = JumpTable { targets: Vec::new(), holds_distances: false };
    for access in search.accesses(jump)? {
        table.holds_distances |= access.origin.is_some();
        table.targets.extend(search.entries(&access)?);
    }
    table.targets.sort_unstable();
    table.targets.dedup();
    (!table.targets.is_empty()).then_some(table)
}

struct Search<'search, 'data, R: ReadRef<'data>> {
    image: &'search Image<'data, R>,
    code: &'search Code<'data>,
}

/// The value of an index on the way back from where it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Tracked {
    /// The instruction before which it is looked at.
    address: u64,
    register: Register,
    /// How many of its lowest bits make the value; the others are 0, or copies of a sign that is 0.
    bits: u32,
    /// On this way the value passed a conditional jump whose comparison is yet to come: what holds for the value.
    condition: Option<Relation>,
}

/// How a value that goes on compares, without sign, with the other operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relation {
    AtMost,
    Below,
    Equal,
}

impl<'data, R: ReadRef<'data>> Search<'_, 'data, R> {
    /// The loads whose value an indirect jump takes.
    fn accesses(&self, jump: &Instruction) -> Option<Vec<Access>> {
        if jump.code() != Opcode::Jmp_rm64 {
            return None;
        }
        if jump.op0_kind() == OpKind::Memory {
            return Some(vec![Access { load: *jump, origin: None }]);
        }
        let mut accesses = Vec::new();
        for definition in self.definitions(jump.ip(), jump.op0_register())? {
            accesses.extend(self.access(&definition)?);
        }
        Some(accesses)
    }

    fn access(&self, definition: &Instruction) -> Option<Vec<Access>> {
        match definition.code() {
            Opcode::Mov_r64_rm64 if definition.op1_kind() == OpKind::Memory => {
                Some(vec![Access { load: *definition, origin: None }])
            }
            Opcode::Add_r64_rm64 | Opcode::Add_rm64_r64
                if definition.op0_kind() == OpKind::Register && definition.op1_kind() == OpKind::Register =>
            {
                let (left, right) = (definition.op0_register(), definition.op1_register());
                let sum = |loaded, origin| self.sum(definition.ip(), loaded, origin);
                sum(left, right).or_else(|| sum(right, left))
            }
            _ => None,
        }
    }

    /// The loads of a distance into one register, to be added to the address in the other.
    fn sum(&self, address: u64, loaded: Register, origin: Register) -> Option<Vec<Access>> {
        let loads = self.definitions(address, loaded)?;
        let is_load = |load: &Instruction| {
            load.code() == Opcode::Movsxd_r64_rm32
                && load.op1_kind() == OpKind::Memory
                && load.memory_index_scale() == 4
        };
        if !loads.iter().all(is_load) {
            return None;
        }
        let origin = self.constant(address, origin)?;
        Some(loads.into_iter().map(|load| Access { load, origin: Some(origin) }).collect())
    }

    /// The address in a register, where it is the same on every way.
    fn constant(&self, address: u64, register: Register) -> Option<u64> {
        let mut constants =
            self.definitions(address, register)?.into_iter().map(|definition| match definition.code() {
                Opcode::Lea_r64_m if definition.is_ip_rel_memory_operand() => Some(definition.ip_rel_memory_address()),
                Opcode::Mov_r32_imm32 | Opcode::Mov_rm64_imm32 | Opcode::Mov_r64_imm64
                    if definition.op0_kind() == OpKind::Register =>
                {
                    Some(definition.immediate(1))
                }
                _ => None,
            });
        let first = constants.next()??;
        constants.all(|constant| constant == Some(first)).then_some(first)
    }

    /// The instructions that may have written a register before an address; copies are followed. `None` where the value
    /// comes into the function, or from a call.
    fn definitions(&self, address: u64, register: Register) -> Option<Vec<Instruction>> {
        let mut found: Vec<Instruction> = Vec::new();
        let mut seen = HashSet::new();
        let mut wanted = vec![(address, register)];
        while let Some((address, register)) = wanted.pop() {
            if !seen.insert((address, register)) {
                continue;
            }
            self.spend(seen.len())?;
            for (source, _) in self.sources(address)? {
                if !writes(&source, register)? {
                    wanted.push((source.ip(), register));
                } else if let Some(from) = copied(&source) {
                    wanted.push((source.ip(), from));
                    if source.mnemonic() != Mnemonic::Mov {
                        wanted.push((source.ip(), register));
                    }
                } else if is_written_whole(&source, register) {
                    if found.iter().all(|known| known.ip() != source.ip()) {
                        found.push(source);
                    }
                } else {
                    return None;
                }
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// The instructions that may run right before the one at an address, and whether each got here by jumping; none where
    /// nothing is known to lead yet: once it is, the tables are read anew. `None` where the function begins.
    fn sources(&self, address: u64) -> Option<Vec<(Instruction, bool)>> {
        let begins = self.code.parts.first().and_then(|part| part.instructions.first());
        if begins.is_some_and(|first| first.ip() == address) {
            return None;
        }
        let (part, index) = self.code.position(address)?;
        let instruction = |address: &u64| {
            let (part, index) = self.code.position(*address)?;
            part.instructions.get(index).copied()
        };
        let direct = self.code.jumps_to.get(&address).into_iter().flatten();
        let by_table = self.code.table_jumps_to.get(&address).into_iter().flatten();
        let mut sources: Vec<(Instruction, bool)> =
            direct.chain(by_table).filter_map(instruction).map(|source| (source, true)).collect();
        let previous = index.checked_sub(1).and_then(|index| part.instructions.get(index));
        sources.extend(previous.filter(|instruction| falls_through(instruction)).map(|source| (*source, false)));
        Some(sources)
    }

    /// All entries of the table that a load reads from.
    fn entries(&self, access: &Access) -> Option<Vec<u64>> {
        let load = &access.load;
        let bytes: u64 = if access.origin.is_some() { 4 } else { 8 };
        if load.memory_index() == Register::None || u64::from(load.memory_index_scale()) != bytes {
            return None;
        }
        let displacement = load.memory_displacement64();
        let table = match load.memory_base() {
            Register::None => displacement,
            base => self.constant(load.ip(), base)?.wrapping_add(displacement),
        };
        // Addresses in a file that is loaded anywhere are made by the loader.
        if access.origin.is_none() && !self.image.file.is_fixed() {
            return None;
        }
        let count =
            self.largest(load.ip(), load.memory_index())?.checked_add(1).filter(|count| *count <= ENTRY_LIMIT)?;
        let entries = self.image.file.constant_bytes(table, count * bytes)?;
        self.image.spend(entries.len()).ok()?;
        let target = |entry: &[u8]| match (access.origin, entry) {
            (Some(origin), entry) => {
                Some(origin.wrapping_add_signed(i64::from(i32::from_le_bytes(entry.try_into().ok()?))))
            }
            (None, entry) => Some(u64::from_le_bytes(entry.try_into().ok()?)),
        };
        let size = usize::try_from(bytes).ok()?;
        let targets: Option<Vec<u64>> = entries.chunks_exact(size).map(target).collect();
        targets.filter(|targets| targets.iter().all(|target| self.image.file.code_offset(*target).is_some()))
    }

    /// The largest value that a register can have before an instruction, by the comparisons on all ways to it.
    fn largest(&self, address: u64, register: Register) -> Option<u64> {
        let mut largest = None;
        let mut seen = HashSet::new();
        let mut wanted = vec![Tracked { address, register: register.full_register(), bits: 64, condition: None }];
        while let Some(tracked) = wanted.pop() {
            if !seen.insert(tracked) {
                continue;
            }
            self.spend(seen.len())?;
            for (source, jumped) in self.sources(tracked.address)? {
                match self.look(&source, jumped, tracked)? {
                    Look::AtMost(bound) => largest = largest.max(Some(bound)),
                    Look::From(earlier) => wanted.push(earlier),
                }
            }
        }
        largest
    }

    /// What one instruction before says about a value.
    fn look(&self, source: &Instruction, jumped: bool, tracked: Tracked) -> Option<Look> {
        let earlier = Tracked { address: source.ip(), ..tracked };
        if let Some(relation) = tracked.condition {
            if self.compares(source, tracked)
                && let Some(bound) = bound(source, relation)
            {
                return Some(Look::AtMost(bound));
            }
            if changes_flags(source) {
                // The comparison was of something else.
                return self.look(source, jumped, Tracked { condition: None, ..tracked });
            }
        }
        if source.flow_control() == FlowControl::ConditionalBranch && is_direct_jump(source) {
            let (part, _) = self.code.position(source.ip())?;
            let taken = exits::condition(part.bytes_of(source));
            // Opcodes of opposite conditions differ in the lowest bit.
            let holds = taken.map(|taken| if jumped { taken } else { taken ^ 1 });
            let condition = match holds {
                Some(0x6) => Some(Relation::AtMost),
                Some(0x2) => Some(Relation::Below),
                Some(0x4) => Some(Relation::Equal),
                _ => tracked.condition,
            };
            return Some(Look::From(Tracked { condition, ..earlier }));
        }
        if !writes(source, tracked.register)? {
            return Some(Look::From(earlier));
        }
        if source.code() == Opcode::Cdqe {
            return Some(Look::From(Tracked { bits: tracked.bits.min(32), ..earlier }));
        }
        let is_register =
            source.op0_kind() == OpKind::Register && source.op0_register().full_register() == tracked.register;
        if !is_register {
            return None;
        }
        let from_register =
            (source.op_count() == 2 && source.op1_kind() == OpKind::Register).then(|| source.op1_register());
        match (source.code(), from_register) {
            (Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64, Some(from)) => {
                Some(Look::From(Tracked { register: from, ..earlier }))
            }
            (Opcode::Mov_r32_rm32 | Opcode::Mov_rm32_r32, Some(from)) => {
                Some(Look::From(Tracked { register: from.full_register(), bits: tracked.bits.min(32), ..earlier }))
            }
            (Opcode::Movsxd_r64_rm32, Some(from)) if tracked.bits >= 32 => {
                Some(Look::From(Tracked { register: from.full_register(), bits: 32, ..earlier }))
            }
            (Opcode::Movzx_r32_rm8 | Opcode::Movzx_r64_rm8, from) => narrowed(from, 8, earlier),
            (Opcode::Movzx_r32_rm16 | Opcode::Movzx_r64_rm16, from) => narrowed(from, 16, earlier),
            (Opcode::And_rm32_imm8 | Opcode::And_rm32_imm32 | Opcode::And_EAX_imm32, _) => {
                Some(Look::AtMost(source.immediate(1) & 0xffff_ffff))
            }
            (Opcode::And_rm64_imm8 | Opcode::And_rm64_imm32 | Opcode::And_RAX_imm32, _) => {
                Some(Look::AtMost(source.immediate(1)))
            }
            (Opcode::Mov_r32_imm32, _) => Some(Look::AtMost(source.immediate(1))),
            (Opcode::Xor_r32_rm32 | Opcode::Xor_rm32_r32, Some(from)) if from == source.op0_register() => {
                Some(Look::AtMost(0))
            }
            _ => None,
        }
    }

    /// Whether an instruction compares all the bits that make a value. A comparison of the lowest ones is one of all where
    /// whatever wrote the register has set the others to 0.
    fn compares(&self, instruction: &Instruction, tracked: Tracked) -> bool {
        let register = instruction.op0_register();
        let is_of_it = instruction.mnemonic() == Mnemonic::Cmp
            && instruction.op0_kind() == OpKind::Register
            && !is_high_byte(register)
            && register.full_register() == tracked.register;
        let are_others_zero = |bits| {
            let definitions = self.definitions(instruction.ip(), tracked.register).unwrap_or_default();
            !definitions.is_empty() && definitions.iter().all(|definition| clears_above(definition, bits))
        };
        is_of_it
            && match u32::try_from(register.size() * 8) {
                Ok(bits) => bits >= tracked.bits || are_others_zero(bits),
                Err(_) => false,
            }
    }

    fn spend(&self, steps: usize) -> Option<()> {
        if steps > LOOK_BACK {
            return None;
        }
        self.image.spend(1).ok()
    }
}

/// What was seen of a value.
enum Look {
    /// It is no larger than this.
    AtMost(u64),
    /// It is what this was before.
    From(Tracked),
}

/// A value that was made from the lowest bits of a register, or from memory: its width alone bounds it then.
fn narrowed(from: Option<Register>, bits: u32, earlier: Tracked) -> Option<Look> {
    Some(match from {
        Some(from) if !is_high_byte(from) => {
            Look::From(Tracked { register: from.full_register(), bits: earlier.bits.min(bits), ..earlier })
        }
        _ => Look::AtMost((1 << bits) - 1),
    })
}

/// `%ah` and its like, which are not the lowest bits of their register.
fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

/// The largest value by a comparison with a number.
fn bound(instruction: &Instruction, relation: Relation) -> Option<u64> {
    let is_immediate = matches!(
        instruction.op1_kind(),
        OpKind::Immediate8
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate32to64
    );
    if !is_immediate {
        return None;
    }
    let mask = u64::MAX >> (64 - 8 * u64::try_from(instruction.op0_register().size()).ok()?);
    let number = instruction.immediate(1) & mask;
    match relation {
        Relation::AtMost | Relation::Equal => Some(number),
        Relation::Below => number.checked_sub(1),
    }
}

/// Whether an instruction changes the flags that comparisons without sign look at.
fn changes_flags(instruction: &Instruction) -> bool {
    use iced_x86::RflagsBits;
    instruction.rflags_modified() & (RflagsBits::CF | RflagsBits::ZF) != 0
        || matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
}

/// Whether an instruction writes a register; `None` where a call may have.
fn writes(instruction: &Instruction, register: Register) -> Option<bool> {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        return registers::is_preserved(register).then_some(false);
    }
    Some(registers::written(instruction).any(|written| written == register))
}

/// The register that an instruction copies into another, always or under a condition.
fn copied(instruction: &Instruction) -> Option<Register> {
    let is_conditional_move = instruction.condition_code() != ConditionCode::None && instruction.op_count() == 2;
    let is_copy = matches!(instruction.code(), Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64)
        || (is_conditional_move && instruction.op0_register().size() == 8);
    let is_between_registers = instruction.op0_kind() == OpKind::Register && instruction.op1_kind() == OpKind::Register;
    (is_copy && is_between_registers).then(|| instruction.op1_register())
}

/// Whether an instruction sets all bits of its register above these lowest ones to 0.
fn clears_above(instruction: &Instruction, bits: u32) -> bool {
    match bits {
        32 => instruction.op0_register().size() == 4,
        8 => matches!(instruction.code(), Opcode::Movzx_r32_rm8 | Opcode::Movzx_r64_rm8),
        16 => matches!(instruction.code(), Opcode::Movzx_r32_rm16 | Opcode::Movzx_r64_rm16),
        _ => false,
    }
}

/// Whether an instruction gives all of a register a new value, whatever it was before, or one that was made from it.
fn is_written_whole(instruction: &Instruction, register: Register) -> bool {
    instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == register
        && instruction.op0_register().size() >= 4
        && !matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
}
