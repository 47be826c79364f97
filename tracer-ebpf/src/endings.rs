//! The end of open calls: their records, and which calls are left when something else happens.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns};
use tracer_common::{
    limits::{MAX_ARGUMENTS, MAX_DEPTH},
    records::{CallRecord, Join, RecordEnding, RecordHeader, RecordKind, WideCallRecord},
    thread_stack::{Frame, FrameKind, ThreadStack},
};

use crate::{
    maps::{NO_WAKEUP, RECORDS},
    python_calls, python_join,
    stack::frame,
};

/// Ends the innermost open call: takes it off the stack and submits its record. The call must be native.
#[inline(always)]
pub fn end_innermost(stack: *mut ThreadStack, ending: u32, end_ns: u64, return_value: u64) {
    // SAFETY: `stack` is a map value that the verifier has checked; `index` is masked by `frame`.
    unsafe {
        let is_noted_root = (*stack).depth == 1 && (*stack).context_state != 0;
        if (*stack).join.parent_thread != 0 || is_noted_root {
            end_wide(stack, ending, end_ns, return_value, 0);
            return;
        }
        let index = (*stack).depth.wrapping_sub(1);
        (*stack).depth = index;
        (*stack).sequence += 1;
        let ended = frame(stack, index);
        let Some(mut entry) = RECORDS.reserve::<CallRecord>(0) else {
            (*stack).lost_ring_full += 1;
            return;
        };
        let record = entry.as_mut_ptr();
        fill(record, stack, ended, index);
        (*record).header = RecordHeader::new(RecordKind::Call, size_of::<CallRecord>());
        (*record).ending = ending;
        (*record).end_ns = end_ns;
        (*record).return_value = return_value;
        (*stack).spans += 1;
        entry.submit(NO_WAKEUP);
    }
}

/// Ends the innermost open call, Python or native, with a wide record. A folded call leaves no record.
///
/// A global function (external name, C calling convention, an integer returned): the verifier looks at it once, and
/// not again at every call. Its pointers may be null as far as the verifier knows.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_wide(
    stack: *mut ThreadStack,
    ending: u32,
    end_ns: u64,
    return_value: u64,
    exception: u64,
) -> u64 {
    if stack.is_null() {
        return 0;
    }
    // SAFETY: as in `end_innermost`.
    unsafe {
        let index = (*stack).depth.wrapping_sub(1);
        (*stack).depth = index;
        let ended = frame(stack, index);
        if (*ended).kind == FrameKind::PythonFolded as u32 {
            return 0;
        }
        (*stack).sequence += 1;
        if (*ended).found != 0 {
            python_join::forget_container(ended, (bpf_get_current_pid_tgid() >> 32) as u32);
        }
        let Some(mut entry) = RECORDS.reserve::<WideCallRecord>(0) else {
            (*stack).lost_ring_full += 1;
            return 0;
        };
        let record = entry.as_mut_ptr();
        let call = &raw mut (*record).call;
        fill(call, stack, ended, index);
        (*call).header = RecordHeader::of_wide_call();
        (*call).ending = ending;
        (*call).end_ns = end_ns;
        (*call).return_value = return_value;
        (*record).wide.class = (*ended).class;
        (*record).wide.exception = exception;
        (*record).wide.join = (*stack).join;
        let is_native = (*ended).kind == FrameKind::Native as u32;
        let is_vanished = ending == RecordEnding::Vanished as u32;
        (*record).wide.start_uncertainty_ns = if is_native { 0 } else { (*ended).start_uncertainty_ns };
        (*record).wide.end_uncertainty_ns = if is_vanished { (*stack).end_uncertainty_ns } else { 0 };
        (*record).wide.calls_merged = if is_native { 0 } else { (*ended).calls_merged };
        (*record).wide.context_state = if index == 0 { (*stack).context_state } else { 0 };
        (*record).wide.context = if index == 0 { (*stack).context } else { 0 };
        (*stack).spans += 1;
        entry.submit(NO_WAKEUP);
        if index == 0 {
            (*stack).join = Join::default();
        }
        0
    }
}

/// What both kinds of records say of a call.
///
/// # Safety
/// All pointers must be checked.
#[inline(always)]
unsafe fn fill(record: *mut CallRecord, stack: *mut ThreadStack, ended: *mut Frame, index: u32) {
    // SAFETY: promised by the caller.
    unsafe {
        fill_from_frame(record, ended);
        // At `execve` a thread has the number of the first one already.
        (*record).thread = (*stack).number;
        (*record).depth = index;
        (*record).thread_first_seen_ns = (*stack).first_seen_ns;
        (*record).sequence = (*stack).sequence;
        (*record).root_call = (*frame(stack, 0)).call;
    }
}

/// What every record says of a call and its frame knows.
///
/// # Safety
/// Both pointers must be checked.
#[inline(always)]
pub unsafe fn fill_from_frame(record: *mut CallRecord, ended: *const Frame) {
    // SAFETY: promised by the caller.
    unsafe {
        (*record).process = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*record).function = (*ended).function;
        (*record).arguments_read = (*ended).arguments_read;
        (*record).call = (*ended).call;
        (*record).parent_call = (*ended).parent_call;
        (*record).start_ns = (*ended).start_ns;
        (*record).stack_pointer = (*ended).stack_pointer;
        (*record).object = (*ended).object;
        (*record).folded_calls = (*ended).folded_calls;
        // Word by word: for an array the compiler would call `memcpy`, which copies byte by byte on this target.
        let (from, to) = (&raw const (*ended).arguments, &raw mut (*record).arguments);
        (*to)[0] = (*from)[0];
        (*to)[1] = (*from)[1];
        (*to)[2] = (*from)[2];
        (*to)[3] = (*from)[3];
    }
}

/// Ends every open native call above the innermost Python call whose frame is below `stack_pointer` (or at it, if
/// `inclusive`): control has left it without a return.
#[inline(always)]
pub fn end_left_frames(stack: *mut ThreadStack, stack_pointer: u64, inclusive: bool) {
    // SAFETY: as in `end_innermost`.
    unsafe {
        if !is_left(stack, stack_pointer, inclusive) {
            return;
        }
        end_frames_below(
            stack,
            if inclusive { stack_pointer } else { stack_pointer - 1 },
            RecordEnding::Unwound as u32,
            bpf_ktime_get_ns(),
        );
    }
}

/// # Safety
/// `stack` must be a checked map value.
#[inline(always)]
unsafe fn is_left(stack: *mut ThreadStack, stack_pointer: u64, inclusive: bool) -> bool {
    // SAFETY: promised by the caller.
    unsafe {
        let depth = (*stack).depth;
        if depth == 0 {
            return false;
        }
        let top = frame(stack, depth - 1);
        let innermost = (*top).stack_pointer;
        (*top).kind == FrameKind::Native as u32
            && (innermost < stack_pointer || (inclusive && innermost == stack_pointer))
    }
}

/// Ends the native calls on top of the stack whose frame is at or below `last`. Kept out of line: it seldom runs, and
/// the verifier then walks the loop once.
#[inline(never)]
pub fn end_frames_below(stack: *mut ThreadStack, last: u64, ending: u32, now: u64) {
    for _ in 0..MAX_DEPTH {
        // SAFETY: as in `end_innermost`.
        unsafe {
            let depth = (*stack).depth;
            if depth == 0 {
                return;
            }
            let top = frame(stack, depth - 1);
            if (*top).kind != FrameKind::Native as u32 || (*top).stack_pointer > last {
                return;
            }
        }
        end_left_native(stack, ending, now);
    }
}

/// Ends the innermost open call, which is native and has been left. A global function, see [`end_wide`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_left_native(stack: *mut ThreadStack, ending: u32, now: u64) -> u64 {
    if !stack.is_null() {
        end_innermost(stack, ending, now, 0);
    }
    0
}

/// Ends every open call.
#[inline(never)]
pub fn end_all(stack: *mut ThreadStack, ending: u32, now: u64) {
    for _ in 0..MAX_DEPTH {
        // SAFETY: as in `end_innermost`.
        unsafe {
            let depth = (*stack).depth;
            if depth == 0 {
                return;
            }
            // Whether it was still open was not seen.
            let is_open = !python_calls::is_seen_at_witnesses(frame(stack, depth - 1));
            end_wide(stack, if is_open { ending } else { RecordEnding::Unobserved as u32 }, now, 0, 0);
        }
    }
}

const _: () = assert!(MAX_ARGUMENTS == 4, "`fill_from_frame` copies four words");
