//! Where the value that a function is about to return can be seen on the way: at an instruction that the kernel emulates, in a register.
//! A probe on the return itself would be single-stepped.

use std::collections::{BTreeSet, HashSet};

use iced_x86::{Code as Opcode, FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::read::ReadRef;

use super::code::{Code, falls_through};
use super::disassembly;
use super::exits::{self, ExitKind};
use super::image::Image;
use super::probe_rules::{self, Execution};
use super::registers;
use crate::model::SkipReason;

/// Functions that end by jumping to others, one after the other, at most.
const MOST_JUMPS: usize = 4;
/// Instructions that are gone back through from one exit, at most.
const MOST_STEPS: usize = 512;

/// An instruction, and the register that holds the value before it runs.
type Place = (u64, Register);

/// A function whose ways are gone back.
struct Ways<'code, 'data, R: ReadRef<'data>> {
    image: &'code Image<'data, R>,
    code: &'code Code<'data>,
    /// Where it begins.
    start: u64,
    steps: usize,
    seen: HashSet<Place>,
}

/// Instructions, each emulated, of which every call that returns something else than 0 passes one or more, with what it returns in
/// the register. `None`: there are no such ones.
pub(super) fn places<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    address: u64,
    size: u64,
    symbol: &str,
) -> Result<Option<BTreeSet<Place>>, SkipReason> {
    of_function(image, (address, size), &[symbol], MOST_JUMPS)
}

fn of_function<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    (address, size): (u64, u64),
    symbols: &[&str],
    jumps_left: usize,
) -> Result<Option<BTreeSet<Place>>, SkipReason> {
    let code = disassembly::decode(image, address, size, symbols)?;
    let mut places = BTreeSet::new();
    for exit in exits::find(image, &code)? {
        let Some((part, index)) = code.position(exit.address) else { return Ok(None) };
        let of_exit = match exit.kind {
            ExitKind::Return => {
                let mut ways = Ways { image, code: &code, start: address, steps: MOST_STEPS, seen: HashSet::new() };
                ways.before(exit.address, Register::RAX)?
            }
            ExitKind::TailJump | ExitKind::ConditionalTailJump(_) => {
                let jump =
                    part.instructions.get(index).filter(|jump| jump.flow_control() != FlowControl::IndirectBranch);
                let target = jump.map(Instruction::near_branch_target);
                let next = target.and_then(|target| Some((target, image.size_of(target, 0)?)));
                match (next, jumps_left.checked_sub(1)) {
                    (Some(next), Some(jumps_left)) => of_function(image, next, &[], jumps_left)?,
                    _ => None,
                }
            }
        };
        let Some(of_exit) = of_exit else { return Ok(None) };
        places.extend(of_exit);
    }
    Ok(Some(places))
}

impl<'data, R: ReadRef<'data>> Ways<'_, 'data, R> {
    /// Places of which every way to an instruction passes one, given the register that the value is in when it comes there. `None`: some
    /// way passes none.
    fn before(&mut self, address: u64, value: Register) -> Result<Option<BTreeSet<Place>>, SkipReason> {
        if !self.seen.insert((address, value)) {
            // A loop: how it was entered is looked at already.
            return Ok(Some(BTreeSet::new()));
        }
        self.image.spend(1)?;
        let steps_left = self.steps.checked_sub(1);
        let Some(steps_left) = steps_left.filter(|_| address != self.start) else { return Ok(None) };
        self.steps = steps_left;
        if self.code.table_jumps_to.contains_key(&address) {
            return Ok(None);
        }
        let mut places = BTreeSet::new();
        for earlier in self.earlier(address) {
            match self.through(&earlier, value)? {
                Some(of_way) => places.extend(of_way),
                None => return Ok(None),
            }
        }
        Ok(Some(places))
    }

    /// The instructions that may run directly before the one at an address.
    fn earlier(&self, address: u64) -> Vec<Instruction> {
        let code = self.code;
        let at = |address: u64| code.position(address).and_then(|(part, index)| part.instructions.get(index));
        let before = code.position(address).and_then(|(part, index)| part.instructions.get(index.checked_sub(1)?));
        let jumps = code.jumps_to.get(&address).into_iter().flatten().filter_map(|jump| at(*jump));
        before.filter(|before| falls_through(before)).into_iter().chain(jumps).copied().collect()
    }

    /// The same, given that this instruction runs last, and the register that the value is in after it.
    fn through(&mut self, instruction: &Instruction, value: Register) -> Result<Option<BTreeSet<Place>>, SkipReason> {
        if let Some(source) = moved_from(instruction, value) {
            return self.before(instruction.ip(), source);
        }
        let is_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        if (is_call && !registers::is_preserved(value))
            || registers::written(instruction).any(|written| written == value)
        {
            // Nothing is returned on this way, or this is where the value comes from.
            return Ok(sets_to_zero(instruction).then(BTreeSet::new));
        }
        let address = instruction.ip();
        if let Some(places) = self.before(address, value)? {
            return Ok(Some(places));
        }
        let is_emulated = self
            .code
            .position(address)
            .is_some_and(|(part, _)| probe_rules::execution(part.bytes_of(instruction)) == Execution::Emulated);
        Ok(is_emulated.then(|| BTreeSet::from([(address, value)])))
    }
}

/// The register that an instruction copies to this one.
fn moved_from(instruction: &Instruction, to: Register) -> Option<Register> {
    let is_move = matches!(instruction.code(), Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register;
    (is_move && instruction.op0_register() == to).then(|| instruction.op1_register())
}

/// Whether an instruction sets the register that it writes to 0.
fn sets_to_zero(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Xor
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
}
