//! The bounded stack of open calls of one thread, and the record of a call that has ended.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns};
use tracer_common::{
    limits::MAX_DEPTH,
    records::{
        CallRecord, Frame, FrameKind, Join, RecordEnding, RecordHeader, RecordKind, ThreadStack, WideCallRecord,
    },
};

use crate::{
    maps::{EMPTY_STACK, RECORDS, THREADS},
    own_stack, python_join,
};

/// Submit without waking user space: it polls, and a wake-up would cost the target more than the record.
pub const NO_WAKEUP: u64 = 1;

/// The stack of the current thread, made if this is its first traced call. `None` if the table is full.
#[inline(always)]
pub fn of_current_thread(key: u64) -> Option<*mut ThreadStack> {
    if let Some(stack) = THREADS.get_ptr_mut(key) {
        return Some(stack);
    }
    create(key)
}

#[inline(never)]
fn create(key: u64) -> Option<*mut ThreadStack> {
    let empty = EMPTY_STACK.get(0)?;
    THREADS.insert(key, empty, 0).ok()?;
    let stack = THREADS.get_ptr_mut(key)?;
    // SAFETY: checked for null by the verifier; only the current thread uses its own stack.
    unsafe {
        (*stack).incarnation = bpf_ktime_get_ns();
        (*stack).number = key as u32;
    }
    own_stack::learn_own_stack(stack);
    Some(stack)
}

/// The open call at an index; the index is masked, so that the verifier sees it in range.
#[inline(always)]
pub fn frame(stack: *mut ThreadStack, index: u32) -> *mut Frame {
    // SAFETY: the mask keeps the element inside the array.
    unsafe { (&raw mut (*stack).frames).cast::<Frame>().add(index as usize & (MAX_DEPTH - 1)) }
}

/// Ends the innermost open call: takes it off the stack and submits its record. The call must be native.
#[inline(always)]
pub fn end_innermost(stack: *mut ThreadStack, ending: u32, end_ns: u64, return_value: u64) {
    // SAFETY: `stack` is a map value that the verifier has checked; `index` is masked by `frame`.
    unsafe {
        if (*stack).join.parent_thread != 0 {
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
        (*record).header = RecordHeader { kind: RecordKind::Call as u32, size: CallRecord::SIZE as u32 };
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
        (*call).header = RecordHeader { kind: RecordKind::WideCall as u32, size: WideCallRecord::SIZE as u32 };
        (*call).ending = ending;
        (*call).end_ns = end_ns;
        (*call).return_value = return_value;
        (*record).class = (*ended).class;
        (*record).exception = exception;
        (*record).join = (*stack).join;
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
        (*record).process = (bpf_get_current_pid_tgid() >> 32) as u32;
        // At `execve` a thread has the number of the first one already.
        (*record).thread = (*stack).number;
        (*record).function = (*ended).function;
        (*record).depth = index;
        (*record).arguments_read = (*ended).arguments_read;
        (*record).incarnation = (*stack).incarnation;
        (*record).sequence = (*stack).sequence;
        (*record).call = (*ended).call;
        (*record).parent_call = (*ended).parent_call;
        (*record).root_call = (*frame(stack, 0)).call;
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
        if unsafe { (*stack).depth } == 0 {
            return;
        }
        end_wide(stack, ending, now, 0, 0);
    }
}

const _: () = assert!(tracer_common::limits::MAX_ARGUMENTS == 4, "`end_innermost` copies four words");
