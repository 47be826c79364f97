//! Probes inside the interpreter that every Python call passes: where a frame begins to run, and where it returns.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_ktime_get_ns},
    },
    macros::uprobe,
    programs::ProbeContext,
};
use tracer_common::{
    cookie::{Cookie, ObjectLocation},
    counters::Counter,
    python::{FrameStyle, NO_FUNCTION, PythonKey, PythonLayout},
    records::{FrameKind, RecordEnding, ThreadStack},
};

use crate::{
    maps::{PROCESSES, PYTHON_CODES, PYTHON_FUNCTIONS, PYTHON_LAYOUTS, THREADS, count},
    python_calls::{self, Entered},
    python_frame::{code_of, current_frame, reference, word},
    python_resolve, stack,
};

/// A frame begins to run. It is complete: the receiver can be read.
#[uprobe]
pub fn python_frame_entry(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let identity = bpf_get_current_pid_tgid();
    let process = (identity >> 32) as u32;
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != process || slot.accepts_entries == 0 {
        return 0;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(cookie.process_slot()) else { return 0 };
    let python_thread = word(layout.current_thread);
    // SAFETY: the program's context; volatile, so that each load keeps its constant offset.
    let (first, second, stack_pointer) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*context.regs).rdi),
            core::ptr::read_volatile(&raw const (*context.regs).rsi),
            core::ptr::read_volatile(&raw const (*context.regs).rsp),
        )
    };
    // A heap frame becomes the thread's current one only inside the function that is probed: it is an argument.
    let frame = match cookie.object() {
        location if location == ObjectLocation::FirstArgument as u64 => first,
        location if location == ObjectLocation::SecondArgument as u64 => second,
        _ => current_frame(layout, python_thread),
    };
    let code = PythonKey { address: code_of(layout, frame), process, reserved: 0 };
    let Some(rule) = PYTHON_CODES.get_ptr(&code) else { return 0 };
    // SAFETY: a checked map value.
    let rule = unsafe { &*rule };
    let (function, of_container) = if layout.style == FrameStyle::Heap as u32 {
        (rule.only_function, rule.of_container)
    } else {
        let object = reference(layout, frame, layout.frame_function);
        // SAFETY: user space replaces values of this map whole.
        match unsafe { PYTHON_FUNCTIONS.get(&PythonKey { address: object, process, reserved: 0 }) } {
            Some(known) if known.code == code.address && known.function == NO_FUNCTION => return 0,
            Some(known) if known.code == code.address => (known.function, known.of_container),
            _ => (rule.only_function, rule.of_container),
        }
    };
    let Some(thread) = stack::of_current_thread(identity) else {
        count(Counter::Entries, 1);
        count(Counter::LostThreadTableFull, 1);
        return 0;
    };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        (*thread).python_thread = python_thread;
        if function == NO_FUNCTION {
            (*thread).entries += 1;
            (*thread).lost_unknown_function += 1;
            return 0;
        }
    }
    end_same_frame(thread, frame);
    let entered =
        Entered { function, of_container, frame, object: 0, call_instruction: 0, by_caller: 0, stack_pointer };
    python_calls::enter(thread, &code, rule, &entered);
    python_resolve::resolve(thread, process, frame);
    0
}

/// A call whose frame has the address of one that begins is over: an exception has left it.
#[inline(always)]
fn end_same_frame(thread: *mut ThreadStack, frame: u64) {
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return;
        }
        let top = stack::frame(thread, depth - 1);
        if (*top).kind != FrameKind::Native as u32 && (*top).stack_pointer == frame {
            stack::end_wide(thread, RecordEnding::Unwound as u32, bpf_ktime_get_ns(), 0, 0);
        }
    }
}

/// A frame returns; it is still the thread's current one.
#[uprobe]
pub fn python_frame_return(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let identity = bpf_get_current_pid_tgid();
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != (identity >> 32) as u32 {
        return 0;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(cookie.process_slot()) else { return 0 };
    let Some(thread) = THREADS.get_ptr_mut(identity) else { return 0 };
    leave(layout, thread);
    0
}

#[inline(always)]
fn leave(layout: &PythonLayout, thread: *mut ThreadStack) {
    // SAFETY: a checked map value used by this thread alone.
    if unsafe { (*thread).depth } == 0 {
        return;
    }
    let frame = current_frame(layout, word(layout.current_thread));
    let code = code_of(layout, frame);
    if python_calls::end_inside(thread, frame, code, 0) != 0 {
        // SAFETY: a helper without arguments.
        stack::end_wide(thread, RecordEnding::Returned as u32, unsafe { bpf_ktime_get_ns() }, 0, 0);
    }
}
