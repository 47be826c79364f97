//! Calls that begin and end as the frames of a thread show it, see `python_chain`.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{
    chain::{Chain, WitnessWindow},
    counters::Counter,
    limits::MAX_DEPTH,
    python::{FrameStyle, NO_FUNCTION, PythonKey},
    records::RecordEnding,
    thread_stack::{FrameKind, ThreadStack},
};

use crate::{
    endings,
    maps::{PYTHON_CODES, PYTHON_FUNCTIONS, PYTHON_LAYOUTS, THREADS, chain_is_on, copy_of, count},
    python_calls,
    python_chain_sparse::{first_hit, note_witnessed},
    python_frame::{code_of, field, read_u32, reference},
    python_frames::{came_from, count_call},
    python_resolve,
    python_walk::{bound, known},
    python_watch::find_called,
    stack,
};

/// The call of a remembered frame has begun since the last witness, if its code is wanted; that of the frame which C code enters
/// begins now. Whether it is a span is settled at once: its frame is complete. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin(chain: *mut Chain, place: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        let Some(layout) = PYTHON_LAYOUTS.get((*chain).process_slot) else { return 0 };
        (*known(chain, place)).is_new = 0;
        let frame = (*known(chain, place)).frame;
        let code = PythonKey { address: code_of(layout, frame), process, reserved: 0 };
        let Some(rule) = copy_of(&PYTHON_CODES, &code) else { return 0 };
        if is_in_part_of_tree(chain) != 0 {
            return 0;
        }
        let Some(thread) = stack::of_current_thread((*chain).key) else {
            count_call(&code);
            count(Counter::Entries, 1);
            count(Counter::LostThreadTableFull, 1);
            return 0;
        };
        let entering = &raw mut (*thread).entering;
        (*entering).code = code.address;
        (*entering).process_slot = (*chain).process_slot;
        (*entering).object = 0;
        let (mut function, mut of_container) = (rule.only_function, rule.of_container);
        {
            let object = if layout.style == FrameStyle::Heap as u32 {
                // It stands on the value stack of the caller.
                let caller = field(frame, layout.frame_previous);
                let depth = read_u32(code_of(layout, caller) + u64::from(layout.code_stack_depth));
                find_called(thread, field(caller, layout.frame_value_stack), depth);
                (*entering).function_object
            } else {
                reference(layout, frame, layout.frame_function)
            };
            if let Some(rule) = copy_of(&PYTHON_FUNCTIONS, &PythonKey { address: object, process, reserved: 0 })
                && rule.code == code.address
            {
                if rule.function == NO_FUNCTION {
                    return 0;
                }
                (function, of_container) = (rule.function, rule.of_container);
            }
        }
        count_call(&code);
        if function == NO_FUNCTION {
            (*thread).entries += 1;
            (*thread).lost_unknown_function += 1;
            return 0;
        }
        (*thread).python_thread = (*chain).python_thread;
        if (*thread).root_chunk == 0 {
            (*thread).root_chunk = (*chain).root_chunk;
        }
        (*entering).frame = frame;
        (*entering).object = 0;
        (*entering).stack_pointer = (*chain).stack_pointer;
        (*entering).function = function;
        (*entering).of_container = of_container;
        (*entering).call_instruction = 0;
        (*entering).by_caller = 0;
        (*entering).process = process;
        (*entering).receiver = rule.receiver;
        (*entering).receiver_offset = rule.receiver_offset;
        python_calls::enter(thread);
        python_resolve::resolve(thread, process, frame, 1);
        let uncertainty_ns = if (*chain).entering == frame { 0 } else { (*chain).since_last_ns };
        note_call(chain, thread, place, uncertainty_ns);
    }
    0
}

/// Whether what begins now would be seen without what is around it, or begin a tree that is not seen to its end, where whole trees are
/// wanted. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_in_part_of_tree(chain: *mut Chain) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        if (*chain).window < WitnessWindow::OpenForWhole as u32 {
            return 0;
        }
        if (*chain).unseen != 0 || (*chain).window == WitnessWindow::OpenForWhole as u32 {
            return u64::from((*chain).unseen != 0);
        }
        let Some(thread) = THREADS.get_ptr_mut((*chain).key) else { return 1 };
        let depth = (*thread).depth;
        if depth == 0 {
            return 1;
        }
        let around = stack::frame(thread, depth - 1);
        let is_of_before = (*around).kind != FrameKind::Native as u32
            && (*around).python_epoch != python_calls::epoch_of((*chain).process_slot);
        u64::from(is_of_before)
    }
}

/// A frame is there whose beginning was not seen. Where whole trees are wanted, none of what begins inside a call of wanted code is
/// seen then. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_unseen(chain: *mut Chain, code: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        if (*chain).window < WitnessWindow::OpenForWhole as u32 || (*chain).unseen != 0 {
            return 0;
        }
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        if copy_of(&PYTHON_CODES, &PythonKey { address: code, process, reserved: 0 }).is_some() {
            (*chain).unseen = (*chain).length + 1;
        }
    }
    0
}

/// A call that has begun on the stack is remembered with its frame, and how exactly its beginning is known.
///
/// # Safety
/// Both pointers must be checked.
#[inline(always)]
unsafe fn note_call(chain: *mut Chain, thread: *mut ThreadStack, place: u32, uncertainty_ns: u64) {
    // SAFETY: promised by the caller.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return;
        }
        let top = stack::frame(thread, depth - 1);
        let call = (*thread).entries;
        // It may be part of the call around it, or of an excluded class.
        if (*top).call != call || (*top).kind == FrameKind::Native as u32 {
            return;
        }
        (*top).start_ns = (*chain).now_ns;
        (*top).start_uncertainty_ns = uncertainty_ns;
        (*top).first_hit = first_hit(chain);
        (*known(chain, place)).call = call;
    }
}

/// A call begins whose frame cannot be remembered: it is lost. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lose(chain: *mut Chain, code: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let code = PythonKey { address: code, process, reserved: 0 };
    // SAFETY: as above.
    if copy_of(&PYTHON_CODES, &code).is_none() || unsafe { (*chain).unseen } != 0 {
        return 0;
    }
    count_call(&code);
    // SAFETY: as above.
    if let Some(thread) = stack::of_current_thread(unsafe { (*chain).key }) {
        // SAFETY: as above.
        unsafe {
            (*thread).entries += 1;
            (*thread).lost_stack_full += 1;
        }
    }
    0
}

/// The frame of a call is gone, and with it all that ran inside. 0 if the call is not open. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_gone(chain: *mut Chain, call: u64, ending: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let Some(thread) = THREADS.get_ptr_mut((*chain).key) else { return 0 };
        (*thread).end_uncertainty_ns = (*chain).since_last_ns;
        let found = place_of(thread, call);
        if found == 0 {
            return 0;
        }
        for _ in 0..MAX_DEPTH {
            if bound(&raw const (*thread).depth) < found as u32 {
                break;
            }
            note_witnessed(chain, thread);
            end_one(thread, (*chain).now_ns, ending);
        }
        1
    }
}

/// An exception leaves the frame of a call, which is the innermost one: the call ends now, and what has not been seen to end inside
/// has been left before. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_by_exception(chain: *mut Chain, call: u64, exception: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let Some(thread) = THREADS.get_ptr_mut((*chain).key) else { return 0 };
        let found = place_of(thread, call);
        if found == 0 {
            return 0;
        }
        (*thread).end_uncertainty_ns = 0;
        for _ in 0..MAX_DEPTH {
            if bound(&raw const (*thread).depth) <= found as u32 {
                break;
            }
            end_one(thread, (*chain).now_ns, RecordEnding::Vanished as u32);
        }
        endings::end_wide(thread, RecordEnding::Unwound as u32, (*chain).now_ns, 0, exception)
    }
}

/// The place of a call on the stack, from 1 for the outermost one; 0 if it is not there. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn place_of(thread: *mut ThreadStack, call: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if thread.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        for below in 0..MAX_DEPTH as u32 {
            let depth = bound(&raw const (*thread).depth);
            if below >= depth {
                return 0;
            }
            if (*stack::frame(thread, depth - 1 - below)).call == call {
                return u64::from(depth - below);
            }
        }
    }
    0
}

/// Ends the innermost call, which is gone. That it has failed is said only where the exception that is being raised has passed
/// its frame last. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_one(thread: *mut ThreadStack, now: u64, ending: u32) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if thread.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let top = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        if (*top).kind == FrameKind::Native as u32 {
            return endings::end_wide(thread, RecordEnding::Unwound as u32, now, 0, 0);
        }
        if (*top).python_epoch != python_calls::epoch_of((*top).process_slot) {
            return endings::end_wide(thread, RecordEnding::Unobserved as u32, now, 0, 0);
        }
        if (*top).exception != 0
            && let Some(layout) = PYTHON_LAYOUTS.get((*top).process_slot)
            && (*top).exception_frame != 0
            && came_from(layout, (*thread).python_thread) == (*top).exception_frame
        {
            return endings::end_wide(thread, RecordEnding::Unwound as u32, now, 0, (*top).exception);
        }
        endings::end_wide(thread, ending, now, 0, 0)
    }
}

/// A call may be several. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mark_merged(chain: *mut Chain, call: u64) -> u64 {
    if !chain_is_on() {
        return 0;
    }
    if chain.is_null() {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        let Some(thread) = THREADS.get_ptr_mut((*chain).key) else { return 0 };
        let found = place_of(thread, call);
        if found != 0 {
            (*stack::frame(thread, found as u32 - 1)).calls_merged = 1;
        }
    }
    0
}
