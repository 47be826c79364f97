//! The bounded stack of open calls of one thread.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_comm, bpf_ktime_get_ns},
};
use tracer_common::{
    limits::MAX_DEPTH,
    records::{RecordHeader, RecordKind, THREAD_NAME_BYTES, ThreadRecord},
    thread_stack::{Frame, ThreadStack},
};

use crate::{
    maps::{EMPTY_STACK, NO_WAKEUP, RECORDS, THREADS},
    own_stack,
};

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
        (*stack).first_seen_ns = bpf_ktime_get_ns();
        (*stack).number = key as u32;
    }
    own_stack::learn_own_stack(stack);
    tell_thread(stack);
    Some(stack)
}

/// Tells user space of a thread and its name. If the ring buffer is full the name is lost, and no call. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_thread(stack: *mut ThreadStack) -> u64 {
    if stack.is_null() {
        return 0;
    }
    let Some(mut entry) = RECORDS.reserve::<ThreadRecord>(0) else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: `stack` is a checked map value; the helper writes all bytes of the name, which is as long as it is told.
    unsafe {
        (*record).header = RecordHeader::new(RecordKind::Thread, size_of::<ThreadRecord>());
        (*record).process = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*record).thread = (*stack).number;
        (*record).first_seen_ns = (*stack).first_seen_ns;
        bpf_get_current_comm((&raw mut (*record).name).cast(), THREAD_NAME_BYTES as u32);
    }
    entry.submit(NO_WAKEUP);
    0
}

/// The open call at an index; the index is masked, so that the verifier sees it in range.
#[inline(always)]
pub fn frame(stack: *mut ThreadStack, index: u32) -> *mut Frame {
    // SAFETY: the mask keeps the element inside the array.
    unsafe { (&raw mut (*stack).frames).cast::<Frame>().add(index as usize & (MAX_DEPTH - 1)) }
}
