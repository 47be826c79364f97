//! How long a function is that no table gives a length: what its own jumps can reach, as far as that is one piece.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use object::read::ReadRef;

use super::code::is_direct_jump;
use super::image::Image;
use super::registers;

/// Largest function that is measured this way, bytes: they are written by hand.
const LIMIT: u64 = 64 << 10;

/// Bytes of the function at an address, up to the next one at most. `None` where a jump leads to what is not known: behind it there
/// may be data, and a probe in data would change it.
pub(super) fn size<'data, R: ReadRef<'data>>(image: &Image<'data, R>, address: u64) -> Option<u64> {
    let room = image.functions.next_after(address).map_or(LIMIT, |next| (next - address).min(LIMIT));
    let bytes = image.file.code_from(address, room)?;
    image.spend(bytes.len()).ok()?;
    let end = address.checked_add(bytes.len() as u64)?;
    let mut reached: BTreeMap<u64, u64> = BTreeMap::new();
    let mut wanted = vec![address];
    while let Some(start) = wanted.pop() {
        let mut decoder = at(bytes, address, start)?;
        while decoder.can_decode() && !reached.contains_key(&decoder.ip()) {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return None;
            }
            reached.insert(instruction.ip(), instruction.next_ip());
            if is_direct_jump(&instruction) {
                wanted.extend(Some(instruction.near_branch_target()).filter(|target| (address..end).contains(target)));
            }
            match instruction.flow_control() {
                FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::Exception => break,
                // A slot that the loader fills leads out; anything else may be a table in the midst of the code.
                FlowControl::IndirectBranch if instruction.is_ip_rel_memory_operand() => break,
                FlowControl::IndirectBranch => return None,
                _ if instruction.mnemonic() == Mnemonic::Int3 || instruction.next_ip() > end => return None,
                _ => {}
            }
        }
        // It runs on into what comes behind.
        if !decoder.can_decode()
            && reached.range(..).next_back().is_some_and(|(last, _)| falls_through(bytes, address, *last))
        {
            return None;
        }
    }
    let mut behind = address;
    for (start, next) in &reached {
        if *start < behind || !is_padding(bytes, address, behind, *start) {
            return None;
        }
        behind = *next;
    }
    Some(behind - address)
}

fn at(bytes: &[u8], base: u64, address: u64) -> Option<Decoder<'_>> {
    let skip = usize::try_from(address.checked_sub(base)?).ok()?;
    Some(Decoder::with_ip(64, bytes.get(skip..)?, address, DecoderOptions::NONE))
}

fn falls_through(bytes: &[u8], base: u64, address: u64) -> bool {
    let instruction = at(bytes, base, address).map(|mut decoder| decoder.decode());
    instruction.is_none_or(|instruction| {
        !matches!(
            instruction.flow_control(),
            FlowControl::Return
                | FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Exception
        )
    })
}

/// Whether there is nothing between two addresses but what aligns code.
fn is_padding(bytes: &[u8], base: u64, start: u64, end: u64) -> bool {
    let is_filler =
        |instruction: &Instruction| instruction.mnemonic() == Mnemonic::Int3 || registers::does_nothing(instruction);
    let Some(decoder) = at(bytes, base, start) else { return false };
    let mut next = start;
    for instruction in decoder {
        if next >= end || !is_filler(&instruction) {
            break;
        }
        next = instruction.next_ip();
    }
    next == end
}
