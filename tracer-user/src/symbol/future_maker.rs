//! Rust functions that only make a future (`async fn`): what their name promises is done where it is polled.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::read::ReadRef;

use super::code::Code;
use super::disassembly;
use super::function_table::Candidate;
use super::image::Image;
use crate::model::Language;

/// What the name of the function holds that rustc has a future call when it is polled after its end.
const RESUMED: &str = "async_fn_resumed";
/// What a function may call that only makes a future: room for it, and copies of the arguments.
const MAKING: [&str; 9] = [
    "__rust_alloc",
    "__rust_no_alloc",
    "exchange_malloc",
    "alloc_error",
    "drop_in_place",
    "memcpy",
    "memmove",
    "5boxed",
    "alloc..boxed",
];
/// Instructions of a function that only keeps its arguments, at most.
const KEEPING_LIMIT: usize = 64;
/// More bytes than align what stands before a byte.
const ROOM: u64 = 8;
/// Closures of one function that are looked into.
const CLOSURE_LIMIT: usize = 16;

/// Whether the code of a Rust function only makes a future. Either it keeps its arguments in a value with a zero for the state and does
/// nothing else; or a closure in it is an `async` block, and it calls nothing but what moves that into its place.
pub(super) fn is_one<'data, R: ReadRef<'data>>(
    image: &Image<'data, R>,
    candidate: &Candidate,
    code: &Code<'data>,
) -> bool {
    let is_rust = candidate.names.first().is_some_and(|name| name.language == Language::Rust);
    is_rust && only_makes(image, code) && (only_keeps_arguments(code) || has_async_closure(image, candidate))
}

/// Whether the code does nothing but move: its arguments to where it was told to put its result (the first argument), and a zero
/// byte to them, the state of a future that was never polled. Either the object is among what is kept, or there is room
/// before the state that nothing was moved to: it is for what outlives a pause. A result that is complete has neither.
fn only_keeps_arguments(code: &Code<'_>) -> bool {
    if code.instructions().count() > KEEPING_LIMIT {
        return false;
    }
    let mut places = vec![Register::RDI];
    let mut written: Vec<(u64, u64)> = Vec::new();
    let (mut state, mut keeps_object) = (None, false);
    for instruction in code.instructions() {
        let (first, second) = (instruction.op0_register(), instruction.op1_register());
        let to_memory = instruction.op0_kind() == OpKind::Memory;
        match instruction.mnemonic() {
            Mnemonic::Mov
            | Mnemonic::Movsd
            | Mnemonic::Movss
            | Mnemonic::Movups
            | Mnemonic::Movaps
            | Mnemonic::Movapd
            | Mnemonic::Movq
            | Mnemonic::Movd
                if to_memory =>
            {
                if instruction.memory_base() == Register::RSP {
                    continue;
                }
                if !places.contains(&instruction.memory_base()) || instruction.memory_index() != Register::None {
                    return false;
                }
                let start = instruction.memory_displacement64();
                let bytes = instruction.memory_size().size() as u64;
                if bytes == 1 && instruction.op1_kind() == OpKind::Immediate8 && instruction.immediate(1) == 0 {
                    state = Some(start);
                } else {
                    keeps_object |= second == Register::RSI;
                    written.push((start, start.saturating_add(bytes)));
                }
            }
            Mnemonic::Mov if places.contains(&second) => places.push(first),
            Mnemonic::Mov
            | Mnemonic::Movsd
            | Mnemonic::Movss
            | Mnemonic::Movups
            | Mnemonic::Movaps
            | Mnemonic::Movapd
            | Mnemonic::Movq
            | Mnemonic::Movd
            | Mnemonic::Lea
            | Mnemonic::Push
            | Mnemonic::Pop
            | Mnemonic::Call
            | Mnemonic::Ret
            | Mnemonic::Nop
            | Mnemonic::Endbr64 => {}
            Mnemonic::Sub | Mnemonic::Add if first == Register::RSP => {}
            Mnemonic::Xor | Mnemonic::Xorps if first == second => {}
            _ => return false,
        }
    }
    state.is_some_and(|state| keeps_object || unwritten_before(state, &mut written) >= ROOM)
}

/// Bytes before an offset that nothing was moved to.
fn unwritten_before(end: u64, written: &mut [(u64, u64)]) -> u64 {
    written.sort_unstable();
    let (mut unwritten, mut next) = (0, 0);
    for (start, behind) in written.iter() {
        unwritten += start.min(&end).saturating_sub(next);
        next = next.max(*behind);
    }
    unwritten + end.saturating_sub(next)
}

/// Whether a closure of the function is an `async` block: it has a way to say that it was polled after its end.
fn has_async_closure<'data, R: ReadRef<'data>>(image: &Image<'data, R>, candidate: &Candidate) -> bool {
    candidate.closures.iter().take(CLOSURE_LIMIT).any(|address| {
        let size = image.functions.at(*address).iter().map(|entry| entry.size).max().unwrap_or(0);
        let Some(size) = image.size_of(*address, size) else { return false };
        let Ok(code) = disassembly::decode(image, *address, size, &[]) else { return false };
        called(image, &code)
            .into_iter()
            .any(|target| matches!(target, Called::Here(target) if is_called(image, target, &[RESUMED])))
    })
}

fn only_makes<'data, R: ReadRef<'data>>(image: &Image<'data, R>, code: &Code<'data>) -> bool {
    called(image, code).into_iter().all(|target| match target {
        Called::Elsewhere => true,
        Called::Unknown => false,
        Called::Here(target) => image.functions.containing(target).is_empty() || is_called(image, target, &MAKING),
    })
}

fn is_called<'data, R: ReadRef<'data>>(image: &Image<'data, R>, target: u64, words: &[&str]) -> bool {
    let here = image.functions.containing(target);
    here.iter().any(|entry| entry.symbol().is_some_and(|symbol| words.iter().any(|word| symbol.contains(word))))
}

/// What a call leads to.
enum Called {
    /// An address of this file.
    Here(u64),
    /// Another file, by a slot that the loader fills: the C library's copying, say.
    Elsewhere,
    /// What a register or a table says.
    Unknown,
}

/// What code calls or leaves for.
fn called<'data, R: ReadRef<'data>>(image: &Image<'data, R>, code: &Code<'data>) -> Vec<Called> {
    let is_call = |instruction: &&Instruction| match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall | FlowControl::IndirectBranch => true,
        FlowControl::UnconditionalBranch => !code.contains(instruction.near_branch_target()),
        _ => false,
    };
    let calls: Vec<&Instruction> = code.instructions().filter(is_call).collect();
    let slots: BTreeSet<u64> = calls.iter().filter_map(|call| slot(call)).collect();
    let pointers = if slots.is_empty() { &[][..] } else { image.code_pointers() };
    let through = |slot: u64| {
        let index = pointers.binary_search_by_key(&slot, |pointer| pointer.slot).ok()?;
        pointers.get(index).map(|pointer| pointer.target)
    };
    calls
        .into_iter()
        .map(|call| match slot(call) {
            Some(slot) => through(slot).map_or(Called::Elsewhere, Called::Here),
            None => match call.near_branch_target() {
                0 => Called::Unknown,
                target => Called::Here(target),
            },
        })
        .collect()
}

/// Address of the word that a call reads its target from.
fn slot(call: &Instruction) -> Option<u64> {
    call.is_ip_rel_memory_operand().then(|| call.ip_rel_memory_address())
}
