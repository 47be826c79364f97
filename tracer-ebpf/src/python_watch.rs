//! A hardware watchpoint on the reference count of a code object: the count goes up when a frame of the code is pushed
//! and down when it is popped. Others take references too (tracebacks, profilers, `frame.f_code`), so the sign alone says
//! little: a call is paired by its frame.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    macros::perf_event,
    programs::PerfEventContext,
};
use tracer_common::{
    counters::Counter,
    limits::MAX_DEPTH,
    python::{FrameStyle, NO_FUNCTION, PythonCodeRule, PythonCount, PythonKey, PythonLayout},
    records::RecordEnding,
    thread_stack::{FrameKind, ThreadStack},
};

use crate::{
    endings,
    maps::{PROCESSES, PYTHON_CODES, PYTHON_COUNTS, PYTHON_FUNCTIONS, PYTHON_LAYOUTS, begin_count, copy_of, count},
    python_calls,
    python_frame::{code_of, current_frame, exception_of, field, read_u32, read_u64, reference},
    python_greenlets,
    python_push::{self, UNKNOWN_END},
    python_resolve, stack,
};

/// One hit, as the programs look at it. What is needed of it by others stands in [`ThreadStack::entering`].
struct Hit<'maps> {
    code: PythonKey,
    rule: PythonCodeRule,
    counted: *mut PythonCount,
    layout: &'maps PythonLayout,
    python_thread: u64,
    stack_pointer: u64,
    instruction: u64,
}

/// The reference count of a watched code object was written.
#[perf_event]
pub fn python_watch(context: PerfEventContext) -> u32 {
    let data = context.as_ptr().cast::<aya_ebpf::bindings::bpf_perf_event_data>();
    // SAFETY: the program's context; volatile, so that each load keeps its constant offset.
    let (address, stack_pointer, instruction) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*data).addr),
            core::ptr::read_volatile(&raw const (*data).regs.rsp),
            core::ptr::read_volatile(&raw const (*data).regs.rip),
        )
    };
    count_changed(address, stack_pointer, instruction);
    0
}

/// The reference count of the code object at an address may have changed: a call begins or ends, or somebody else took or
/// dropped a reference. The registers are those of the thread when it changed the count.
#[inline(always)]
pub fn count_changed(address: u64, stack_pointer: u64, instruction: u64) {
    let identity = bpf_get_current_pid_tgid();
    let code = PythonKey { address, process: (identity >> 32) as u32, reserved: 0 };
    let Some(rule) = copy_of(&PYTHON_CODES, &code) else { return };
    let Some((counted, delta)) = counted(&code) else { return };
    let Some(layout) = PYTHON_LAYOUTS.get(rule.process_slot) else { return };
    let python_thread = read_u64(layout.current_thread);
    if python_thread == 0 {
        return;
    }
    let thread = stack::of_current_thread(identity)
        .and_then(|main| python_greenlets::stack_of(main, layout, rule.process_slot, python_thread));
    let Some(thread) = thread else {
        if delta > 0 {
            count(Counter::Entries, 1);
            count(Counter::LostThreadTableFull, 1);
        }
        return;
    };
    let hit = Hit { code, rule, counted, layout, python_thread, stack_pointer, instruction };
    match (layout.style == FrameStyle::Heap as u32, delta > 0) {
        (false, true) => data_stack_entry(&hit, thread),
        (false, false) => data_stack_exit(&hit, thread),
        (true, true) => heap_entry(&hit, thread),
        (true, false) => heap_exit(&hit, thread),
    }
}

/// How the count has changed since it was last seen; `None` at the first sight of it, or if it has not.
#[inline(always)]
fn counted(code: &PythonKey) -> Option<(*mut PythonCount, i32)> {
    let now = read_u32(code.address);
    let Some(last) = PYTHON_COUNTS.get_ptr_mut(code) else {
        begin_count(code, &PythonCount { references: u64::from(now), calls: 0, folded: 0 });
        return None;
    };
    // SAFETY: a checked map value; whoever writes the count of a code object holds the interpreter's lock.
    let delta = unsafe {
        let delta = now.wrapping_sub((*last).references as u32) as i32;
        (*last).references = u64::from(now);
        delta
    };
    if delta == 0 { None } else { Some((last, delta)) }
}

/// The frame that is being pushed or popped: the topmost one on the data stack.
#[inline(always)]
fn topmost_frame(hit: &Hit<'_>) -> u64 {
    field(hit.python_thread, hit.layout.thread_datastack_top).wrapping_sub(u64::from(hit.rule.frame_bytes))
}

#[inline(always)]
fn data_stack_entry(hit: &Hit<'_>, thread: *mut ThreadStack) {
    let frame = topmost_frame(hit);
    let function = reference(hit.layout, frame, hit.layout.frame_function);
    let end = python_push::innermost_end(hit.rule.process_slot, hit.python_thread);
    // Somebody else's reference: the topmost frame is not one of this code, or no frame is being pushed.
    if field(function, hit.layout.object_type) != hit.layout.function_type
        || field(function, hit.layout.function_code) != hit.code.address
        || (end != UNKNOWN_END && frame < end)
    {
        return;
    }
    if hit.layout.exits_are_prompt != 0
        && (is_innermost(thread, frame, hit.code.address)
            || (code_of(hit.layout, frame) == hit.code.address
                && python_push::is_copied(hit.rule.process_slot, frame, hit.instruction) != 0))
    {
        // The frame is left while a traceback holds it: it is copied, and the copy takes a reference.
        return;
    }
    if end == UNKNOWN_END {
        // SAFETY: a checked map value used by this thread alone.
        unsafe {
            (*thread).entries += 1;
            (*thread).lost_unclear += 1;
        }
        return;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let entering = &raw mut (*thread).entering;
        (*entering).object = 0;
        (*entering).function_object = function;
        (*entering).call_instruction = 0;
        (*entering).by_caller = 0;
    }
    enter(hit, thread, frame);
}

#[inline(always)]
fn data_stack_exit(hit: &Hit<'_>, thread: *mut ThreadStack) {
    let frame = topmost_frame(hit);
    let end_of_innermost = python_push::innermost_end(hit.rule.process_slot, hit.python_thread);
    // Later versions take the code out of the frame before they drop the reference.
    let code = code_of(hit.layout, frame);
    if current_frame(hit.layout, hit.python_thread) == frame
        || (end_of_innermost != UNKNOWN_END && frame < end_of_innermost)
        || (code != 0 && code != hit.code.address)
        || python_calls::end_inside(thread, frame, hit.code.address, 0) == 0
    {
        return;
    }
    python_resolve::resolve(thread, hit.code.process, frame, 1);
    // It may have been of an excluded class.
    if is_innermost(thread, frame, hit.code.address) {
        let exception = exception_of(hit.layout, hit.python_thread);
        end(thread, exception);
    }
}

/// A frame on the heap is told from others by the caller's frame: its own address is not known yet when its code gets a
/// reference.
#[inline(always)]
fn heap_entry(hit: &Hit<'_>, thread: *mut ThreadStack) {
    let layout = hit.layout;
    let caller = current_frame(layout, hit.python_thread);
    if python_push::is_heap_push(hit.rule.process_slot, caller, hit.instruction) == 0 {
        return;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let entering = &raw mut (*thread).entering;
        (*entering).code = hit.code.address;
        (*entering).process_slot = hit.rule.process_slot;
        let depth = read_u32(code_of(layout, caller) + u64::from(layout.code_stack_depth));
        find_called(thread, field(caller, layout.frame_value_stack), depth);
        (*entering).call_instruction = read_u32(caller + u64::from(layout.frame_last_instruction));
        (*entering).by_caller = 1;
    }
    enter(hit, thread, caller);
}

#[inline(always)]
fn heap_exit(hit: &Hit<'_>, thread: *mut ThreadStack) {
    let caller = current_frame(hit.layout, hit.python_thread);
    let instruction = read_u32(caller + u64::from(hit.layout.frame_last_instruction));
    if python_calls::end_inside(thread, caller, hit.code.address, instruction) == 0 {
        return;
    }
    // Its own frame is cleared by now: what was not seen while it ran is not seen any more.
    python_resolve::resolve(thread, hit.code.process, 0, 0);
    if is_innermost(thread, caller, hit.code.address) {
        let exception = exception_of(hit.layout, hit.python_thread);
        end(thread, exception);
    }
}

/// Slots of the caller's value stack that are searched for the function that it calls.
const SEARCHED_SLOTS: usize = 16;

/// Finds the function object and the receiver on the value stack of a heap frame: the function followed by its receiver,
/// the function followed by a tuple of all arguments, or a bound method. 0 where nothing or more than one thing fits. A
/// global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_called(thread: *mut ThreadStack, bottom: u64, depth: u32) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let entering = &raw mut (*thread).entering;
        (*entering).function_object = 0;
        (*entering).object = 0;
        if bottom == 0 {
            return 0;
        }
        for index in 0..SEARCHED_SLOTS {
            // Beyond the stack is whatever stands beside the frame.
            if index as u32 >= depth {
                return 0;
            }
            let slot = bottom + 8 * index as u64;
            let found = called_in((*entering).process_slot, slot, (*entering).code, FUNCTION);
            if found == 0 {
                continue;
            }
            let object = called_in((*entering).process_slot, slot, (*entering).code, RECEIVER);
            let before = (*entering).function_object;
            (*entering).function_object = found;
            if before != 0 && (found != before || object != (*entering).object) {
                (*entering).object = 0;
                return 0;
            }
            (*entering).object = object;
        }
    }
    0
}

/// What is asked of a slot of the value stack.
const FUNCTION: u32 = 0;
const RECEIVER: u32 = 1;

/// The function object that runs this code, or its receiver, if the slot of a value stack holds it. A global function,
/// see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn called_in(process_slot: u32, slot: u64, code: u64, asked: u32) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let value = read_u64(slot);
    let bound = field(value, layout.method_function);
    let (function, next) = if field(value, layout.function_code) == code {
        (value, read_u64(slot + 8))
    } else if field(bound, layout.function_code) == code {
        // A bound method, or a `functools.partial`, which keeps its arguments where the other keeps its receiver.
        (bound, field(value, layout.method_function + 8))
    } else {
        return 0;
    };
    if asked == FUNCTION {
        return function;
    }
    let is_tuple = field(next, layout.object_type) == layout.tuple_type;
    if is_tuple { field(next, layout.tuple_items) } else { next }
}

/// A call begins, of this frame, or called by it; the function object, the receiver and the way of the call stand in
/// [`ThreadStack::entering`] already.
#[inline(always)]
fn enter(hit: &Hit<'_>, thread: *mut ThreadStack, frame: u64) {
    // SAFETY: a checked map value used by this thread alone.
    let entering = unsafe { &raw mut (*thread).entering };
    let (mut function, mut of_container) = (hit.rule.only_function, hit.rule.of_container);
    // SAFETY: as above.
    let object = unsafe { (*entering).function_object };
    if object != 0 {
        let key = PythonKey { address: object, process: hit.code.process, reserved: 0 };
        if let Some(rule) = copy_of(&PYTHON_FUNCTIONS, &key)
            && rule.code == hit.code.address
        {
            if rule.function == NO_FUNCTION {
                return;
            }
            (function, of_container) = (rule.function, rule.of_container);
        }
    }
    // SAFETY: a checked map value; whoever calls holds the interpreter's lock.
    unsafe { (*hit.counted).calls += 1 };
    let Some(slot) = PROCESSES.get(hit.rule.process_slot) else { return };
    if slot.process != hit.code.process || slot.accepts_entries == 0 {
        return;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        if function == NO_FUNCTION {
            (*thread).entries += 1;
            (*thread).lost_unknown_function += 1;
            return;
        }
        (*entering).frame = frame;
        (*entering).code = hit.code.address;
        (*entering).stack_pointer = hit.stack_pointer;
        (*entering).function = function;
        (*entering).of_container = of_container;
        (*entering).process = hit.code.process;
        (*entering).process_slot = hit.rule.process_slot;
        (*entering).receiver = hit.rule.receiver;
        (*entering).receiver_offset = hit.rule.receiver_offset;
    }
    python_calls::enter(thread);
}

/// Ends the innermost call, which is Python.
#[inline(always)]
fn end(thread: *mut ThreadStack, exception: u64) {
    let ending = if exception == 0 { RecordEnding::Returned } else { RecordEnding::Raised };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    endings::end_wide(thread, ending as u32, now, 0, exception);
}

#[inline(always)]
fn is_innermost(thread: *mut ThreadStack, frame: u64, code: u64) -> bool {
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 || depth as usize > MAX_DEPTH {
            return false;
        }
        let top = stack::frame(thread, depth - 1);
        (*top).kind != FrameKind::Native as u32 && (*top).stack_pointer == frame && (*top).code == code
    }
}
