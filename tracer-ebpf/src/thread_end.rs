//! The end of a thread or of its program: open calls are closed and its counts kept.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use tracer_common::{
    counters::Counter,
    limits::{MAX_GREENLETS, THREAD_KEY_BITS},
    records::RecordEnding,
};

use crate::{
    endings, forks,
    maps::{self, THREADS, count},
    python_chain, python_greenlets, socket_calls,
};

/// A thread ends.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn thread_exit(_context: RawTracePointContext) -> i32 {
    let key = bpf_get_current_pid_tgid();
    forget(key);
    socket_calls::forget(key);
    forks::process_ends(key);
    0
}

/// A process executes another program. The thread that called `execve` takes over the number of the first thread; its
/// own number arrives as the second argument (`TP_PROTO` in include/trace/events/sched.h, Linux 6.18).
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn program_exec(context: RawTracePointContext) -> i32 {
    let former_thread: i32 = context.arg(1);
    let process = bpf_get_current_pid_tgid() >> 32;
    forget(process << 32 | u64::from(former_thread as u32));
    forks::process_executes(process as u32);
    0
}

/// Forgets a thread, with all its greenlets.
#[inline(always)]
fn forget(key: u64) {
    let Some(main) = THREADS.get_ptr_mut(key) else {
        // It may have run Python code without a traced call.
        if maps::chain_is_on() {
            python_chain::forget(key);
        }
        return;
    };
    for index in 0..MAX_GREENLETS {
        // SAFETY: a checked map value, whose thread is running this program.
        if unsafe { *python_greenlets::greenlet(main, index) } == 0 {
            break;
        }
        forget_stack(key | (index as u64 + 1) << THREAD_KEY_BITS);
    }
    forget_stack(key);
}

/// Ends what is open on a stack and keeps its counts. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forget_stack(key: u64) -> u64 {
    let Some(thread) = THREADS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a helper without arguments; `thread` is a checked map value, and its thread is running this program.
    unsafe {
        let now = bpf_ktime_get_ns();
        endings::end_all(thread, RecordEnding::ThreadEnded as u32, now);
        count(Counter::Entries, (*thread).entries - (*thread).excluded);
        count(Counter::Spans, (*thread).spans);
        count(Counter::Folded, (*thread).folded);
        count(Counter::LostRingFull, (*thread).lost_ring_full);
        count(Counter::LostStackFull, (*thread).lost_stack_full);
        count(Counter::ReturnsWithoutEntry, (*thread).returns_without_entry);
        count(Counter::LostUnknownFunction, (*thread).lost_unknown_function);
        count(Counter::LostUnclear, (*thread).lost_unclear);
        count(Counter::LostOtherStacksFull, (*thread).lost_other_stacks_full);
    }
    if maps::chain_is_on() {
        python_chain::forget(key);
    }
    // The next thread with this number must not find these calls. Nothing can be done if the element is gone already.
    let _ = THREADS.remove(key);
    0
}
