//! What happens to followed processes: they fork, execute and end. User space is told, and the processes that they fork are
//! counted, so that it can tell how many it has not seen.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_ktime_get_ns},
    macros::{map, raw_tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::RawTracePointContext,
};
use tracer_common::{
    limits::MAX_FOLLOWED,
    records::{ProcessChange, ProcessRecord, RecordHeader, RecordKind},
};

use crate::maps::{NO_WAKEUP, RECORDS};

/// Followed processes and those that they have forked, by number: whether user space has taken notice of it.
#[map]
static FOLLOWED: HashMap<u32, u32> = HashMap::with_max_entries(MAX_FOLLOWED, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Forked processes that have ended, or for which there was no room, before user space took notice.
#[map]
static UNSEEN_FORKS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Where a task keeps its number; user space sets it before loading, from the kernel's type information.
#[unsafe(no_mangle)]
static TASK_NUMBER_OFFSET: u64 = 0;

/// `CLONE_THREAD` (include/uapi/linux/sched.h, Linux 6.18): a thread, no process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// A task is made: `TP_PROTO` in include/trace/events/task.h is the task and the flags of clone(2).
#[raw_tracepoint(tracepoint = "task_newtask")]
pub fn process_fork(context: RawTracePointContext) -> i32 {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let flags: u64 = context.arg(1);
    if flags & CLONE_THREAD != 0 || FOLLOWED.get_ptr(parent).is_none() {
        return 0;
    }
    let task: u64 = context.arg(0);
    // SAFETY: a static of this program; volatile because user space writes it before loading.
    let offset = unsafe { core::ptr::read_volatile(&raw const TASK_NUMBER_OFFSET) };
    // SAFETY: the helper checks the address; a bad one is an error, not a fault.
    let child = unsafe { bpf_probe_read_kernel((task + offset) as *const u32) };
    match child {
        Ok(child) if FOLLOWED.insert(child, 0_u32, 0).is_ok() => tell(child, ProcessChange::Forked, parent),
        _ => count(),
    }
    0
}

/// A process runs another program.
#[inline(always)]
pub fn process_executes(process: u32) {
    if FOLLOWED.get_ptr(process).is_some() {
        tell(process, ProcessChange::Executed, 0);
    }
}

/// A thread ends: if it is the first one of its process, that ends, or has nothing left to show.
#[inline(always)]
pub fn process_ends(key: u64) {
    let (process, thread) = ((key >> 32) as u32, key as u32);
    if process != thread {
        return;
    }
    let Some(is_noticed) = FOLLOWED.get_ptr(process) else { return };
    // SAFETY: a checked map value; volatile, because user space may write to it.
    if unsafe { core::ptr::read_volatile(is_noticed) } == 0 {
        count();
    }
    // Nothing can be done if user space has removed it meanwhile.
    let _ = FOLLOWED.remove(process);
    tell(process, ProcessChange::Ended, 0);
}

/// Tells user space. It learns of it anyway, only later, if the ring buffer is full.
#[inline(never)]
fn tell(process: u32, change: ProcessChange, parent: u32) {
    let Some(mut entry) = RECORDS.reserve::<ProcessRecord>(0) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved for this record.
    unsafe {
        (*record).header = RecordHeader::new(RecordKind::Process, size_of::<ProcessRecord>());
        (*record).process = process;
        (*record).change = change as u32;
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).parent = parent;
        (*record).reserved = 0;
    }
    entry.submit(NO_WAKEUP);
}

/// One more that was not seen. Preemption is off where a task is made or ends.
#[inline(always)]
fn count() {
    if let Some(unseen) = UNSEEN_FORKS.get_ptr_mut(0) {
        // SAFETY: a checked map value that belongs to this processor.
        unsafe { *unseen += 1 };
    }
}
