//! The maps and globals that the programs share with user space.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    chain::{ProbesPassed, WITNESS_PLACES},
    counters::Counter,
    limits::{MAX_FUNCTIONS, MAX_PROCESSES, MAX_PYTHON_FUNCTIONS, MAX_PYTHON_MEMBERS, MAX_THREADS, RING_BYTES},
    python::{
        OpenContainer, PythonClassRule, PythonCodeRule, PythonCount, PythonFunctionRule, PythonKey, PythonLayout,
        PythonPushSites, PythonWatched, WAITING_CONTAINERS, WaitingContainer,
    },
    tables::{CaptureSpec, ProcessSlot},
    thread_stack::ThreadStack,
};

/// Submit without waking user space: it polls, and a wake-up would cost the target more than the record.
pub const NO_WAKEUP: u64 = 1;

/// Records on their way to user space: finished calls above all.
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

/// Calls of each native function, by its number: what its probes cost, folded calls included.
#[map]
pub static CALLS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_FUNCTIONS, 0);

/// What is counted outside a thread's own stack, by [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Offsets of the interpreter of each process, by its slot.
#[map]
pub static PYTHON_LAYOUTS: Array<PythonLayout> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Where the interpreter of each process counts a reference when it pushes a heap frame, by slot; learned.
#[map]
pub static PYTHON_PUSH_SITES: Array<PythonPushSites> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Probes passed that a part or all of the Python calls of a process pass, by process slot.
#[map]
pub static PYTHON_PASSED: PerCpuArray<ProbesPassed> = PerCpuArray::with_max_entries(MAX_PROCESSES, 0);

/// Counts a probe that Python calls pass, at a place. No exact figure is promised.
#[inline(always)]
pub fn count_passed(process_slot: u32, place: u32) {
    if let Some(passed) = PYTHON_PASSED.get_ptr_mut(process_slot) {
        // SAFETY: a checked map value of this processor; the mask keeps the element inside the array.
        unsafe {
            let place = place as usize & (WITNESS_PLACES - 1);
            *(&raw mut (*passed).by_place).cast::<u64>().add(place) += 1;
        }
    }
}

/// The Python code whose calls are seen.
#[map]
pub static PYTHON_CODES: HashMap<PythonKey, PythonCodeRule> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// What is counted of each watched code.
#[map]
pub static PYTHON_COUNTS: HashMap<PythonKey, PythonCount> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// The code that is watched in a process, by its number.
#[map]
pub static PYTHON_WATCHED: HashMap<u32, PythonWatched> = HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// The function objects that run that code.
#[map]
pub static PYTHON_FUNCTIONS: HashMap<PythonKey, PythonFunctionRule> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// Classes of receivers.
#[map]
pub static PYTHON_CLASSES: HashMap<PythonKey, PythonClassRule> =
    HashMap::with_max_entries(MAX_PYTHON_FUNCTIONS, BPF_F_NO_PREALLOC);

/// The container that lists an object as its child.
#[map]
pub static PYTHON_MEMBERS: HashMap<PythonKey, u64> = HashMap::with_max_entries(MAX_PYTHON_MEMBERS, BPF_F_NO_PREALLOC);

/// Calls on containers that are open now, by the container.
#[map]
pub static OPEN_CONTAINERS: HashMap<PythonKey, OpenContainer> =
    HashMap::with_max_entries(MAX_PYTHON_MEMBERS, BPF_F_NO_PREALLOC);

/// Calls on containers that have just begun, near the number of their thread, masked.
#[map]
pub static WAITING: Array<WaitingContainer> = Array::with_max_entries(WAITING_CONTAINERS, 0);

/// A copy of a value that user space writes: once an element is replaced, the kernel uses its memory for another one at
/// once, so nothing is read through a pointer to it for longer than that.
#[inline(always)]
pub fn copy_of<Key, Value: Copy>(map: &HashMap<Key, Value>, key: &Key) -> Option<Value> {
    // SAFETY: a checked map value; volatile, so that it is copied here.
    map.get_ptr(key).map(|value| unsafe { core::ptr::read_volatile(value) })
}

/// Begins to count code of which nothing was counted yet. A full map costs the count, and nothing else.
#[inline(always)]
pub fn begin_count(code: &PythonKey, first: &PythonCount) {
    let _ = PYTHON_COUNTS.insert(code, first, 0);
    // User space takes the code away first and then its count: had it done both since this call's rule was read, the
    // element would stay for good.
    if PYTHON_CODES.get_ptr(code).is_none() {
        let _ = PYTHON_COUNTS.remove(code);
    }
}

/// Counts a call of Python code that makes no span of its own: code whose calls never do is not worth a watchpoint.
#[inline(always)]
pub fn count_folded(code: u64, process: u32) {
    if let Some(counted) = PYTHON_COUNTS.get_ptr_mut(&PythonKey { address: code, process, reserved: 0 }) {
        // SAFETY: a checked map value; whoever calls holds the interpreter's lock.
        unsafe { (*counted).folded += 1 };
    }
}

/// 1 to log each decision; set before loading, so that the verifier removes the code otherwise.
#[unsafe(no_mangle)]
static DEBUG_LOG: u8 = 0;

/// Whether decisions are logged.
#[inline(always)]
pub fn debug_log() -> bool {
    // SAFETY: a static of this program; volatile because user space writes it before loading.
    unsafe { core::ptr::read_volatile(&raw const DEBUG_LOG) != 0 }
}

/// 1 where calls of Python code may be seen at witnesses; set before loading, for the same reason.
#[unsafe(no_mangle)]
static PYTHON_CHAIN: u8 = 0;

/// Whether any process may have its Python calls seen at witnesses. Global functions ask for themselves: kernels before 6.8 verify
/// them whether anybody calls them or not.
#[inline(always)]
pub fn chain_is_on() -> bool {
    // SAFETY: as in `debug_log`.
    unsafe { core::ptr::read_volatile(&raw const PYTHON_CHAIN) != 0 }
}

/// Counts a call of a native function on this processor.
#[inline(always)]
pub fn count_call(function: u32) {
    if let Some(calls) = CALLS.get_ptr_mut(function) {
        // SAFETY: as in `count`; no exact figure is promised.
        unsafe { *calls += 1 };
    }
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
