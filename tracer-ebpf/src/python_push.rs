//! Whether a reference to a code object is the one that a frame takes when it is pushed, or somebody else's: whoever reads
//! `method.__code__` or `frame.f_code` takes one, too.
//!
//! On a data stack (CPython 3.11 and later) a frame that is pushed begins at or beyond the end of the innermost one that
//! runs there, and one that is popped did. On the heap the interpreter holds the new frame in a register when it takes the
//! reference. Looking through the registers is dear (most hold no address, and each of those is a fault), so the
//! instructions that push frames are remembered.

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
};
use tracer_common::python::PythonLayout;

use crate::{
    maps::{PYTHON_LAYOUTS, PYTHON_PUSH_SITES},
    python_frame::{code_of, current_frame, field, read_u32, read_u64},
};

/// Steps along the chain of frames: generators and coroutines stand on the heap, not on the data stack.
const MAX_STEPS: u32 = 128;

/// The end of the innermost frame on the data stack was not found out.
pub const UNKNOWN_END: u64 = u64::MAX;

/// Where the innermost frame that runs on a thread's data stack ends: the next one is no lower, as long as it is in the same
/// piece of the stack; a piece that holds none of the running frames is new. [`UNKNOWN_END`] if that cannot be found out.
/// A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn innermost_end(process_slot: u32, python_thread: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return UNKNOWN_END };
    let piece = field(python_thread, layout.thread_datastack_chunk);
    let size = field(piece, layout.chunk_size);
    let before = if piece == 0 { 0 } else { read_u64(piece) };
    let size_before = field(before, layout.chunk_size);
    let mut frame = current_frame(layout, python_thread);
    for _ in 0..MAX_STEPS {
        if frame == 0 || frame.wrapping_sub(before) < size_before {
            return piece;
        }
        if frame.wrapping_sub(piece) < size {
            return end_of(process_slot, frame);
        }
        frame = field(frame, layout.frame_previous);
    }
    UNKNOWN_END
}

/// Where a frame on the data stack ends, or [`UNKNOWN_END`]. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_of(process_slot: u32, frame: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return UNKNOWN_END };
    let bytes = frame_bytes(layout, code_of(layout, frame));
    if bytes == 0 { UNKNOWN_END } else { frame + bytes }
}

/// Bytes that a frame of a code takes on the data stack, 0 if it cannot be read.
#[inline(always)]
fn frame_bytes(layout: &PythonLayout, code: u64) -> u64 {
    if code == 0 {
        return 0;
    }
    if layout.code_frame_words != 0 {
        return 8 * u64::from(read_u32(code + u64::from(layout.code_frame_words)));
    }
    let slots = read_u32(code + u64::from(layout.code_slots));
    let depth = read_u32(code + u64::from(layout.code_stack_depth));
    if depth == 0 { 0 } else { 8 * (u64::from(slots) + u64::from(depth) + u64::from(layout.frame_words_beyond)) }
}

/// Words of `pt_regs` that are general registers (arch/x86/include/asm/ptrace.h), and where the stack pointer is.
const REGISTERS: u64 = 15;
const STACK_POINTER: u64 = 152;

/// Words on the native stack that are looked at where no register holds what is sought.
const STACK_WORDS: u64 = 16;

/// What a general register of this thread holds, by its place in `pt_regs`.
#[inline(always)]
fn register(offset: u64) -> u64 {
    // SAFETY: helpers without side effects; the second one takes what the first one gives, and the last one checks the
    // address.
    unsafe {
        let registers = bpf_task_pt_regs(bpf_get_current_task_btf()) as u64;
        bpf_probe_read_kernel((registers + offset) as *const u64).unwrap_or(0)
    }
}

/// Whether the frame on the data stack is left while somebody keeps its frame object (3.12 and later): its content is copied
/// there, and the copy takes a reference at this instruction. The interpreter holds the frame object in a register then; an
/// instruction at which it does not is one that pushes frames. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_copied(process_slot: u32, frame: u64, instruction: u64) -> u64 {
    if is_push_site(process_slot, instruction) != 0 {
        return 0;
    }
    if register_holds_object_of(process_slot, frame) != 0 {
        return 1;
    }
    add_push_site(process_slot, instruction);
    0
}

/// 1 if a register holds the frame object of a frame. A global function, so that the loop has one way around it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn register_holds_object_of(process_slot: u32, frame: u64) -> u64 {
    for index in 0..REGISTERS {
        if is_object_of(process_slot, register(8 * index), frame) != 0 {
            return 1;
        }
    }
    0
}

/// 1 if there is a frame object of a frame at an address. A global function, so that the loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_object_of(process_slot: u32, address: u64, frame: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    if field(address, layout.frame_object_frame) != frame {
        return 0;
    }
    let types = field(layout.function_type, layout.object_type);
    u64::from(field(field(address, layout.object_type), layout.object_type) == types)
}

/// Whether a heap frame that `caller` has called is being pushed, at this instruction of the interpreter. A global function,
/// see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_heap_push(process_slot: u32, caller: u64, instruction: u64) -> u64 {
    if is_push_site(process_slot, instruction) != 0 {
        return 1;
    }
    if holds_new_frame(process_slot, caller) == 0 {
        return 0;
    }
    add_push_site(process_slot, instruction);
    1
}

/// 1 if frames are known to be pushed at an instruction. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_push_site(process_slot: u32, instruction: u64) -> u64 {
    let Some(sites) = PYTHON_PUSH_SITES.get_ptr(process_slot) else { return 0 };
    // SAFETY: a checked map value; a site that is added meanwhile is whole or not there.
    u64::from(unsafe { (*sites).instructions.iter().any(|known| *known == instruction) })
}

/// Frames are pushed at an instruction. Where there is no room it is found out again each time. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn add_push_site(process_slot: u32, instruction: u64) -> u64 {
    let Some(sites) = PYTHON_PUSH_SITES.get_ptr_mut(process_slot) else { return 0 };
    // SAFETY: a checked map value; whoever changes it holds the interpreter's lock.
    unsafe {
        for known in &mut (*sites).instructions {
            if *known == 0 {
                *known = instruction;
                return 1;
            }
        }
    }
    0
}

/// 1 if a register, or a word on top of the native stack, holds a heap frame that is new. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn holds_new_frame(process_slot: u32, caller: u64) -> u64 {
    for index in 0..REGISTERS {
        if is_new_frame(process_slot, register(8 * index), caller) != 0 {
            return 1;
        }
    }
    let top = register(STACK_POINTER);
    for index in 0..STACK_WORDS {
        if is_new_frame(process_slot, read_u64(top + 8 * index), caller) != 0 {
            return 1;
        }
    }
    0
}

/// Where the collector's list stands before an object: 0 for one that is in no list (`PyGC_Head`, CPython 3.8 to 3.10).
const COLLECTOR_LIST: u64 = 16;

/// The last instruction of a frame that is complete and has not begun. Until it is complete there stands that of an earlier
/// frame in its memory.
const NOT_BEGUN: u32 = u32::MAX;

/// 1 if there is a frame at an address that is being made, called by `caller`, that nobody else refers to, and that the collector does
/// not know: frames are made known to it when somebody keeps them. A running frame is not the current one's callee, and one that
/// is complete gets its arguments, among which the code may be. A global function, so that the loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_new_frame(process_slot: u32, address: u64, caller: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let is_frame = caller != 0 && field(address, layout.object_type) == field(caller, layout.object_type);
    let is_new = is_frame
        && read_u64(address) == 1
        && read_u64(address.wrapping_sub(COLLECTOR_LIST)) == 0
        && read_u32(address.wrapping_add(u64::from(layout.frame_last_instruction))) != NOT_BEGUN
        && field(address, layout.frame_previous) == caller;
    u64::from(is_new)
}
