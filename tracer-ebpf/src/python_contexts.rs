//! The contexts (`contextvars.Context`) of a traced interpreter: which one a thread is in, and which ones are made and freed. User space
//! finds out from that for which request a call was made.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_ktime_get_ns},
    },
    macros::{map, uprobe},
    maps::{Array, PerCpuArray},
    programs::ProbeContext,
};
use tracer_common::{
    cookie::Cookie,
    counters::Counter,
    limits::MAX_PROCESSES,
    python::PythonLayout,
    records::{ContextRecord, ContextState, CurrentSpanRecord, HAS_LOST_SPAN, RecordHeader, RecordKind},
    thread_stack::ThreadStack,
};

use crate::{
    maps::{NO_WAKEUP, PROCESSES, PYTHON_LAYOUTS, RECORDS, count},
    own_stack::thread_pointer,
    python_current_span::tell_current_span,
    python_frame::{field, read_u32, read_u64},
    registers::{GENERAL_REGISTERS, general_register},
};

/// Records of contexts that were lost, by process slot.
#[map]
static CONTEXTS_LOST: Array<u64> = Array::with_max_entries(MAX_PROCESSES, 0);

/// The record of the span in which an answer begins. What it says of a call stays 0.
#[map]
static SPAN_OF_ANSWER: PerCpuArray<CurrentSpanRecord> = PerCpuArray::with_max_entries(1, 0);

/// Threads of an interpreter that are looked at in search of the current one.
const MOST_THREADS: u32 = 256;

/// A context has been made: it is in a register, which the cookie names.
#[uprobe]
pub fn python_context_made(context: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context pointer that the kernel handed to the program.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    let made = general_register(&context, cookie.place() & (GENERAL_REGISTERS - 1));
    let Some(layout) = PYTHON_LAYOUTS.get(cookie.process_slot()) else { return 0 };
    if made == 0 || layout.thread_context == 0 || !is_of(cookie.process_slot()) {
        return 0;
    }
    let current = if cookie.is_copy() { context_of(layout, read_u64(layout.current_thread)).1 } else { 0 };
    tell(cookie.process_slot(), made, current, 1);
    0
}

/// A context is about to be freed: it is the first argument.
#[uprobe]
pub fn python_context_freed(context: ProbeContext) -> u32 {
    // SAFETY: as above.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    // SAFETY: the program's context.
    let freed = unsafe { core::ptr::read_volatile(&raw const (*context.regs).rdi) };
    if is_of(cookie.process_slot()) {
        tell(cookie.process_slot(), freed, 0, 0);
    }
    0
}

/// Whether the process in this slot is the current one.
#[inline(always)]
fn is_of(process_slot: u32) -> bool {
    PROCESSES.get(process_slot).is_some_and(|slot| slot.process == (bpf_get_current_pid_tgid() >> 32) as u32)
}

#[inline(always)]
fn tell(process_slot: u32, context: u64, current: u64, is_made: u32) {
    let Some(lost) = CONTEXTS_LOST.get_ptr_mut(process_slot) else { return };
    let Some(mut entry) = RECORDS.reserve::<ContextRecord>(0) else {
        // SAFETY: a checked map value; whoever changes it holds the interpreter's lock.
        unsafe { *lost += 1 };
        count(Counter::LostContextRecords, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: a record of this size, and a checked map value.
    unsafe {
        (*record).header = RecordHeader::new(RecordKind::Context, size_of::<ContextRecord>());
        (*record).process = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*record).is_made = is_made;
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).context = context;
        (*record).current = current;
        (*record).lost = *lost;
    }
    entry.submit(NO_WAKEUP);
}

/// What is known of the context in which the current thread begins an answer, as a [`ContextState`], and its address, where it need not
/// hold the interpreter's lock. The span of an SDK that it is in is told.
#[inline(always)]
pub fn context_of_answer(process_slot: u32) -> (u32, u64) {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return (ContextState::NotRead as u32, 0) };
    let python_thread = current_python_thread(process_slot);
    let (state, context) = context_of(layout, python_thread);
    // Nothing else comes between on this processor: programs at tracepoints are not interrupted by others.
    let record = SPAN_OF_ANSWER.get_ptr_mut(0).unwrap_or(core::ptr::null_mut());
    let is_lost = tell_current_span(record, process_slot, python_thread) != 0;
    (if is_lost { state | HAS_LOST_SPAN } else { state }, context)
}

/// What is known of the context that a Python thread is in, likewise.
#[inline(always)]
fn context_of(layout: &PythonLayout, python_thread: u64) -> (u32, u64) {
    if layout.thread_context == 0 || python_thread == 0 {
        return (ContextState::NotRead as u32, 0);
    }
    let context = field(python_thread, layout.thread_context);
    let is_entered = context != 0 && read_u32(context + u64::from(layout.context_entered)) != 0;
    (if is_entered { ContextState::Entered as u32 } else { ContextState::NotEntered as u32 }, context)
}

/// The outermost call of a thread begins: the context that it is in is remembered, and the span of an SDK is told. A global function,
/// see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_context(thread: *mut ThreadStack, process_slot: u32, python_thread: u64) -> u64 {
    if thread.is_null() {
        return 0;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        let (state, context) = context_of(layout, python_thread);
        let record = &raw mut (*thread).current_span;
        (*record).thread_first_seen_ns = (*thread).first_seen_ns;
        (*record).call = (*thread).entries;
        let is_lost = tell_current_span(record, process_slot, python_thread) != 0;
        (*thread).context_state = if is_lost { state | HAS_LOST_SPAN } else { state };
        (*thread).context = context;
    }
    0
}

/// The `PyThreadState` of the current thread, whatever thread holds the interpreter's lock; 0 if it has none. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn current_python_thread(process_slot: u32) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let pointer = thread_pointer();
    if layout.threads == 0 || pointer == 0 {
        return 0;
    }
    let mut thread = read_u64(layout.threads);
    for _ in 0..MOST_THREADS {
        if thread == 0 {
            return 0;
        }
        if field(thread, layout.thread_pointer) == pointer {
            return thread;
        }
        thread = field(thread, layout.thread_next);
    }
    0
}
