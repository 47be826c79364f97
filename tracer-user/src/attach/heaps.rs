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
