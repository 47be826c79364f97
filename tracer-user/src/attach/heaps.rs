//! The tracer's own memory.

/// Heaps that its threads share.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

/// Looks run on threads that come and go. glibc would give each one of eight heaps for each processor, and what is free in one serves
/// no other: with workers that come and go that is a quarter of all memory.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes two numbers; one that it does not know is refused.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Gives back what is free. Loading the programs and looking at a process take megabytes for a moment: files of symbols, the
/// kernel's type information, the objects of an interpreter. glibc would keep them for what may come.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
