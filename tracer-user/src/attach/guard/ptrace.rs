//! ptrace(2) and waitpid(2), as far as a guard needs them. The calls that name a thread work only from the thread that
//! seized it.

use std::ffi::c_long;
use std::io;
use std::mem::offset_of;
use std::ptr::without_provenance_mut;

use nix::sys::ptrace::{self, Event, Options};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

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

/// Is told of the signals of a thread from now on, and of those of the threads that it makes. The thread goes on.
pub fn seize(thread: i32) -> io::Result<()> {
    Ok(ptrace::seize(Pid::from_raw(thread), Options::PTRACE_O_TRACECLONE)?)
}

/// Lets a thread go on, with this signal (0: without one).
pub fn resume(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT.into(), thread, signal)
}

/// Leaves a thread stopped as its stop signal wants it, until SIGCONT.
pub fn leave_stopped(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN.into(), thread, 0)
}

/// Lets a thread go on, and is not told of it any more.
pub fn let_go(thread: i32) -> io::Result<()> {
    Ok(ptrace::detach(Pid::from_raw(thread), None)?)
}

/// What the kernel says of the signal before which a thread stands still.
pub fn signal_information(thread: i32) -> io::Result<SignalInformation> {
    let information = ptrace::getsiginfo(Pid::from_raw(thread))?;
    // SAFETY: the kernel has filled the structure in; every bit pattern is an address.
    let address = unsafe { information.si_addr() };
    Ok(SignalInformation { code: information.si_code, address: address.addr() as u64 })
}

/// Address of the instruction at which a thread that stands still goes on.
pub fn instruction_pointer(thread: i32) -> io::Result<u64> {
    let place = without_provenance_mut(offset_of!(libc::user, regs.rip));
    Ok(ptrace::read_user(Pid::from_raw(thread), place)? as u64)
}

/// The byte at an address of a thread that stands still.
pub fn byte_at(thread: i32, address: u64) -> io::Result<u8> {
    let address = usize::try_from(address).map_err(io::Error::other)?;
    Ok(ptrace::read(Pid::from_raw(thread), without_provenance_mut(address))?.to_le_bytes()[0])
}

/// A thread with something to report, `None` if there is none now. One that stands still before a signal reports it again and
/// again until it goes on: the kernel forgets the signal as soon as the report is taken, and somebody who kills the guard before it
/// has passed the signal on would have the process lose it.
///
/// # Errors
/// No thread is left (`ECHILD`).
pub fn next_report() -> io::Result<Option<(i32, Report)>> {
    let Some((thread, report)) = look_for_report()? else { return Ok(None) };
    // That one is better lost than passed on, if it has no cause.
    if !matches!(report, Report::Signal(signal) if signal != libc::SIGTRAP) {
        take_report(thread);
    }
    Ok(Some((thread, report)))
}

/// Takes the report of a thread, which does not report the same again.
pub fn take_report(thread: i32) {
    // nix would take a real-time signal for an error, and the thread would stand still for ever. A thread that was killed meanwhile
    // reports its end instead, and has nothing to report after that.
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL as u32);
    let _ = waitpid(rustix::process::Pid::from_raw(thread), options);
}

/// What a thread has to report, which it goes on to report.
fn look_for_report() -> io::Result<Option<(i32, Report)>> {
    let kinds = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: every field of the structure may be zero.
    let mut told: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the structure is large enough for what the kernel writes.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut told, kinds) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: the kernel fills these fields in; where there is nothing to report they are zero.
    let (thread, status) = unsafe { (told.si_pid(), told.si_status()) };
    let report = match told.si_code {
        libc::CLD_STOPPED | libc::CLD_TRAPPED => meaning(status << 8 | 0x7f),
        _ => Report::Ended,
    };
    Ok((thread != 0).then_some((thread, report)))
}

fn meaning(status: i32) -> Report {
    if !libc::WIFSTOPPED(status) {
        return Report::Ended;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 => Report::Signal(signal),
        event if event == Event::PTRACE_EVENT_STOP as i32 && signal != libc::SIGTRAP => Report::Stopped,
        _ => Report::Began,
    }
}

/// What nix has no words for: `PTRACE_LISTEN`, and to go on with a real-time signal. The C libraries do not agree on the type of
/// a request, so the kernel is asked itself.
fn request(request: c_long, thread: i32, signal: i32) -> io::Result<()> {
    let (thread, signal) = (c_long::from(thread), c_long::from(signal));
    // SAFETY: the two requests take numbers; what is not a thread of ours is refused by the kernel.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request, thread, 0_usize, signal) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_waitpid_gives_it() {
        const EVENT_STOP: i32 = Event::PTRACE_EVENT_STOP as i32;
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
