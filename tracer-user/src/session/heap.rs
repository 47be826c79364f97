//! Memory of this process that is free again goes back to the kernel.

/// Gives back what is free. Loading the programs and looking at a process take megabytes for a moment: files of symbols, the
/// kernel's type information, the objects of an interpreter. glibc would keep them for what may come.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
