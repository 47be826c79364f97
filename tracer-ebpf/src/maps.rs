//! The maps and globals that the programs share with user space.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    counters::Counter,
    limits::{MAX_FUNCTIONS, MAX_PROCESSES, MAX_THREADS, RING_BYTES},
    records::{CaptureSpec, ProcessSlot, ThreadStack},
};

/// Finished calls, on their way to user space.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// The stack of open calls of each thread, by the value of `bpf_get_current_pid_tgid`.
#[map]
pub static THREADS: HashMap<u64, ThreadStack> = HashMap::with_max_entries(MAX_THREADS, BPF_F_NO_PREALLOC);

/// An empty stack to start a thread with: it is too large for the program's own stack.
#[map]
pub static EMPTY_STACK: Array<ThreadStack> = Array::with_max_entries(1, 0);

/// The traced processes, by the slot in the cookie.
#[map]
pub static PROCESSES: Array<ProcessSlot> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Which arguments to capture, by function number.
#[map]
pub static CAPTURES: Array<CaptureSpec> = Array::with_max_entries(MAX_FUNCTIONS, 0);

/// What is counted outside a thread's own stack, by [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// 1 to log each decision; set before loading, so that the verifier removes the code otherwise.
#[unsafe(no_mangle)]
static DEBUG_LOG: u8 = 0;

/// Whether decisions are logged.
#[inline(always)]
pub fn debug_log() -> bool {
    // SAFETY: a static of this program; volatile because user space writes it before loading.
    unsafe { core::ptr::read_volatile(&raw const DEBUG_LOG) != 0 }
}

/// Adds to a counter of this processor. Not atomic: called where preemption is off (end of a thread) or where no exact
/// figure is promised.
#[inline(always)]
pub fn count(counter: Counter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the verifier has checked the pointer for null; the slot belongs to this processor.
        unsafe { *slot += amount };
    }
}
