//! Which addresses are the stack that a thread was started with. Programs that switch stacks themselves (fibers, a signal
//! handler on an alternate stack) run code elsewhere, and stack pointers of different stacks say nothing about each other.
//!
//! Looked at once for each thread. A thread of glibc keeps the bounds of its stack beside its thread pointer, also when
//! the stack was given to it, and also when it has forked and is the first thread of the child. The stack of a first
//! thread is where `execve` has put the arguments.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user, generated::bpf_get_current_task,
};
use tracer_common::thread_stack::ThreadStack;

/// Where the kernel keeps the thread pointer and the memory of a task, and the beginning of the stack of that memory; user
/// space sets them before loading, from the kernel's type information. 0: not known.
#[unsafe(no_mangle)]
static TASK_THREAD_POINTER_OFFSET: u64 = 0;
/// See [`TASK_THREAD_POINTER_OFFSET`].
#[unsafe(no_mangle)]
static TASK_MEMORY_OFFSET: u64 = 0;
/// See [`TASK_THREAD_POINTER_OFFSET`].
#[unsafe(no_mangle)]
static MEMORY_STACK_OFFSET: u64 = 0;

/// `stackblock`, `stackblock_size` and `guardsize` stand one after another in glibc's `struct pthread` (nptl/descr.h), at
/// 0x690 in 2.36; they are looked for between these offsets, by what must hold of them.
const FIRST_OFFSET: u64 = 0x500;
/// See [`FIRST_OFFSET`].
const WORDS: u64 = 0x80;

/// The thread pointer is the address of `struct pthread`, which is last on the stack; bytes from there to its end at most.
const MOST_AFTER_THREAD_POINTER: u64 = 0x2000;

/// `PTHREAD_STACK_MIN`, and more than any stack.
const LEAST_STACK: u64 = 0x4000;
/// See [`LEAST_STACK`].
const MOST_STACK: u64 = 1 << 40;

/// Linux maps nothing nearer below the stack of the first thread (`mmap_base` in arch/x86/mm/mmap.c, Linux 6.18).
const FIRST_THREAD_STACK: u64 = 128 << 20;

/// Whether an address is on the thread's own stack. Always, where nothing is known of it.
///
/// # Safety
/// `stack` must be a checked map value.
#[inline(always)]
pub unsafe fn has(stack: *mut ThreadStack, address: u64) -> bool {
    // SAFETY: promised by the caller.
    unsafe { address.wrapping_sub((*stack).own_start) < (*stack).own_size }
}

/// Finds out the own stack of the current thread. A global function, see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn_own_stack(stack: *mut ThreadStack) -> u64 {
    if stack.is_null() {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let thread_pointer = thread_pointer();
    let mut start = 0;
    let mut size = u64::MAX;
    let block = block_around(thread_pointer);
    if block != 0 {
        start = block;
        size = thread_pointer - block;
    } else {
        let identity = bpf_get_current_pid_tgid();
        let memory = if identity as u32 == (identity >> 32) as u32 {
            member(task, offset(&raw const TASK_MEMORY_OFFSET))
        } else {
            0
        };
        let first = member(memory, offset(&raw const MEMORY_STACK_OFFSET));
        if first > FIRST_THREAD_STACK {
            start = first - FIRST_THREAD_STACK;
            size = FIRST_THREAD_STACK;
        }
    }
    // SAFETY: a checked map value used by this thread alone.
    unsafe {
        (*stack).own_start = start;
        (*stack).own_size = size;
    }
    0
}

/// The thread pointer of the current thread, 0 where it is not known.
#[inline(always)]
pub fn thread_pointer() -> u64 {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    member(task, offset(&raw const TASK_THREAD_POINTER_OFFSET))
}

/// The lowest address of the stack that glibc has noted beside a thread pointer, 0 if there is none. A global function,
/// see `endings::end_wide`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn block_around(thread_pointer: u64) -> u64 {
    if thread_pointer == 0 {
        return 0;
    }
    let (mut block, mut size) = (0_u64, 0_u64);
    for index in 0..WORDS {
        // SAFETY: the helper checks the address; a bad one is an error, not a fault.
        let read = unsafe { bpf_probe_read_user((thread_pointer + FIRST_OFFSET + index * 8) as *const u64) };
        let Ok(guard) = read else { return 0 };
        if is_block(block, size, guard, thread_pointer) != 0 {
            return block;
        }
        block = size;
        size = guard;
    }
    0
}

/// 1 if three words can be the stack of a thread pointer: its lowest address, its bytes, and those of them that guard it. A
/// global function, so that the verifier does not follow each outcome through the loop around it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_block(block: u64, size: u64, guard: u64, thread_pointer: u64) -> u64 {
    let is_size = size >= LEAST_STACK && size < MOST_STACK && guard < size && guard & 0xfff == 0;
    let after = block.wrapping_add(size).wrapping_sub(thread_pointer);
    let is_around = block != 0 && block < thread_pointer && after != 0 && after < MOST_AFTER_THREAD_POINTER;
    u64::from(is_size && is_around)
}

#[inline(always)]
fn offset(of: *const u64) -> u64 {
    // SAFETY: a static of this program; volatile because user space writes it before loading.
    unsafe { core::ptr::read_volatile(of) }
}

/// A word of a structure of the kernel, 0 if it cannot be read.
#[inline(always)]
fn member(structure: u64, offset: u64) -> u64 {
    if structure == 0 || offset == 0 {
        return 0;
    }
    // SAFETY: as in `block_around`.
    unsafe { bpf_probe_read_kernel((structure + offset) as *const u64) }.unwrap_or(0)
}
