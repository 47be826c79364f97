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
    cookie::{Cookie, jump_is_taken},
    counters::Counter,
    python::{FrameStyle, NO_FUNCTION, PythonCount, PythonKey, PythonLayout},
    records::RecordEnding,
    thread_stack::ThreadStack,
};

use crate::{
    endings,
    maps::{
        self, PROCESSES, PYTHON_CODES, PYTHON_COUNTS, PYTHON_FUNCTIONS, PYTHON_LAYOUTS, THREADS, begin_count, copy_of,
        count, count_passed,
    },
    python_calls::{self, ANY_CODE},
    python_chain,
    python_frame::{code_of, current_frame, exception_of, field, read_u64, reference},
    python_greenlets, python_resolve,
    registers::{GENERAL_REGISTERS, general_register},
    stack,
};

/// Reads one register. Volatile, so that each load keeps its constant offset into the context.
macro_rules! register {
    ($registers:expr, $name:ident) => {
        // SAFETY: the program's context.
        unsafe { core::ptr::read_volatile(&raw const (*$registers).$name) }
    };
}

/// Whether the hit counts: at some sites it does only where a condition holds.
#[inline(always)]
fn is_hit(context: &ProbeContext, cookie: Cookie) -> bool {
    !cookie.is_conditional() || jump_is_taken(cookie.condition(), register!(context.regs, eflags))
}

/// The frame at a hit. The cookie's place is the register that holds it, numbered as x86-64 instructions number them,
/// or 16: the current one of the thread state.
#[inline(always)]
fn frame_at(context: &ProbeContext, cookie: Cookie, layout: &PythonLayout, python_thread: u64) -> u64 {
    match cookie.place() {
        number if number < GENERAL_REGISTERS => general_register(context, number),
        _ => current_frame(layout, python_thread),
    }
}

/// A frame begins to run. It is complete: the receiver can be read.
#[uprobe]
pub fn python_frame_entry(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let identity = bpf_get_current_pid_tgid();
    let process = (identity >> 32) as u32;
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != process {
        return 0;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(cookie.process_slot()) else { return 0 };
    if !is_hit(&context, cookie) {
        return 0;
    }
    count_passed(cookie.process_slot(), 0);
    if slot.accepts_entries == 0 {
        return 0;
    }
    let python_thread = read_u64(layout.current_thread);
    let stack_pointer = register!(context.regs, rsp);
    let frame = frame_at(&context, cookie, layout, python_thread);
    let code = PythonKey { address: code_of(layout, frame), process, reserved: 0 };
    let Some(rule) = copy_of(&PYTHON_CODES, &code) else { return 0 };
    let (function, of_container) = if layout.style == FrameStyle::Heap as u32 {
        (rule.only_function, rule.of_container)
    } else {
        let object = reference(layout, frame, layout.frame_function);
        match copy_of(&PYTHON_FUNCTIONS, &PythonKey { address: object, process, reserved: 0 }) {
            Some(known) if known.code == code.address && known.function == NO_FUNCTION => return 0,
            Some(known) if known.code == code.address => (known.function, known.of_container),
            _ => (rule.only_function, rule.of_container),
        }
    };
    count_call(&code);
    let thread = stack::of_current_thread(identity)
        .and_then(|main| python_greenlets::stack_of(main, layout, cookie.process_slot(), python_thread));
    let Some(thread) = thread else {
        count(Counter::Entries, 1);
        count(Counter::LostThreadTableFull, 1);
        return 0;
    };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        if function == NO_FUNCTION {
            (*thread).entries += 1;
            (*thread).lost_unknown_function += 1;
            return 0;
        }
    }
    if layout.exceptions_are_seen != 0 && python_calls::is_running(thread, frame, code.address) {
        // Tracing or monitoring was just switched on: the interpreter turns to the same call once more.
        return 0;
    }
    end_same_frame(thread, frame);
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let entering = &raw mut (*thread).entering;
        (*entering).frame = frame;
        (*entering).code = code.address;
        (*entering).object = 0;
        (*entering).stack_pointer = stack_pointer;
        (*entering).function = function;
        (*entering).of_container = of_container;
        (*entering).call_instruction = 0;
        (*entering).by_caller = 0;
        (*entering).process = process;
        (*entering).process_slot = rule.process_slot;
        (*entering).receiver = rule.receiver;
        (*entering).receiver_offset = rule.receiver_offset;
    }
    python_calls::enter(thread);
    python_resolve::resolve(thread, process, frame, 1);
    0
}

/// Counts a call of traced code.
#[inline(always)]
pub fn count_call(code: &PythonKey) {
    match PYTHON_COUNTS.get_ptr_mut(code) {
        // SAFETY: a checked map value; whoever calls holds the interpreter's lock.
        Some(counted) => unsafe { (*counted).calls += 1 },
        None => begin_count(code, &PythonCount { references: 0, calls: 1, folded: 0 }),
    }
}

/// A call whose frame has the address of one that begins is over: an exception has left it.
#[inline(always)]
fn end_same_frame(thread: *mut ThreadStack, frame: u64) {
    if python_calls::end_inside(thread, frame, ANY_CODE, 0) != 0 {
        // SAFETY: a helper without arguments.
        python_calls::end_left_call(thread, unsafe { bpf_ktime_get_ns() });
    }
}

/// An exception passes through a Python frame: the function that adds the frame to the traceback begins. Its argument is
/// the frame object (`PyTraceBack_Here`, Python/traceback.c, the same from 3.8 to 3.14). Or it leaves the current frame, where the
/// interpreter has a place for that alone: most exceptions never pass it.
#[uprobe]
pub fn python_exception(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let identity = bpf_get_current_pid_tgid();
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != (identity >> 32) as u32 {
        return 0;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(cookie.process_slot()) else { return 0 };
    if cookie.place() == GENERAL_REGISTERS {
        count_passed(cookie.process_slot(), 0);
        exception_unwinds(cookie.process_slot());
        return 0;
    }
    let object = register!(context.regs, rdi);
    let sees_witnesses = maps::chain_is_on() && layout.witnesses != 0;
    if sees_witnesses && !is_of_interest(identity, cookie.process_slot(), layout, object) {
        return 0;
    }
    // What has been left is told first, then what is there.
    exception_leaves(cookie.process_slot(), object);
    if sees_witnesses {
        let stack_pointer = register!(context.regs, rsp);
        python_chain::witness(identity, cookie.process_slot(), read_u64(layout.current_thread), stack_pointer);
    }
    exception_passes(cookie.process_slot(), object);
    0
}

/// The current frame is left by the exception that is being raised: its call ends now. A global function, as below.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exception_unwinds(process_slot: u32) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let identity = bpf_get_current_pid_tgid();
    let Some(main) = THREADS.get_ptr_mut(identity) else { return 0 };
    let Some(thread) = python_greenlets::stack_around(main, process_slot) else { return 0 };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        if (*thread).depth == 0 {
            return 0;
        }
        let python_thread = read_u64(layout.current_thread);
        let frame = current_frame(layout, python_thread);
        let code = code_of(layout, frame);
        let exception = exception_of(layout, python_thread);
        let noted = python_calls::note_exception(thread, frame, 0, code, exception) as u32;
        if noted == 0 || (noted != 1 && python_calls::end_above(thread, noted) == 0) {
            return 0;
        }
        // Now is the time, if it is not resolved yet: its frame is complete.
        python_resolve::resolve(thread, (identity >> 32) as u32, frame, 1);
        // It may be of a class that is left out.
        let innermost = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        if (*thread).depth != 0 && (*innermost).stack_pointer == frame && (*innermost).code == code {
            endings::end_wide(thread, RecordEnding::Raised as u32, bpf_ktime_get_ns(), 0, exception);
        }
    }
    0
}

/// An exception arrives in the frame of this frame object: if it comes from another one, the call of that one is over. A global
/// function, see `endings::end_wide`: its part of the stack is free again when the next one is called.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exception_leaves(process_slot: u32, object: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let Some(main) = THREADS.get_ptr_mut(bpf_get_current_pid_tgid()) else { return 0 };
    let Some(thread) = python_greenlets::stack_around(main, process_slot) else { return 0 };
    let from = came_from(layout, read_u64(layout.current_thread));
    // SAFETY: a checked map value used by this thread alone.
    if from != object && unsafe { (*thread).depth } != 0 {
        python_calls::end_passed(thread, from);
    }
    0
}

/// An exception passes through the frame of this frame object: its call, if it is open, remembers it. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exception_passes(process_slot: u32, object: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let identity = bpf_get_current_pid_tgid();
    let Some(main) = THREADS.get_ptr_mut(identity) else { return 0 };
    let Some(thread) = python_greenlets::stack_around(main, process_slot) else { return 0 };
    // SAFETY: checked map values used by this thread alone.
    unsafe {
        if (*thread).depth == 0 {
            // What another greenlet was seen to raise is kept in mind.
            (*main).exceptions_noted &= u32::from((*main).greenlets[0] != 0);
            return 0;
        }
    }
    let is_heap = layout.style == FrameStyle::Heap as u32;
    let frame = if is_heap { object } else { field(object, layout.frame_object_frame) };
    let caller = if is_heap { field(frame, layout.frame_previous) } else { 0 };
    let exception = exception_of(layout, read_u64(layout.current_thread));
    let noted = python_calls::note_exception(thread, frame, caller, code_of(layout, frame), exception);
    if noted != 0 {
        python_calls::note_frame(thread, noted, object);
        // SAFETY: as above.
        unsafe { (*main).exceptions_noted = 1 };
    }
    if noted == 1 {
        // Now is the time, if it is not resolved yet: its frame is complete.
        python_resolve::resolve(thread, (identity >> 32) as u32, frame, 1);
    }
    0
}

/// Where calls are seen at witnesses: whether an exception may say something of one. It passes a frame of traced code, or has
/// passed one on this thread before.
#[inline(always)]
fn is_of_interest(identity: u64, process_slot: u32, layout: &PythonLayout, object: u64) -> bool {
    // SAFETY: a checked map value used by this thread alone.
    if THREADS.get_ptr(identity).is_some_and(|main| unsafe { (*main).exceptions_noted != 0 }) {
        return true;
    }
    let frame = if layout.style == FrameStyle::Heap as u32 { object } else { field(object, layout.frame_object_frame) };
    python_chain::may_be_wanted(process_slot, code_of(layout, frame))
}

/// The frame object that the exception which is being raised has passed last, 0 if there is none.
#[inline(always)]
pub fn came_from(layout: &PythonLayout, python_thread: u64) -> u64 {
    let holder =
        if layout.exception_is_type != 0 { python_thread } else { field(python_thread, layout.thread_exception) };
    field(field(holder, layout.exception_traceback), layout.traceback_frame)
}

/// A frame returns.
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
    let Some(main) = THREADS.get_ptr_mut(identity) else { return 0 };
    let Some(thread) = python_greenlets::stack_around(main, cookie.process_slot()) else { return 0 };
    // SAFETY: a checked map value used by this thread alone.
    if unsafe { (*thread).depth } == 0 || !is_hit(&context, cookie) {
        return 0;
    }
    leave(layout, thread, frame_at(&context, cookie, layout, read_u64(layout.current_thread)));
    0
}

#[inline(always)]
fn leave(layout: &PythonLayout, thread: *mut ThreadStack, frame: u64) {
    let code = code_of(layout, frame);
    if python_calls::end_inside(thread, frame, code, 0) != 0 {
        // SAFETY: a helper without arguments.
        endings::end_wide(thread, RecordEnding::Returned as u32, unsafe { bpf_ktime_get_ns() }, 0, 0);
    }
}
