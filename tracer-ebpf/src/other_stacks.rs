//! Calls on other stacks than their thread's own: fibers, signal handlers on an alternate stack. What is around such a call
//! cannot be told from stack pointers, and it may end on another thread. So each is kept by itself, found again by its
//! function and stack pointer when it returns, and is a root.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, pt_regs},
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap},
};
use tracer_common::{
    cookie::Cookie,
    limits::MAX_OTHER_STACK_CALLS,
    records::{CallRecord, RecordEnding, RecordHeader, RecordKind},
    thread_stack::{OtherStackCall, OtherStackKey, ThreadStack},
};

use crate::{
    arguments,
    endings::fill_from_frame,
    maps::{NO_WAKEUP, RECORDS},
};

/// The open calls on other stacks.
#[map]
static OTHER_STACK_CALLS: HashMap<OtherStackKey, OtherStackCall> =
    HashMap::with_max_entries(MAX_OTHER_STACK_CALLS, BPF_F_NO_PREALLOC);

/// An empty value to begin with: it is large for the program's own stack.
#[map]
static EMPTY_OTHER_STACK_CALL: Array<OtherStackCall> = Array::with_max_entries(1, 0);

/// A call begins on another stack than its thread's own; it is counted as an entry already. Kept out of line: few
/// programs have such calls.
#[inline(never)]
pub fn enter(registers: *mut pt_regs, cookie: u64, thread: *mut ThreadStack, key: &OtherStackKey) {
    if let Some(before) = OTHER_STACK_CALLS.get_ptr_mut(key) {
        // What began at the same place before has been left, and nobody saw how: by an exception, or its stack was given
        // up while it waited.
        end_other(thread, before, RecordEnding::Unobserved as u32, 0);
    } else {
        let inserted =
            EMPTY_OTHER_STACK_CALL.get(0).is_some_and(|empty| OTHER_STACK_CALLS.insert(key, empty, 0).is_ok());
        if !inserted {
            // SAFETY: `thread` is a checked map value used by this thread alone.
            unsafe { (*thread).lost_other_stacks_full += 1 };
            return;
        }
    }
    let Some(call) = OTHER_STACK_CALLS.get_ptr_mut(key) else { return };
    // SAFETY: as above; `call` is a checked map value, and no other thread runs on this stack.
    unsafe {
        (*call).first_seen_ns = (*thread).first_seen_ns;
        (*call).thread = (*thread).number;
        let frame = &raw mut (*call).frame;
        (*frame).stack_pointer = key.stack_pointer;
        (*frame).function = key.function;
        (*frame).start_ns = bpf_ktime_get_ns();
        (*frame).call = (*thread).entries;
        (*frame).object = arguments::object_of(registers, Cookie(cookie));
        (*frame).arguments_read = 0;
        if Cookie(cookie).captures() {
            arguments::capture(registers, cookie, frame);
        }
    }
}

/// A function returns on another stack than its thread's own.
#[inline(never)]
pub fn leave(thread: *mut ThreadStack, key: &OtherStackKey, ending: u32, returned: u64) {
    let Some(call) = OTHER_STACK_CALLS.get_ptr_mut(key) else {
        // SAFETY: `thread` is a checked map value used by this thread alone.
        unsafe { (*thread).returns_without_entry += 1 };
        return;
    };
    end_other(thread, call, ending, returned);
    // Nothing can be done if it is gone.
    let _ = OTHER_STACK_CALLS.remove(key);
}

/// Submits the record of a call. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_other(thread: *mut ThreadStack, call: *mut OtherStackCall, ending: u32, returned: u64) -> u64 {
    if thread.is_null() || call.is_null() {
        return 0;
    }
    // SAFETY: as in `enter`.
    unsafe {
        let Some(mut entry) = RECORDS.reserve::<CallRecord>(0) else {
            (*thread).lost_ring_full += 1;
            return 0;
        };
        let record = entry.as_mut_ptr();
        let frame = &raw const (*call).frame;
        (*record).header = RecordHeader::new(RecordKind::Call, size_of::<CallRecord>());
        fill_from_frame(record, frame);
        (*record).thread = (*call).thread;
        (*record).ending = ending;
        (*record).depth = 0;
        (*record).thread_first_seen_ns = (*call).first_seen_ns;
        // It has no place among the records of its thread.
        (*record).sequence = 0;
        (*record).root_call = (*frame).call;
        (*record).end_ns = bpf_ktime_get_ns();
        (*record).return_value = returned;
        (*thread).spans += 1;
        entry.submit(NO_WAKEUP);
    }
    0
}
