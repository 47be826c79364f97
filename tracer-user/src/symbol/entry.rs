//! Where the entry probe of a function goes.

use iced_x86::{FastFormatter, FlowControl, Instruction};
use object::read::ReadRef;

use super::code::{Code, Part};
use super::exits::{Exit, ExitKind};
use super::image::Image;
use super::indirect_jump::ARGUMENT_REGISTERS;
use super::probe_rules::{self, Execution};
use super::registers::{self, StackChange};
use crate::model::{EntrySite, FileOffset, SkipReason, VirtualAddress};

/// Instructions that are stepped over at most, in search of one that the kernel emulates.
const WALK_LIMIT: usize = 16;
/// Most bytes that the stack pointer may have moved; what a cookie holds.
const STACK_DELTA_LIMIT: i64 = 2040;

/// An instruction that every call runs exactly once, with the arguments still in their registers.
struct Place<'code> {
    instruction: &'code Instruction,
    stack_delta: u16,
    execution: Execution,
    exit: Option<ExitKind>,
}

/// Chooses the instruction of the entry probe: the first one that the kernel emulates, else the first one that it takes.
/// An exit is no entry site, except the `ret` of a function that does nothing else.
pub(super) fn find<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    exits: &[Exit],
) -> Result<EntrySite, SkipReason> {
    let Some(part) = code.parts.first() else { return Err(SkipReason::NoCode) };
    let Some(first) = part.instructions.first() else { return Err(SkipReason::NoCode) };
    let is_exit = |address: u64| exits.binary_search_by_key(&address, |exit| exit.address).is_ok();
    if let Some(source) =
        code.jumps_to.get(&first.ip()).and_then(|sources| sources.iter().find(|source| !is_exit(**source)))
    {
        return Err(SkipReason::LoopsToEntry { address: VirtualAddress(*source) });
    }
    let places = places(code, part, exits);
    if let [rest @ .., last] = places.as_slice()
        && matches!(last.exit, Some(ExitKind::TailJump))
        && rest.iter().all(|place| registers::does_nothing(place.instruction))
    {
        return Err(SkipReason::JumpThunk);
    }
    let chosen = places
        .iter()
        .find(|place| place.execution == Execution::Emulated && place.exit.is_none())
        .or_else(|| places.iter().find(|place| place.execution != Execution::Refused && place.exit.is_none()))
        .or_else(|| places.first().filter(|place| place.exit == Some(ExitKind::Return)))
        .ok_or(SkipReason::ForbiddenInstruction { address: VirtualAddress(first.ip()) })?;
    let mut text = String::new();
    FastFormatter::new().format(chosen.instruction, &mut text);
    Ok(EntrySite {
        offset: image.file.code_offset(chosen.instruction.ip()).ok_or(SkipReason::NoCode)?,
        stack_delta: chosen.stack_delta,
        emulated: chosen.execution == Execution::Emulated,
        instruction: text,
    })
}

/// The instructions from the first one on, as far as each is run by every call and nothing before it changed an argument.
fn places<'code>(code: &Code<'_>, part: &'code Part<'_>, exits: &[Exit]) -> Vec<Place<'code>> {
    let mut places = Vec::new();
    let mut delta = 0;
    for instruction in part.instructions.iter().take(WALK_LIMIT) {
        let Some(stack_delta) = u16::try_from(delta).ok().filter(|_| delta % 8 == 0 && delta <= STACK_DELTA_LIMIT)
        else {
            break;
        };
        let is_joined = !places.is_empty() && code.is_jumped_to(instruction.ip());
        if is_joined {
            break;
        }
        let exit = exits.binary_search_by_key(&instruction.ip(), |exit| exit.address).ok();
        places.push(Place {
            instruction,
            stack_delta,
            execution: probe_rules::execution(part.bytes_of(instruction)),
            exit: exit.and_then(|index| exits.get(index)).map(|exit| exit.kind),
        });
        let keeps_arguments = registers::written(instruction).all(|register| !ARGUMENT_REGISTERS.contains(&register));
        match registers::stack_change(instruction) {
            StackChange::By(bytes) if keeps_arguments && instruction.flow_control() == FlowControl::Next => {
                delta -= bytes
            }
            _ => break,
        }
    }
    places
}

/// Offset of an exit, if the kernel takes a probe there.
pub(super) fn exit_offset<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    code: &Code<'data>,
    exit: &Exit,
) -> Result<FileOffset, SkipReason> {
    let bytes = code
        .position(exit.address)
        .and_then(|(part, index)| part.instructions.get(index).map(|instruction| part.bytes_of(instruction)))
        .unwrap_or_default();
    if probe_rules::execution(bytes) == Execution::Refused {
        return Err(SkipReason::ForbiddenInstruction { address: VirtualAddress(exit.address) });
    }
    image.file.code_offset(exit.address).ok_or(SkipReason::NoCode)
}
