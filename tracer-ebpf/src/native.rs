//! Entry and exit of a native function. The clock is the dearest of the helpers, so it is read only where a time is
//! kept: folded calls do without.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_ktime_get_ns},
    },
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use aya_log_ebpf::debug;
use tracer_common::{
    chain::WitnessWindow,
    cookie::{Cookie, jump_is_taken},
    counters::Counter,
    limits::MAX_DEPTH,
    records::{ContextState, RecordEnding},
    thread_stack::{FrameKind, OtherStackKey, ThreadStack},
};

use crate::{
    arguments::{capture, object_of},
    endings,
    maps::{self, PROCESSES, count, count_call, debug_log},
    other_stacks, own_stack, python_calls, python_chain,
    python_contexts::{current_python_thread, note_context},
    python_greenlets, stack,
};

/// A traced function begins.
#[uprobe]
pub fn native_entry(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let identity = bpf_get_current_pid_tgid();
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return 0 };
    if slot.process != (identity >> 32) as u32 || slot.accepts_entries == 0 {
        return 0;
    }
    if maps::chain_is_on() && slot.witness_window != WitnessWindow::Closed as u32 {
        // SAFETY: the program's context.
        let stack_pointer = unsafe { (*context.regs).rsp };
        python_chain::witness(identity, cookie.process_slot(), 0, stack_pointer);
    }
    let thread =
        stack::of_current_thread(identity).and_then(|main| python_greenlets::stack_around(main, cookie.process_slot()));
    let Some(thread) = thread else {
        count(Counter::Entries, 1);
        count(Counter::LostThreadTableFull, 1);
        return 0;
    };
    enter(&context, cookie, thread, slot.notes_contexts != 0);
    0
}

#[inline(always)]
fn enter(context: &ProbeContext, cookie: Cookie, thread: *mut ThreadStack, notes_contexts: bool) {
    let registers = context.regs;
    // SAFETY: `registers` is the program's context, `thread` a checked map value used by this thread alone.
    unsafe {
        let stack_pointer = (*registers).rsp + cookie.stack_delta();
        (*thread).entries += 1;
        count_call(cookie.function());
        if !own_stack::has(thread, stack_pointer) {
            other_stacks::enter(registers, cookie.0, thread, &key_of(cookie, stack_pointer));
            return;
        }
        endings::end_left_frames(thread, stack_pointer, true);
        let object = object_of(registers, cookie);
        if is_inside_python(thread) && python_calls::folds_native(thread, stack_pointer) {
            return;
        }
        let depth = (*thread).depth;
        let mut parent_call = 0;
        if depth > 0 {
            parent_call = (*stack::frame(thread, depth - 1)).call;
        } else {
            (*thread).context_state = ContextState::NotRead as u32;
            if notes_contexts {
                note_context(thread, cookie.process_slot(), current_python_thread(cookie.process_slot()));
            }
        }
        if depth > 0 && folds_into_caller(thread, depth, stack_pointer, object) {
            (*thread).folded += 1;
            if debug_log() {
                debug!(context, "folded function {} depth {}", cookie.function(), depth);
            }
            return;
        }
        if depth as usize >= MAX_DEPTH {
            (*thread).lost_stack_full += 1;
            return;
        }
        let frame = stack::frame(thread, depth);
        (*frame).stack_pointer = stack_pointer;
        (*frame).function = cookie.function();
        (*frame).nests = u32::from(cookie.nests());
        (*frame).start_ns = bpf_ktime_get_ns();
        (*frame).call = (*thread).entries;
        (*frame).parent_call = parent_call;
        (*frame).folded_calls = 0;
        (*frame).folded_below = 0;
        (*frame).object = object;
        (*frame).arguments_read = 0;
        (*frame).kind = FrameKind::Native as u32;
        (*frame).class = 0;
        (*frame).found = 0;
        if cookie.captures() {
            capture(registers, cookie.0, frame);
        }
        (*thread).depth = depth + 1;
        if debug_log() {
            debug!(context, "entered function {} depth {} sp {:x}", cookie.function(), depth, stack_pointer);
        }
    }
}

/// What a call on another stack than its thread's own is found by.
#[inline(always)]
fn key_of(cookie: Cookie, stack_pointer: u64) -> OtherStackKey {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    OtherStackKey { stack_pointer, function: cookie.function(), process }
}

/// Whether the innermost open call is a Python one.
///
/// # Safety
/// `thread` must be a checked map value.
#[inline(always)]
unsafe fn is_inside_python(thread: *mut ThreadStack) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let depth = (*thread).depth;
        depth > 0 && (*stack::frame(thread, depth - 1)).kind != FrameKind::Native as u32
    }
}

/// Whether the recursion map makes this call part of the innermost open one; if so, counts it there.
///
/// # Safety
/// `thread` must be a checked map value with `depth` > 0 open calls.
#[inline(always)]
unsafe fn folds_into_caller(thread: *mut ThreadStack, depth: u32, stack_pointer: u64, object: u64) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let caller = stack::frame(thread, depth - 1);
        let inside_folded = (*caller).folded_below != 0 && stack_pointer < (*caller).folded_below;
        if !inside_folded {
            (*caller).folded_below = 0;
            let same_object = object != 0 && object == (*caller).object;
            if (*caller).nests != 0 || same_object {
                return false;
            }
            (*caller).folded_below = stack_pointer;
        }
        (*caller).folded_calls += 1;
        true
    }
}

/// A traced function is left at one of its own instructions.
#[uprobe]
pub fn native_exit(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let registers = context.regs;
    // SAFETY: `registers` is the program's context.
    let (stack_pointer, flags, returned) = unsafe { ((*registers).rsp, (*registers).eflags, (*registers).rax) };
    if cookie.is_conditional() && !jump_is_taken(cookie.condition(), flags) {
        return 0;
    }
    leave(&context, cookie, stack_pointer, returned);
    0
}

/// A traced function has returned through the kernel's trampoline.
#[uretprobe]
pub fn native_return(context: RetProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let registers = context.regs;
    // SAFETY: `registers` is the program's context. The return has popped the return address.
    let (stack_pointer, returned) = unsafe { ((*registers).rsp - 8, (*registers).rax) };
    leave(&context, cookie, stack_pointer, returned);
    0
}

#[inline(always)]
fn leave(context: &impl EbpfContext, cookie: Cookie, stack_pointer: u64, returned: u64) {
    let identity = bpf_get_current_pid_tgid();
    let Some(slot) = PROCESSES.get(cookie.process_slot()) else { return };
    if slot.process != (identity >> 32) as u32 {
        return;
    }
    let ending = if cookie.is_jump() { RecordEnding::Jumped } else { RecordEnding::Returned } as u32;
    // A call on another stack may end on a thread that has begun none.
    let thread =
        stack::of_current_thread(identity).and_then(|main| python_greenlets::stack_around(main, cookie.process_slot()));
    let Some(thread) = thread else {
        count(Counter::ReturnsWithoutEntry, 1);
        return;
    };
    // SAFETY: a helper without arguments; `thread` is a checked map value used by this thread alone.
    unsafe {
        if !own_stack::has(thread, stack_pointer) {
            other_stacks::leave(thread, &key_of(cookie, stack_pointer), ending, returned);
            return;
        }
        endings::end_left_frames(thread, stack_pointer, false);
        if is_inside_python(thread) {
            python_calls::end_inside_native(thread, stack_pointer);
        }
        let depth = (*thread).depth;
        if depth == 0 {
            (*thread).returns_without_entry += 1;
            return;
        }
        let innermost = stack::frame(thread, depth - 1);
        if (*innermost).stack_pointer == stack_pointer && (*innermost).function == cookie.function() {
            if debug_log() {
                debug!(context, "left function {} depth {}", cookie.function(), depth - 1);
            }
            endings::end_innermost(thread, ending, bpf_ktime_get_ns(), returned);
        } else if (*innermost).folded_below == stack_pointer {
            (*innermost).folded_below = 0;
        }
    }
}
