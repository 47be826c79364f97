//! Calls on other threads that belong to an open call: steps of a container that are run by a thread pool.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{
    python::{OpenContainer, PythonKey, WAITING_CONTAINERS, WaitingContainer},
    records::Join,
    thread_stack::{FOUND_OPEN, FOUND_SLOT_SHIFT, FOUND_WAITING, Frame, ThreadStack},
};

use crate::{
    maps::{OPEN_CONTAINERS, PYTHON_LAYOUTS, PYTHON_MEMBERS, WAITING, copy_of},
    python_frame::{code_of, receiver_of},
    stack,
};

/// Says where calls of other threads hang that are part of an open call of this thread. Written where it is kept: the
/// programs' own stack is small.
///
/// # Safety
/// `thread`, `frame` and `join` must be checked.
#[inline(always)]
unsafe fn join_below(thread: *mut ThreadStack, frame: *mut Frame, join: *mut Join) {
    // SAFETY: promised by the caller.
    unsafe {
        let number = bpf_get_current_pid_tgid() as u32;
        (*join).parent_thread = number;
        (*join).parent_first_seen_ns = (*thread).first_seen_ns;
        (*join).parent_call = (*frame).call;
        if (*thread).join.parent_thread != 0 {
            (*join).trace_thread = (*thread).join.trace_thread;
            (*join).trace_first_seen_ns = (*thread).join.trace_first_seen_ns;
            (*join).trace_call = (*thread).join.trace_call;
        } else {
            (*join).trace_thread = number;
            (*join).trace_first_seen_ns = (*thread).first_seen_ns;
            (*join).trace_call = (*stack::frame(thread, 0)).call;
        }
    }
}

/// Copies word by word: for the whole the compiler would call `memmove`, which copies byte by byte on this target and takes
/// a part of the stack for itself.
///
/// # Safety
/// `to` must be checked.
#[inline(always)]
unsafe fn copy(to: *mut Join, from: &Join) {
    // SAFETY: promised by the caller; volatile, so that the copies stay single.
    unsafe {
        core::ptr::write_volatile(&raw mut (*to).parent_thread, from.parent_thread);
        core::ptr::write_volatile(&raw mut (*to).trace_thread, from.trace_thread);
        core::ptr::write_volatile(&raw mut (*to).parent_first_seen_ns, from.parent_first_seen_ns);
        core::ptr::write_volatile(&raw mut (*to).parent_call, from.parent_call);
        core::ptr::write_volatile(&raw mut (*to).trace_first_seen_ns, from.trace_first_seen_ns);
        core::ptr::write_volatile(&raw mut (*to).trace_call, from.trace_call);
    }
}

/// What an open container is before anything is known of it.
static NOTHING_OPEN: OpenContainer = OpenContainer {
    join: Join {
        parent_thread: 0,
        trace_thread: 0,
        parent_first_seen_ns: 0,
        parent_call: 0,
        trace_first_seen_ns: 0,
        trace_call: 0,
    },
    calls: 0,
    is_contested: 0,
};

/// A call on a container has been resolved as a span: its children on other threads can find it from now on. A global
/// function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn container_opens(thread: *mut ThreadStack, frame: *mut Frame, process: u32) -> u64 {
    if thread.is_null() || frame.is_null() {
        return 0;
    }
    // SAFETY: both lie in a checked map value used by this thread alone.
    unsafe {
        let key = PythonKey { address: (*frame).object, process, reserved: 0 };
        if OPEN_CONTAINERS.get_ptr(&key).is_none() {
            // A full map costs the joins of this container, and nothing else: its children then begin traces of their own.
            let _ = OPEN_CONTAINERS.insert(&key, &NOTHING_OPEN, 0);
        }
        let Some(open) = OPEN_CONTAINERS.get_ptr_mut(&key) else { return 0 };
        // Of calls of one thread, the inner one is what its children belong to; greenlets are as threads here.
        let is_same = (*open).join.parent_thread == bpf_get_current_pid_tgid() as u32
            && (*open).join.parent_first_seen_ns == (*thread).first_seen_ns;
        if (*open).calls != 0 && !is_same {
            (*open).is_contested = 1;
        }
        join_below(thread, frame, &raw mut (*open).join);
        (*open).calls += 1;
        (*frame).found |= FOUND_OPEN;
    }
    0
}

/// A call on a container has ended, or is no span of its own: it is not to be found any more.
/// A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forget_container(frame: *mut Frame, process: u32) -> u64 {
    if frame.is_null() {
        return 0;
    }
    let number = bpf_get_current_pid_tgid() as u32;
    // SAFETY: `frame` lies in a checked map value; the slot is masked into the array.
    unsafe {
        if (*frame).found & FOUND_WAITING != 0
            && let Some(slot) = WAITING.get_ptr_mut((*frame).found >> FOUND_SLOT_SHIFT)
            && (*slot).join.parent_thread == number
            && (*slot).join.parent_call == (*frame).call
        {
            (*slot).process = 0;
        }
        if (*frame).found & FOUND_OPEN == 0 {
            return 0;
        }
        let key = PythonKey { address: (*frame).object, process, reserved: 0 };
        let Some(open) = OPEN_CONTAINERS.get_ptr_mut(&key) else { return 0 };
        if (*open).calls <= 1 {
            let _ = OPEN_CONTAINERS.remove(&key);
            return 0;
        }
        (*open).calls -= 1;
        if (*open).join.parent_call == (*frame).call && (*open).join.parent_thread == number {
            (*open).join = Join::default();
        }
        0
    }
}

/// A method of a container begins on this thread; its receiver cannot be read yet, and perhaps this thread makes no
/// further event before its children run elsewhere.
///
/// # Safety
/// `thread` and `frame` must be checked.
#[inline(always)]
pub unsafe fn container_waits(thread: *mut ThreadStack, frame: *mut Frame, process: u32) {
    // SAFETY: promised by the caller; the slot is masked into the array.
    unsafe {
        let index = free_slot(bpf_get_current_pid_tgid() as u32) as u32;
        let Some(slot) = WAITING.get_ptr_mut(index) else { return };
        (*slot).process_slot = (*frame).process_slot;
        (*slot).frame = (*frame).stack_pointer;
        (*slot).code = (*frame).code;
        (*slot).receiver = (*frame).receiver;
        (*slot).receiver_offset = (*frame).receiver_offset;
        join_below(thread, frame, &raw mut (*slot).join);
        (*slot).process = process;
        (*frame).found |= FOUND_WAITING | index << FOUND_SLOT_SHIFT;
    }
}

/// Slots that are tried: threads whose numbers choose the same one may wait at the same time.
const TRIED_SLOTS: u32 = 8;

/// The slot in which a call of this thread can wait: one that is free, or that an earlier call of the thread has had. If
/// there is none, the first one's call is forgotten. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn free_slot(number: u32) -> u64 {
    for tried in 0..TRIED_SLOTS {
        let index = (number + tried) & (WAITING_CONTAINERS - 1);
        let Some(slot) = WAITING.get(index) else { return 0 };
        if slot.process == 0 || slot.join.parent_thread == number {
            return u64::from(index);
        }
    }
    u64::from(number & (WAITING_CONTAINERS - 1))
}

/// The outermost call of this thread has been resolved: if its receiver is a child of a container with open calls of one
/// other thread, the tree hangs at the innermost of them. With calls of two threads open it is not known at which.
///
/// # Safety
/// `thread` must be checked.
#[inline(always)]
pub unsafe fn to_open_container(thread: *mut ThreadStack, process: u32, object: u64) {
    // SAFETY: promised by the caller.
    unsafe {
        (*thread).join = Join::default();
        if object == 0 {
            return;
        }
        let Some(container) = copy_of(&PYTHON_MEMBERS, &PythonKey { address: object, process, reserved: 0 }) else {
            return;
        };
        // Of `predict` and the `predict_proba` that it calls on the same container, the inner one may still wait: no event
        // of its thread has resolved it.
        if to_waiting_container(thread, process, container) != 0 {
            (*thread).join = Join::default();
            return;
        }
        let waits = (*thread).join.parent_thread;
        if let Some(open) = OPEN_CONTAINERS.get(&PythonKey { address: container, process, reserved: 0 }) {
            let is_open = open.join.parent_thread != 0;
            if open.is_contested != 0 || (waits != 0 && is_open && waits != open.join.parent_thread) {
                (*thread).join = Join::default();
            } else if waits == 0 && open.join.parent_thread != (*thread).number {
                copy(&raw mut (*thread).join, &open.join);
            }
        }
    }
}

/// The same for a container whose call has just begun. Not 0 if calls of two threads have: then it is not known which. A
/// global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn to_waiting_container(thread: *mut ThreadStack, process: u32, container: u64) -> u64 {
    let mut is_contested = 0;
    for index in 0..WAITING_CONTAINERS {
        is_contested |= to_waiting_call(thread, index, process, container);
    }
    is_contested
}

/// The same for the call in one slot. A global function, so that the loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn to_waiting_call(thread: *mut ThreadStack, index: u32, process: u32, container: u64) -> u64 {
    let Some(waiting) = WAITING.get(index) else { return 0 };
    if thread.is_null() || !waits_for(waiting, process, container) {
        return 0;
    }
    // SAFETY: `thread` is a checked map value used by this thread alone.
    unsafe {
        let found = (*thread).join.parent_thread;
        if found != 0 && found != waiting.join.parent_thread {
            return 1;
        }
        copy(&raw mut (*thread).join, &waiting.join);
    }
    0
}

/// Whether a call of another thread of this process waits in a slot, is still in its frame, and has this container as its
/// receiver.
#[inline(always)]
fn waits_for(waiting: &WaitingContainer, process: u32, container: u64) -> bool {
    if waiting.process != process || waiting.join.parent_thread == bpf_get_current_pid_tgid() as u32 {
        return false;
    }
    let Some(layout) = PYTHON_LAYOUTS.get(waiting.process_slot) else { return false };
    code_of(layout, waiting.frame) == waiting.code
        && receiver_of(layout, waiting.frame, waiting.receiver, waiting.receiver_offset) == container
}
