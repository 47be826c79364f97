//! ptrace(2) and waitpid(2), as far as a guard needs them. The calls that name a thread work only from the thread that
//! seized it.

use std::io;

/// What became of a thread since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It stands still before a signal with this number reaches it.
    Signal(i32),
    /// It stands still: it has just begun, or has made another thread.
    Began,
    /// A stop signal has stopped the whole process.
    Stopped,
    /// It has ended.
    Ended,
}

/// What the kernel says of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInformation {
    /// Where it comes from (`si_code`).
    pub code: i32,
    /// Address that it is about.
    pub address: u64,
}

/// `PTRACE_EVENT_STOP` in the upper half of a wait status (include/uapi/linux/ptrace.h, Linux 6.18).
const EVENT_STOP: i32 = 128;

/// Offset of `rip` in `struct user` (sysdeps/unix/sysv/linux/x86/sys/user.h, glibc 2.36).
const INSTRUCTION_POINTER: usize = 16 * 8;

/// Is told of the signals of a thread from now on, and of those of the threads that it makes. The thread goes on.
pub fn seize(thread: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACECLONE as usize;
    request(libc::PTRACE_SEIZE, thread, 0, options).map(drop)
}

/// Lets a thread go on, with this signal (0: without one).
pub fn resume(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, thread, 0, signal as usize).map(drop)
}

/// Leaves a thread stopped as its stop signal wants it, until SIGCONT.
pub fn leave_stopped(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, thread, 0, 0).map(drop)
}

/// Lets a thread go on, and is not told of it any more.
pub fn let_go(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, thread, 0, 0).map(drop)
}

/// What the kernel says of the signal before which a thread stands still.
pub fn signal_information(thread: i32) -> io::Result<SignalInformation> {
    // SAFETY: an all-zero `siginfo_t` is a value: integers and unions of integers and pointers.
    let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETSIGINFO, thread, 0, (&raw mut information).expose_provenance())?;
    // SAFETY: the kernel has filled the structure in; every bit pattern is an address.
    let address = unsafe { information.si_addr() };
    Ok(SignalInformation { code: information.si_code, address: address.addr() as u64 })
}

/// Address of the instruction at which a thread that stands still goes on.
pub fn instruction_pointer(thread: i32) -> io::Result<u64> {
    peek(libc::PTRACE_PEEKUSER, thread, INSTRUCTION_POINTER)
}

/// The byte at an address of a thread that stands still.
pub fn byte_at(thread: i32, address: u64) -> io::Result<u8> {
    let address = usize::try_from(address).map_err(io::Error::other)?;
    Ok(peek(libc::PTRACE_PEEKTEXT, thread, address)?.to_le_bytes()[0])
}

/// A thread with something to report, `None` if there is none now.
///
/// # Errors
/// No thread is left (`ECHILD`).
pub fn next_report() -> io::Result<Option<(i32, Report)>> {
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    match thread {
        0 => Ok(None),
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(Some((thread, meaning(status)))),
    }
}

fn meaning(status: i32) -> Report {
    if !libc::WIFSTOPPED(status) {
        return Report::Ended;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 => Report::Signal(signal),
        EVENT_STOP if signal != libc::SIGTRAP => Report::Stopped,
        _ => Report::Began,
    }
}

fn request(request: libc::c_uint, thread: i32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: the requests of this file take numbers, or (`PTRACE_GETSIGINFO`) a pointer to a structure that outlives the
    // call; what is not a thread of ours is refused by the kernel.
    let result = unsafe { libc::ptrace(request, thread, address, data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Reads a word. The kernel writes it to the address given as data; the C library gives it as the result instead, where
/// -1 may be a word.
fn peek(request: libc::c_uint, thread: i32, address: usize) -> io::Result<u64> {
    // SAFETY: `errno` of this thread.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: reads of another process's memory; a bad address is an error.
    let word = unsafe { libc::ptrace(request, thread, address, 0_usize) };
    let error = io::Error::last_os_error();
    if word == -1 && error.raw_os_error() != Some(0) { Err(error) } else { Ok(word as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_waitpid_gives_it() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(meaning(stopped(libc::SIGTRAP, 0)), Report::Signal(libc::SIGTRAP));
        assert_eq!(meaning(stopped(40, 0)), Report::Signal(40), "a real-time signal");
        assert_eq!(meaning(stopped(libc::SIGTRAP, EVENT_STOP)), Report::Began);
        assert_eq!(meaning(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_CLONE)), Report::Began);
        assert_eq!(meaning(stopped(libc::SIGTSTP, EVENT_STOP)), Report::Stopped);
        assert_eq!(meaning(0), Report::Ended);
        assert_eq!(meaning(libc::SIGKILL), Report::Ended);
    }
}
