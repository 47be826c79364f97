//! Greenlets: Python code that runs by turns on one thread, each on a data stack of its own (CPython 3.11 and later). What
//! is open in one of them stays open while another runs, so each has a stack of open calls of its own. It is told by the
//! oldest piece of its data stack, which stays where it is as long as the greenlet has frames.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{
    limits::{MAX_GREENLETS, THREAD_KEY_BITS},
    python::{FrameStyle, PythonLayout},
    thread_stack::ThreadStack,
};

use crate::{
    maps::{PYTHON_LAYOUTS, THREADS},
    python_frame::{field, read_u64},
    stack,
};

/// Pieces of a data stack that are followed to the oldest one.
const MAX_PIECES: u32 = 128;

/// The oldest piece was not reached.
const TOO_MANY: u64 = 1;

/// The stack of open calls that belongs to the Python code that runs now on this thread. `None` if it has none yet, or if
/// there are too many.
#[inline(always)]
pub fn stack_of(
    main: *mut ThreadStack,
    layout: &PythonLayout,
    process_slot: u32,
    python_thread: u64,
) -> Option<*mut ThreadStack> {
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        (*main).python_thread = python_thread;
        if layout.style == FrameStyle::Heap as u32 {
            return Some(main);
        }
        let root = root_of(process_slot, python_thread);
        if root == 0 {
            return None;
        }
        if (*main).root_chunk == 0 {
            (*main).root_chunk = root;
        }
        if root == (*main).root_chunk || root == TOO_MANY {
            return Some(main);
        }
        let further = further(main, root)?;
        (*further).python_thread = python_thread;
        Some(further)
    }
}

/// The same when it is not known whether Python code runs: the thread was seen to run some.
#[inline(always)]
pub fn stack_around(main: *mut ThreadStack, process_slot: u32) -> Option<*mut ThreadStack> {
    // SAFETY: as above.
    unsafe {
        if (*main).greenlets[0] == 0 {
            return Some(main);
        }
        let root = root_of(process_slot, (*main).python_thread);
        if root == 0 || root == (*main).root_chunk || root == TOO_MANY {
            return Some(main);
        }
        further(main, root)
    }
}

/// The stack of another greenlet than the first.
#[inline(always)]
fn further(main: *mut ThreadStack, root: u64) -> Option<*mut ThreadStack> {
    let number = number_of(main, root);
    if number == 0 { None } else { stack::of_current_thread(key_of(number)) }
}

/// The key of a greenlet's stack.
#[inline(always)]
pub fn key_of(number: u64) -> u64 {
    bpf_get_current_pid_tgid() | number << THREAD_KEY_BITS
}

/// The oldest piece of a thread's data stack; each begins with a pointer to the one before it. A global function, see
/// `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn root_of(process_slot: u32, python_thread: u64) -> u64 {
    let Some(layout) = PYTHON_LAYOUTS.get(process_slot) else { return 0 };
    let mut piece = field(python_thread, layout.thread_datastack_chunk);
    if piece == 0 {
        return 0;
    }
    for _ in 0..MAX_PIECES {
        let before = read_u64(piece);
        if before == 0 {
            return piece;
        }
        piece = before;
    }
    TOO_MANY
}

/// The number of a greenlet's stack, from 1: the one that it has had, a new one, or one with nothing open. 0 if there is
/// none. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn number_of(main: *mut ThreadStack, root: u64) -> u64 {
    if main.is_null() {
        return 0;
    }
    // SAFETY: a checked map value used by this thread alone; the index is below the length.
    unsafe {
        for index in 0..MAX_GREENLETS {
            let known = greenlet(main, index);
            if *known == root || *known == 0 {
                *known = root;
                return index as u64 + 1;
            }
        }
        for index in 0..MAX_GREENLETS {
            if is_idle(index as u64 + 1) != 0 {
                *greenlet(main, index) = root;
                return index as u64 + 1;
            }
        }
    }
    0
}

/// The root of the greenlet at an index; the index is masked, so that the verifier sees it in range.
///
/// # Safety
/// `main` must be checked.
#[inline(always)]
pub unsafe fn greenlet(main: *mut ThreadStack, index: usize) -> *mut u64 {
    // SAFETY: promised by the caller; the mask keeps the element inside the array.
    unsafe { (&raw mut (*main).greenlets).cast::<u64>().add(index & (MAX_GREENLETS - 1)) }
}

/// 1 if nothing is open on the stack of this number. A global function, so that the loop around it has one way only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_idle(number: u64) -> u64 {
    let Some(stack) = THREADS.get_ptr(key_of(number)) else { return 1 };
    // SAFETY: a checked map value used by this thread alone.
    u64::from(unsafe { (*stack).depth } == 0)
}
