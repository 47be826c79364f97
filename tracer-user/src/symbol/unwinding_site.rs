//! Where an interpreter leaves a frame by an exception: the place between an error and the interpreter's own return from which no
//! way leads to another bytecode instruction, unless through the next frame's error.

use std::collections::{HashMap, VecDeque};

use iced_x86::{FlowControl, Instruction};
use object::read::ReadRef;

use super::code::{Code, is_direct_jump};
use super::image::Image;
use super::probe_rules::{self, Execution};
use crate::model::SkipReason;

/// Machine instructions that lead on from an error; the interpreters that were looked at have 400 to 700.
const GRAPH_LIMIT: usize = 4096;
/// Instructions that are gone through in search of one that the kernel emulates.
const WALK_LIMIT: usize = 32;

/// The machine code that an error leads to, as far as the next bytecode instruction.
#[derive(Default)]
struct Ways {
    addresses: Vec<u64>,
    next: Vec<Vec<usize>>,
    ends: Vec<End>,
}

/// What an instruction leads out to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Others of the same code.
    None,
    /// The next bytecode instruction, through the table of handlers.
    Bytecode,
    /// The caller of the interpreter.
    Return,
}

/// The machine instruction that each frame passes once when an exception leaves it. It is still the thread's current frame there.
/// `error` is the address of a handler that does nothing but raise: that of the numbers without an instruction. `None` where there
/// is no such place, or not one whose instruction the kernel emulates.
pub(super) fn find<'code, 'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &'code Code<'data>,
    error: u64,
) -> Result<Option<&'code Instruction>, SkipReason> {
    let Some(ways) = Ways::from(image, code, error)? else { return Ok(None) };
    let Some(start) = ways.beginning_of_the_end(image)? else { return Ok(None) };
    Ok(emulated_from(code, start))
}

impl Ways {
    /// Follows all ways from an address. `None`: there are too many.
    fn from<'data, R: ReadRef<'data>>(
        image: &Image<'data, R>,
        code: &Code<'data>,
        start: u64,
    ) -> Result<Option<Self>, SkipReason> {
        let mut ways = Self::default();
        let mut numbers: HashMap<u64, usize> = HashMap::new();
        let mut wanted = VecDeque::from([(None, start)]);
        while let Some((from, address)) = wanted.pop_front() {
            image.spend(1)?;
            let is_known = numbers.contains_key(&address);
            let number = *numbers.entry(address).or_insert(ways.addresses.len());
            if let Some(followers) = from.and_then(|from: usize| ways.next.get_mut(from)) {
                followers.push(number);
            }
            if is_known {
                continue;
            }
            if number >= GRAPH_LIMIT {
                return Ok(None);
            }
            let found = code.position(address).and_then(|(part, index)| part.instructions.get(index));
            let (end, followers) = found.map_or((End::None, Vec::new()), leads_to);
            ways.addresses.push(address);
            ways.next.push(Vec::new());
            ways.ends.push(end);
            wanted.extend(followers.into_iter().map(|follower| (Some(number), follower)));
        }
        Ok(Some(ways))
    }

    /// Whether ways from an instruction lead to an end, none of them through one of these.
    fn lead(&self, from: usize, to: End, closed: &[bool]) -> bool {
        let mut seen = closed.to_vec();
        let mut wanted = vec![from];
        while let Some(number) = wanted.pop() {
            let Some(is_seen) = seen.get_mut(number) else { continue };
            if std::mem::replace(is_seen, true) {
                continue;
            }
            if self.ends.get(number) == Some(&to) {
                return true;
            }
            wanted.extend(self.next.get(number).into_iter().flatten());
        }
        false
    }

    /// The address of the first instruction that every way to the return goes through, and from which none leads to bytecode but
    /// through what every way has gone through before: there the error of the next frame begins.
    fn beginning_of_the_end<'data, R: ReadRef<'data>>(
        &self,
        image: &Image<'data, R>,
    ) -> Result<Option<u64>, SkipReason> {
        let mut passed = vec![false; self.addresses.len()];
        if !self.lead(0, End::Bytecode, &passed) {
            return Ok(None);
        }
        for number in self.way_to_return() {
            image.spend(self.addresses.len())?;
            let mut closed = vec![false; self.addresses.len()];
            if let Some(this) = closed.get_mut(number) {
                *this = true;
            }
            if number != 0 && self.lead(0, End::Return, &closed) {
                continue;
            }
            if !self.lead(number, End::Bytecode, &passed) {
                return Ok(self.addresses.get(number).copied());
            }
            if let Some(this) = passed.get_mut(number) {
                *this = true;
            }
        }
        Ok(None)
    }

    /// A shortest way from the beginning to a return; none where there is no return.
    fn way_to_return(&self) -> Vec<usize> {
        let mut before: Vec<Option<usize>> = vec![None; self.addresses.len()];
        let mut wanted = VecDeque::from([0]);
        while let Some(number) = wanted.pop_front() {
            if self.ends.get(number) == Some(&End::Return) {
                let mut way = vec![number];
                let mut here = number;
                while let Some(earlier) = before.get(here).copied().flatten().filter(|_| here != 0) {
                    way.push(earlier);
                    here = earlier;
                }
                way.reverse();
                return way;
            }
            for follower in self.next.get(number).into_iter().flatten() {
                if let Some(earlier) = before.get_mut(*follower).filter(|earlier| earlier.is_none() && *follower != 0) {
                    *earlier = Some(number);
                    wanted.push_back(*follower);
                }
            }
        }
        Vec::new()
    }
}

/// Where an instruction leads. Calls come back.
fn leads_to(instruction: &Instruction) -> (End, Vec<u64>) {
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch if is_direct_jump(instruction) => {
            (End::None, vec![instruction.near_branch_target()])
        }
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => (End::Bytecode, Vec::new()),
        FlowControl::Return => (End::Return, Vec::new()),
        FlowControl::Exception | FlowControl::Interrupt => (End::None, Vec::new()),
        FlowControl::ConditionalBranch => (End::None, vec![instruction.near_branch_target(), instruction.next_ip()]),
        _ => (End::None, vec![instruction.next_ip()]),
    }
}

/// The first instruction from an address on that the kernel emulates, if nothing leads out or in between.
fn emulated_from<'code>(code: &'code Code<'_>, start: u64) -> Option<&'code Instruction> {
    let (part, index) = code.position(start)?;
    for instruction in part.instructions.iter().skip(index).take(WALK_LIMIT) {
        if instruction.ip() != start && code.is_jumped_to(instruction.ip()) {
            return None;
        }
        if probe_rules::execution(part.bytes_of(instruction)) == Execution::Emulated {
            return Some(instruction);
        }
        if instruction.flow_control() != FlowControl::Next {
            return None;
        }
    }
    None
}
