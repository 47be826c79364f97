//! Python calls on the thread's stack: how one begins, and which are left when something else happens.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns};
use tracer_common::{
    limits::MAX_DEPTH,
    python::FrameStyle,
    records::RecordEnding,
    thread_stack::{Frame, FrameKind, ThreadStack},
};

use crate::{
    endings,
    maps::{self, PROCESSES, PYTHON_LAYOUTS, count_folded},
    own_stack, python_chain,
    python_contexts::note_context,
    python_frame::{code_of, current_frame, field},
    python_join, python_push, python_resolve, stack,
};

/// A watched function begins, as [`ThreadStack::entering`] says: it goes on the stack, pending, unless it is inside a
/// folded call. Its parts are called one after another and not one by another: a chain of calls may use 512 bytes of
/// stack, and fewer on older kernels, which round each part up.
#[inline(always)]
pub fn enter(thread: *mut ThreadStack) {
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        (*thread).entries += 1;
        end_left(thread, (*thread).entering.process_slot, (*thread).entering.stack_pointer);
        if is_folded_by_caller(thread, (*thread).entering.stack_pointer, (*thread).entering.process) == 0 {
            push(thread);
            if (*thread).depth == 1 {
                note_context(thread, (*thread).entering.process_slot, (*thread).python_thread);
            }
        } else {
            count_folded((*thread).entering.code, (*thread).entering.process);
        }
        (*thread).entering.frame = 0;
    }
}

/// Puts the call that begins onto the stack. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn push(thread: *mut ThreadStack) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let entering = &raw const (*thread).entering;
        let depth = (*thread).depth;
        if depth as usize >= MAX_DEPTH {
            (*thread).lost_stack_full += 1;
            return 0;
        }
        let mut parent_call = 0;
        let mut may_be_folded = false;
        if depth > 0 {
            let around = stack::frame(thread, depth - 1);
            parent_call = (*around).call;
            may_be_folded = (*around).nests == 0;
        }
        let frame = stack::frame(thread, depth);
        (*frame).stack_pointer = (*entering).frame;
        (*frame).function = (*entering).function;
        (*frame).nests = 0;
        (*frame).start_ns = bpf_ktime_get_ns();
        (*frame).call = (*thread).entries;
        (*frame).parent_call = parent_call;
        (*frame).folded_calls = 0;
        (*frame).folded_below = 0;
        (*frame).object = (*entering).object;
        (*frame).arguments_read = 0;
        (*frame).exception_frame = 0;
        (*frame).kind = FrameKind::PythonPending as u32;
        (*frame).folded_into = 0;
        (*frame).process_slot = (*entering).process_slot;
        (*frame).class = 0;
        (*frame).code = (*entering).code;
        (*frame).exception = 0;
        (*frame).receiver = (*entering).receiver;
        (*frame).receiver_offset = (*entering).receiver_offset;
        (*frame).call_instruction = (*entering).call_instruction;
        (*frame).by_caller = (*entering).by_caller;
        (*frame).found = 0;
        (*frame).python_epoch = epoch_of((*entering).process_slot);
        (*frame).start_uncertainty_ns = 0;
        (*frame).calls_merged = 0;
        (*thread).depth = depth + 1;
        if (*entering).of_container != 0 && !may_be_folded && (*entering).by_caller == 0 {
            python_join::container_waits(thread, frame, (*entering).process);
        }
    }
    0
}

/// 1 if the call that is about to begin is inside a folded one, which then has counted it. Resolves the innermost open
/// call. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_folded_by_caller(thread: *mut ThreadStack, stack_pointer: u64, process: u32) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        resolve_innermost(thread, process);
        let depth = (*thread).depth;
        if depth == 0 {
            return 0;
        }
        let around = stack::frame(thread, depth - 1);
        let mut credited = around;
        if (*around).kind == FrameKind::PythonFolded as u32 {
            credited = stack::frame(thread, (*around).folded_into);
        } else if (*around).folded_below == 0 || stack_pointer >= (*around).folded_below {
            (*around).folded_below = 0;
            return 0;
        }
        (*credited).folded_calls += 1;
        (*thread).folded += 1;
        1
    }
}

/// A native function begins inside a Python one: whether it is inside a folded call; if so, counts it.
#[inline(never)]
pub fn folds_native(thread: *mut ThreadStack, stack_pointer: u64) -> bool {
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return false;
        }
        end_left(thread, (*stack::frame(thread, depth - 1)).process_slot, stack_pointer + 1);
        is_folded_by_caller(thread, stack_pointer, (bpf_get_current_pid_tgid() >> 32) as u32) != 0
    }
}

/// A native function ends while a Python one is the innermost open call: if it is open, that one is over.
#[inline(never)]
pub fn end_inside_native(thread: *mut ThreadStack, stack_pointer: u64) {
    // SAFETY: as above.
    unsafe {
        let depth = (*thread).depth;
        let mut found = 0;
        for below in 1..=MAX_DEPTH as u32 {
            if below > depth {
                return;
            }
            let open = stack::frame(thread, depth - below);
            if (*open).kind == FrameKind::Native as u32 && (*open).stack_pointer == stack_pointer {
                found = below;
                break;
            }
        }
        if found > 1 {
            end_above(thread, found);
        }
    }
}

/// Ends the calls above the one that is `found` places below the top, counted from 1. 0 if the stack is empty. A global
/// function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_above(thread: *mut ThreadStack, found: u32) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let (before, now) = unsafe { ((*thread).depth, bpf_ktime_get_ns()) };
    resolve_left(thread);
    // SAFETY: as above.
    let removed = before.wrapping_sub(unsafe { (*thread).depth });
    for above in 1..MAX_DEPTH as u32 {
        if above + removed >= found {
            return 1;
        }
        // SAFETY: as above.
        if unsafe { (*thread).depth } == 0 {
            return 0;
        }
        end_left_call(thread, now);
    }
    1
}

/// Resolves the innermost open call, if it is Python and pending.
#[inline(always)]
fn resolve_innermost(thread: *mut ThreadStack, process: u32) {
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return;
        }
        let top = stack::frame(thread, depth - 1);
        if (*top).kind != FrameKind::PythonPending as u32 {
            return;
        }
        let mut own_frame = (*top).stack_pointer;
        if (*top).by_caller != 0 {
            own_frame = is_in_chain(thread, top, (*top).process_slot);
        }
        python_resolve::resolve(thread, process, own_frame, 0);
    }
}

/// Steps that are made along the chain of frames to find a call. A call that is further out is taken for open.
const MAX_STEPS: u32 = 128;

/// Calls that one event finds to have been left; the next event goes on.
const MAX_LEFT: u32 = 8;

/// Beyond [`MAX_STEPS`]: whether the frame is in the chain was not found out.
const TOO_FAR: u64 = 1;

/// The frame in the chain of a thread's frames that is `sought` or, with `by_caller`, that this frame has called and that
/// runs this code. A frame that is being popped is in no chain any more, but belongs to it: what its variables leave
/// behind may run code of its own. 0 if there is none, [`TOO_FAR`] if that could not be found out. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn in_chain(thread: *mut ThreadStack, process_slot: u32, sought: u64, code: u64, by_caller: u32) -> u64 {
    if thread.is_null() {
        return TOO_FAR;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return TOO_FAR };
    // SAFETY: a checked map value used by this thread alone.
    let (python_thread, pushed) = unsafe { ((*thread).python_thread, (*thread).entering.frame) };
    let (mut piece, mut size, mut inner) = (0, 0, 0);
    if by_caller == 0 && layout.style != FrameStyle::Heap as u32 {
        piece = field(python_thread, layout.thread_datastack_chunk);
        size = field(piece, layout.chunk_size);
        let there = code_of(layout, sought);
        if sought.wrapping_sub(piece) >= size {
            size = 0;
        } else if there == code || there == 0 {
            inner = if pushed == 0 { field(python_thread, layout.thread_datastack_top) } else { pushed };
        }
    }
    let mut frame = current_frame(layout, python_thread);
    for _ in 0..MAX_STEPS {
        if frame == 0 {
            return 0;
        }
        if frame.wrapping_sub(piece) < size {
            if frame < sought {
                // Frames further out are lower still.
                let is_between = sought < inner && sought >= python_push::end_of(process_slot, frame);
                return if is_between { sought } else { 0 };
            }
            inner = frame;
        }
        let previous = step(process_slot, frame, sought, code, by_caller);
        if previous == IS_SOUGHT {
            return frame;
        }
        frame = previous;
    }
    TOO_FAR
}

/// What [`step`] says of the frame that is sought.
const IS_SOUGHT: u64 = 1;

/// The frame that has called a frame, or [`IS_SOUGHT`] if this frame is the one that [`in_chain`] looks for. A global
/// function, see `endings::end_wide`: the loop around it would otherwise take the verifier longest of all.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn step(process_slot: u32, frame: u64, sought: u64, code: u64, by_caller: u32) -> u64 {
    if by_caller == 0 && frame == sought {
        return IS_SOUGHT;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let previous = field(frame, layout.frame_previous);
    if by_caller != 0 && previous == sought && code_of(layout, frame) == code {
        return IS_SOUGHT;
    }
    previous
}

/// The frame of an open call, as [`in_chain`] finds it.
///
/// # Safety
/// Both pointers must be checked.
#[inline(always)]
unsafe fn is_in_chain(thread: *mut ThreadStack, top: *mut Frame, process_slot: u32) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { in_chain(thread, process_slot, (*top).stack_pointer, (*top).code, (*top).by_caller) }
}

/// Ends every open call on top of the stack that control has left without our seeing it: native ones by the stack
/// pointer, Python ones because their frame is not in the chain of the thread's frames any more. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_left(thread: *mut ThreadStack, process_slot: u32, stack_pointer: u64) -> u64 {
    if thread.is_null() {
        return 0;
    }
    for _ in 0..MAX_LEFT {
        // SAFETY: `thread` is a checked map value used by this thread alone.
        unsafe {
            let depth = (*thread).depth;
            if depth == 0 {
                return 0;
            }
            let top = stack::frame(thread, depth - 1);
            let left = if (*top).kind == FrameKind::Native as u32 {
                (*top).stack_pointer < stack_pointer && own_stack::has(thread, stack_pointer)
            } else if sees_witnesses(process_slot) {
                // What is gone has ended at the witness that has just been passed. Of what was open when there were none for a while
                // nothing is known.
                (*top).python_epoch != epoch_of(process_slot)
            } else {
                is_in_chain(thread, top, process_slot) == 0
            };
            if !left {
                return 0;
            }
            if (*top).kind == FrameKind::PythonPending as u32 {
                // The next turn ends it, unless it was of an excluded class.
                resolve_left(thread);
                continue;
            }
            end_left_call(thread, bpf_ktime_get_ns());
        }
    }
    0
}

/// Whether an open call is one whose end is seen at witnesses only.
///
/// # Safety
/// `open` must be checked.
#[inline(always)]
pub unsafe fn is_seen_at_witnesses(open: *const Frame) -> bool {
    // SAFETY: promised by the caller.
    unsafe { (*open).kind != FrameKind::Native as u32 && sees_witnesses((*open).process_slot) }
}

/// Whether the calls of a process are seen at witnesses.
#[inline(always)]
fn sees_witnesses(process_slot: u32) -> bool {
    maps::chain_is_on() && PYTHON_LAYOUTS.get(process_slot).is_some_and(|layout| layout.witnesses != 0)
}

/// Times that Python probes of a process were taken away.
#[inline(always)]
pub fn epoch_of(process_slot: u32) -> u32 {
    PROCESSES.get(process_slot).map_or(0, |slot| slot.python_epoch)
}

/// Ends the innermost call, which control has left without our seeing it. That a Python call has failed is said only where
/// that is known: an exception was seen in it and, with every return seen, no return. Otherwise somebody keeps its frame, or
/// its probe is gone, or its thread has turned to another greenlet. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_left_call(thread: *mut ThreadStack, now: u64) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone; `frame` masks the index.
    unsafe {
        let top = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        if (*top).kind == FrameKind::Native as u32 {
            return endings::end_wide(thread, RecordEnding::Unwound as u32, now, 0, 0);
        }
        if sees_witnesses((*top).process_slot) && (*top).python_epoch == epoch_of((*top).process_slot) {
            let last = python_chain::last_witness(bpf_get_current_pid_tgid());
            (*thread).end_uncertainty_ns = now.saturating_sub(last);
            return endings::end_wide(thread, RecordEnding::Vanished as u32, now, 0, 0);
        }
        let exits_are_prompt =
            PYTHON_LAYOUTS.get((*top).process_slot).is_some_and(|layout| layout.exits_are_prompt != 0);
        let probes_stayed = (*top).python_epoch == epoch_of((*top).process_slot);
        if exits_are_prompt && probes_stayed && (*top).exception != 0 {
            return endings::end_wide(thread, RecordEnding::Unwound as u32, now, 0, (*top).exception);
        }
        endings::end_wide(thread, RecordEnding::Unobserved as u32, now, 0, 0)
    }
}

/// An exception arrives in a frame from another one, whose frame object stands first in its traceback: the call of that
/// frame has been left by it. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_passed(thread: *mut ThreadStack, object: u64) -> u64 {
    if thread.is_null() || object == 0 {
        return 0;
    }
    let found = passed(thread, object) as u32;
    if found == 0 || (found != 1 && end_above(thread, found) == 0) {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let top = stack::frame(thread, (*thread).depth.wrapping_sub(1));
        if (*thread).depth != 0 && (*top).exception_frame == object {
            endings::end_wide(thread, RecordEnding::Unwound as u32, bpf_ktime_get_ns(), 0, (*top).exception);
        }
    }
    0
}

/// How many places below the top, counted from 1, the call is that an exception was seen in, with this frame object, and
/// whose frame is not active any more. 0 if there is none. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn passed(thread: *mut ThreadStack, object: u64) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        for below in 1..=MAX_DEPTH as u32 {
            if below > depth {
                return 0;
            }
            let open = stack::frame(thread, depth - below);
            if (*open).kind != FrameKind::Native as u32 && (*open).exception != 0 && (*open).exception_frame == object {
                return if is_in_chain(thread, open, (*open).process_slot) == 0 { u64::from(below) } else { 0 };
            }
        }
    }
    0
}

/// Looks at the innermost call, which control has left, for the last time: its frame may still be what it was. Only the
/// innermost call can be pending, so that this is needed once however many are left.
#[inline(always)]
fn resolve_left(thread: *mut ThreadStack) {
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return;
        }
        let top = stack::frame(thread, depth - 1);
        if (*top).kind == FrameKind::PythonPending as u32 {
            let own_frame = if (*top).by_caller == 0 { (*top).stack_pointer } else { 0 };
            python_resolve::resolve(thread, (bpf_get_current_pid_tgid() >> 32) as u32, own_frame, 0);
        }
    }
}

/// Whether the innermost call has this frame and code, and no exception was seen in it.
#[inline(always)]
pub fn is_running(thread: *mut ThreadStack, frame: u64, code: u64) -> bool {
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        if depth == 0 {
            return false;
        }
        let top = stack::frame(thread, depth - 1);
        (*top).kind != FrameKind::Native as u32
            && (*top).stack_pointer == frame
            && (*top).code == code
            && (*top).exception == 0
    }
}

/// In place of a code: whatever code the frame runs.
pub const ANY_CODE: u64 = 0;

/// An exception passes through a frame: the open call of that frame remembers it. If the call is found left later, this is
/// what has left it. Its frame is given by its address and by that of its caller. Gives how many places below the top that call
/// is, counted from 1; 0 if there is none. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_exception(thread: *mut ThreadStack, frame: u64, caller: u64, code: u64, exception: u64) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        for below in 1..=MAX_DEPTH as u32 {
            if below > depth {
                return 0;
            }
            let open = stack::frame(thread, depth - below);
            let sought = if (*open).by_caller == 0 { frame } else { caller };
            if (*open).kind != FrameKind::Native as u32 && (*open).stack_pointer == sought && (*open).code == code {
                (*open).exception = exception;
                return u64::from(below);
            }
        }
    }
    0
}

/// Keeps the frame object that an exception has passed through with the call that is so many places below the top.
#[inline(always)]
pub fn note_frame(thread: *mut ThreadStack, below: u64, object: u64) {
    // SAFETY: a checked map value used by this thread alone; `frame` masks the index.
    unsafe { (*stack::frame(thread, (*thread).depth.wrapping_sub(below as u32))).exception_frame = object };
}

/// If the call of this frame is open, ends every call inside it, so that it is the innermost one. The frame is given by
/// the caller's where calls are told by that, with the calling instruction. 0 if it is not open. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_inside(thread: *mut ThreadStack, frame: u64, code: u64, call_instruction: u32) -> u64 {
    if thread.is_null() {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let depth = (*thread).depth;
        let mut found = 0;
        for below in 1..=MAX_DEPTH as u32 {
            if below > depth {
                return 0;
            }
            let open = stack::frame(thread, depth - below);
            if (*open).kind != FrameKind::Native as u32
                && (*open).stack_pointer == frame
                && (code == ANY_CODE || (*open).code == code)
                && (*open).call_instruction == call_instruction
            {
                found = below;
                break;
            }
        }
        u64::from(found == 1 || (found != 0 && end_above(thread, found) != 0))
    }
}
