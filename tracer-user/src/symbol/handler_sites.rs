//! Where the probe of an instruction handler goes: a place that each execution of the bytecode instruction passes once,
//! while the frame of the call is still whole.

use std::collections::{BTreeMap, HashSet};

use iced_x86::{Code as Opcode, FastFormatter, FlowControl, Instruction, OpKind, Register};
use object::read::ReadRef;

use super::code::{Code, Part, is_direct_jump};
use super::exits;
use super::image::Image;
use super::probe_rules::{self, Execution};
use super::registers;
use crate::model::{FramePlace, InterpreterSite, NoInterpreterSites, SkipReason};

/// Instructions that are stepped over at most, in search of one that the kernel emulates.
const WALK_LIMIT: usize = 32;
/// Bytes of a pointer.
const POINTER_BYTES: usize = 8;
/// Instructions that are followed at most to see whether one site leads to another.
const FOLLOW_LIMIT: usize = 4096;

/// One handler that is wanted.
pub(super) struct Handler<'name> {
    /// Name of the bytecode instruction.
    pub opcode: &'name str,
    /// Address of its first machine instruction.
    pub address: u64,
}

/// A place in a handler.
#[derive(Clone, Copy)]
struct Place<'code> {
    instruction: &'code Instruction,
    execution: Execution,
    frame: FramePlace,
}

/// Chooses one place in each handler. Handlers that always go on to another one of them have none of their own.
/// `frame_instruction` is the offset in a frame of the pointer to the current instruction, which every handler stores first:
/// it tells which register holds the frame.
pub(super) fn sites<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    handlers: &[Handler<'_>],
    frame_instruction: Option<u64>,
) -> Result<Vec<InterpreterSite>, NoInterpreterSites> {
    let mut walks: BTreeMap<u64, (String, Vec<Place<'_>>)> = BTreeMap::new();
    let mut frame_register = None;
    for handler in handlers {
        let no_place = || NoInterpreterSites::NoPlace { opcode: handler.opcode.to_owned() };
        let (part, index) = code.position(handler.address).ok_or_else(no_place)?;
        // Two instructions may have one handler.
        if let Some((names, _)) = walks.get_mut(&handler.address) {
            names.push('/');
            names.push_str(handler.opcode);
            continue;
        }
        let mut frames = FrameRegisters::default();
        let walk = walk(part, index, frame_instruction, &mut frames);
        // One indirect jump leads to every handler, so they all find the frame in the same register.
        if walk.is_empty() || frames.stored.is_some_and(|stored| *frame_register.get_or_insert(stored) != stored) {
            return Err(no_place());
        }
        walks.insert(handler.address, (handler.opcode.to_owned(), walk));
    }
    // The jumps from one of these handlers into another one are taken care of below.
    let ends: HashSet<u64> = walks.values().filter_map(|(_, walk)| walk.last()).map(|it| it.instruction.ip()).collect();
    let mut chosen = Vec::new();
    for (opcode, walk) in walks.into_values() {
        let place = choose(code, &walk, &ends);
        chosen.push(match place {
            Some(place) => (opcode, place),
            None => return Err(NoInterpreterSites::NoPlace { opcode }),
        });
    }
    let addresses: HashSet<u64> = chosen.iter().map(|(_, place)| place.instruction.ip()).collect();
    let mut sites = Vec::new();
    for (opcode, place) in chosen {
        let no_place = || NoInterpreterSites::NoPlace { opcode: opcode.clone() };
        let (part, _) = code.position(place.instruction.ip()).ok_or_else(no_place)?;
        let counting = counting(image, code, part, place.instruction, &addresses)
            .map_err(|problem| NoInterpreterSites::Code { problem })?;
        let condition = match counting {
            Counting::Always => None,
            Counting::If(condition) => Some(condition),
            Counting::Never => continue,
            Counting::Unclear => return Err(no_place()),
        };
        let mut instruction = String::new();
        FastFormatter::new().format(place.instruction, &mut instruction);
        sites.push(InterpreterSite {
            offset: image.file.code_offset(place.instruction.ip()).ok_or_else(no_place)?,
            emulated: place.execution == Execution::Emulated,
            instruction,
            condition,
            frame: place.frame,
            opcode,
        });
    }
    if sites.is_empty() {
        let opcode = handlers.iter().map(|handler| handler.opcode).collect::<Vec<_>>().join("/");
        return Err(NoInterpreterSites::NoPlace { opcode });
    }
    Ok(sites)
}

/// The instructions of a handler from its first one to the first that the kernel emulates or that may not go on with the
/// next. Calls and jumps with a plain target are emulated, so nothing was called and nothing skipped before the last one.
fn walk<'code>(
    part: &'code Part<'_>,
    index: usize,
    frame_instruction: Option<u64>,
    frames: &mut FrameRegisters,
) -> Vec<Place<'code>> {
    let mut places = Vec::new();
    let mut is_untouched = true;
    for instruction in part.instructions.iter().skip(index).take(WALK_LIMIT) {
        let execution = probe_rules::execution(part.bytes_of(instruction));
        let frame = match frames.any() {
            Some(register) => FramePlace::Register(register),
            None if is_untouched => FramePlace::Current,
            // The frame may have been taken off the thread already, and where it is now is not known.
            None => break,
        };
        places.push(Place { instruction, execution, frame });
        if execution == Execution::Emulated || instruction.flow_control() != FlowControl::Next {
            break;
        }
        is_untouched &= !registers::stores(instruction, POINTER_BYTES);
        frames.step(instruction, frame_instruction);
    }
    places
}

/// The last place of a walk, if it is emulated and nothing else leads between it and the beginning; else the first place
/// that takes a probe before the first jump's target.
fn choose<'code>(code: &Code<'_>, walk: &[Place<'code>], ends: &HashSet<u64>) -> Option<Place<'code>> {
    let is_joined = |place: &Place<'_>| {
        let sources = code.jumps_to.get(&place.instruction.ip());
        sources.into_iter().flatten().any(|source| !ends.contains(source))
    };
    let (first, rest) = walk.split_first()?;
    let alone: Vec<&Place<'code>> = std::iter::once(first).chain(rest.iter().take_while(|it| !is_joined(it))).collect();
    let emulated = alone.iter().find(|place| place.execution == Execution::Emulated);
    emulated.or_else(|| alone.iter().find(|place| place.execution != Execution::Refused)).map(|place| **place)
}

/// When a hit of a site counts.
enum Counting {
    /// Always.
    Always,
    /// When a condition holds: low four bits of the opcode.
    If(u8),
    /// Never: the same execution passes another site.
    Never,
    /// Not known.
    Unclear,
}

/// Whether the code at an address goes on to a site before the next bytecode instruction, which an indirect jump begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads {
    Always,
    Sometimes,
    Never,
}

/// Finds whether an execution that passes a site passes another one as well: one handler may give up and go on in another.
fn counting<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    part: &Part<'_>,
    instruction: &Instruction,
    sites: &HashSet<u64>,
) -> Result<Counting, SkipReason> {
    let leads = |address| leads_to_site(image, code, address, sites);
    let next = instruction.next_ip();
    match instruction.flow_control() {
        FlowControl::ConditionalBranch if is_direct_jump(instruction) => {
            let condition = exits::condition(part.bytes_of(instruction));
            Ok(match (leads(instruction.near_branch_target())?, leads(next)?, condition) {
                (Leads::Never, Leads::Never, _) => Counting::Always,
                // Opcodes of opposite conditions differ in the lowest bit.
                (Leads::Always, Leads::Never, Some(condition)) => Counting::If(condition ^ 1),
                (Leads::Never, Leads::Always, Some(condition)) => Counting::If(condition),
                (Leads::Always, Leads::Always, _) => Counting::Never,
                _ => Counting::Unclear,
            })
        }
        FlowControl::IndirectBranch | FlowControl::Return => Ok(Counting::Always),
        flow => {
            let is_jump = flow == FlowControl::UnconditionalBranch && is_direct_jump(instruction);
            Ok(match leads(if is_jump { instruction.near_branch_target() } else { next })? {
                Leads::Never => Counting::Always,
                Leads::Always => Counting::Never,
                // What the called function returns decides: it failed, or the handler goes on.
                Leads::Sometimes if flow == FlowControl::Call => Counting::Never,
                Leads::Sometimes => Counting::Unclear,
            })
        }
    }
}

fn leads_to_site<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    address: u64,
    sites: &HashSet<u64>,
) -> Result<Leads, SkipReason> {
    let mut seen = HashSet::new();
    let mut wanted = vec![address];
    let mut has_forked = false;
    while let Some(address) = wanted.pop() {
        if !seen.insert(address) {
            continue;
        }
        if seen.len() > FOLLOW_LIMIT {
            return Ok(Leads::Sometimes);
        }
        if sites.contains(&address) {
            return Ok(if has_forked { Leads::Sometimes } else { Leads::Always });
        }
        image.spend(1)?;
        let Some((part, index)) = code.position(address) else { continue };
        let Some(instruction) = part.instructions.get(index) else { continue };
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch if is_direct_jump(instruction) => {
                wanted.push(instruction.near_branch_target());
            }
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception => {}
            FlowControl::ConditionalBranch => {
                has_forked = true;
                wanted.extend([instruction.near_branch_target(), instruction.next_ip()]);
            }
            _ => wanted.push(instruction.next_ip()),
        }
    }
    Ok(Leads::Never)
}

/// The registers that hold the frame.
#[derive(Default)]
struct FrameRegisters {
    /// The one that the pointer to the instruction was stored through.
    stored: Option<Register>,
    /// Those that hold it now.
    now: Vec<Register>,
}

impl FrameRegisters {
    /// One of them, as x86-64 instructions number it.
    fn any(&self) -> Option<u8> {
        self.now.first().and_then(|register| u8::try_from(register.number()).ok())
    }

    /// Follows them over one instruction.
    fn step(&mut self, instruction: &Instruction, frame_instruction: Option<u64>) {
        let is_first_store = self.stored.is_none()
            && instruction.code() == Opcode::Mov_rm64_r64
            && instruction.op0_kind() == OpKind::Memory
            && instruction.memory_index() == Register::None
            && frame_instruction.is_some_and(|offset| instruction.memory_displacement64() == offset)
            && !matches!(instruction.memory_base(), Register::None | Register::RSP | Register::RIP);
        if is_first_store {
            self.stored = Some(instruction.memory_base());
            self.now.push(instruction.memory_base());
            return;
        }
        let is_copy = matches!(instruction.code(), Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64)
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && self.now.contains(&instruction.op1_register());
        let written: Vec<Register> = registers::written(instruction).collect();
        self.now.retain(|register| !written.contains(register));
        if is_copy {
            self.now.push(instruction.op0_register());
        }
    }
}
