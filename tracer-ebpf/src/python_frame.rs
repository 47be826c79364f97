//! Reads an interpreter's frames, with the offsets of its layout. What cannot be read is 0.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_common::python::{FrameStyle, PythonLayout, Receiver};

/// 64 bits at an address of the process, 0 if they cannot be read.
#[inline(always)]
pub fn read_u64(address: u64) -> u64 {
    read(address)
}

/// 32 bits at an address of the process, 0 if they cannot be read.
#[inline(always)]
pub fn read_u32(address: u64) -> u32 {
    read(address)
}

/// A byte at an address of the process, 0 if it cannot be read.
#[inline(always)]
pub fn read_byte(address: u64) -> u8 {
    read(address)
}

/// The helper itself clears what it cannot read (kernel/trace/bpf_trace.c): each look at what it returns would be two ways for the
/// verifier, and some kernels do not see that they meet again.
#[inline(always)]
fn read<Number: Default>(address: u64) -> Number {
    let mut number = Number::default();
    let size = size_of::<Number>() as u32;
    // SAFETY: as many bytes as the number has, any of which make one; the helper checks the address, and a bad one is no fault.
    unsafe { bpf_probe_read_user((&raw mut number).cast(), size, address as *const c_void) };
    number
}

/// 64 bits at an offset from an address; 0 for a null address.
#[inline(always)]
pub fn field(address: u64, offset: u32) -> u64 {
    if address == 0 { 0 } else { read_u64(address + u64::from(offset)) }
}

/// A reference that a frame holds, without the flags that it may carry.
#[inline(always)]
pub fn reference(layout: &PythonLayout, frame: u64, offset: u32) -> u64 {
    field(frame, offset) & layout.pointer_mask
}

/// The innermost frame of a thread that is complete.
#[inline(always)]
pub fn current_frame(layout: &PythonLayout, python_thread: u64) -> u64 {
    let found = field(python_thread, layout.thread_frame);
    if layout.style == FrameStyle::DataStackByCFrame as u32 { field(found, layout.cframe_frame) } else { found }
}

/// The code of a frame.
#[inline(always)]
pub fn code_of(layout: &PythonLayout, frame: u64) -> u64 {
    reference(layout, frame, layout.frame_code)
}

/// The receiver of the call that a frame runs, 0 if it is out of reach.
#[inline(always)]
pub fn receiver_of(layout: &PythonLayout, frame: u64, receiver: u32, offset: u32) -> u64 {
    if receiver == Receiver::None as u32 {
        return 0;
    }
    let local = reference(layout, frame, layout.frame_locals + offset);
    if receiver == Receiver::Cell as u32 {
        // The first instructions of a function make the cell: where none of them has run, the argument is there as it was given.
        let is_made = layout.cell_type == 0 || field(local, layout.object_type) == layout.cell_type;
        return if is_made { field(local, layout.cell_content) } else { local };
    }
    if receiver == Receiver::FirstOfTuple as u32 {
        let first = field(local, layout.tuple_items);
        // A tuple that is not in use any more holds the next one of its kind there, and no tuple is a model.
        return if field(first, layout.object_type) == layout.tuple_type { 0 } else { first };
    }
    local
}

/// The type of the exception that is being raised on a thread, 0 if there is none.
#[inline(always)]
pub fn exception_of(layout: &PythonLayout, python_thread: u64) -> u64 {
    let raised = field(python_thread, layout.thread_exception);
    if layout.exception_is_type != 0 { raised } else { field(raised, layout.object_type) }
}
