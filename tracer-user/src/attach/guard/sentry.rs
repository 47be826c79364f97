//! The guard itself: the only thing that its process does.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, getppid, pidfd_open};

use super::super::error::AttachError;
use super::post::{KEPT, READY, REFUSED, RELEASED};
use super::ptrace::{self, Report};

/// Where a debug exception without a cause is said to come from (include/uapi/asm-generic/siginfo.h, Linux 6.18).
const TRAP_BRKPT: i32 = 1;

/// The one-byte instruction `int1`, which programs may use to make a debug exception of their own.
const INT1: u8 = 0xf1;

/// Looks at the list of threads that may be needed: a thread that begins between two looks is seen by the next one.
const MOST_LOOKS: usize = 16;

/// After the watchpoints are gone, how often is looked whether a signal from one is still on its way, and how many quiet
/// looks in a row mean that none is.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
const QUIET_LOOKS: u32 = 3;

/// Guards a process until the tracer, which is the parent of this process, says that the watchpoints are gone or has
/// ended, or until the process has ended. It says on its output whether it could begin, and at the end how many signals it
/// has kept back.
///
/// # Errors
/// It cannot be set up.
pub fn stand_guard(process: u32) -> Result<(), AttachError> {
    let setup = |source| AttachError::Guard { pid: process, source };
    let tracer = open_parent().map_err(setup)?;
    let reports = reports().map_err(setup)?;
    let mut sentry = Sentry { process, threads: HashSet::new(), kept: 0 };
    match sentry.begin() {
        Ok(()) => tell(READY),
        Err(error) => {
            tell(&format!("{REFUSED}{error}"));
            return Ok(());
        }
    }
    sentry.stand(&tracer, &reports).map_err(setup)?;
    tell(&format!("{KEPT}{}", sentry.kept));
    Ok(())
}

/// The tracer may have gone in the middle of something: nobody reads then.
fn tell(line: &str) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// The parent process as a descriptor that is readable once it has ended and everything that it held is gone.
fn open_parent() -> io::Result<OwnedFd> {
    let gone = || io::Error::other("the tracer has ended already");
    let parent = getppid().ok_or_else(gone)?;
    let opened = pidfd_open(parent, PidfdFlags::empty())?;
    // The number may have been another process's by then.
    if getppid() == Some(parent) { Ok(opened) } else { Err(gone()) }
}

/// A descriptor that is readable when a thread may have something to report. Signals that would end or stop the guard
/// before its time are ignored: those of a terminal, and those that are sent to everything that a service has started.
fn reports() -> io::Result<OwnedFd> {
    for signal in
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU]
    {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: the set is made empty before it is used, and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(descriptor)) }
    }
}

struct Sentry {
    process: u32,
    /// Threads of the process that report to us.
    threads: HashSet<i32>,
    /// Signals kept from it.
    kept: u64,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Watchpoints may be live.
    Watched,
    /// The tracer has gone without a word: its watchpoints go with it.
    Abandoned,
    /// There are none any more; so many looks have found no signal on its way.
    Released(u32),
}

impl Sentry {
    /// Has all threads of the process report, none of which notices.
    fn begin(&mut self) -> io::Result<()> {
        for _ in 0..MOST_LOOKS {
            let new: Vec<i32> = self.listed()?.into_iter().filter(|thread| !self.threads.contains(thread)).collect();
            if new.is_empty() {
                break;
            }
            for thread in new {
                match ptrace::seize(thread) {
                    Ok(()) => {
                        self.threads.insert(thread);
                    }
                    // Threads that ours have made report already; one that has ended has nothing to report.
                    Err(_) if self.is_ours(thread) || self.has_ended(thread) => {
                        self.threads.insert(thread);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.answer();
        }
        Ok(())
    }

    /// Answers reports until there is nothing left to guard.
    fn stand(&mut self, tracer: &OwnedFd, reports: &OwnedFd) -> io::Result<()> {
        let commands = io::stdin();
        let mut stage = Stage::Watched;
        loop {
            if !self.answer() {
                return Ok(());
            }
            let timeout = match stage {
                Stage::Released(QUIET_LOOKS) => return Ok(()),
                Stage::Released(_) => Some(&LOOK_EVERY),
                Stage::Watched | Stage::Abandoned => None,
            };
            let asked: BorrowedFd<'_> = if stage == Stage::Watched { commands.as_fd() } else { tracer.as_fd() };
            let mut polled = [PollFd::new(reports, PollFlags::IN), PollFd::new(&asked, PollFlags::IN)];
            // While signals are looked for, what the tracer does is of no interest.
            let count = if matches!(stage, Stage::Released(_)) { 1 } else { 2 };
            match poll(&mut polled[..count], timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_asked = count == 2 && !polled[1].revents().is_empty();
            drain(reports);
            stage = match stage {
                Stage::Watched if is_asked => after_command(&commands),
                Stage::Abandoned if is_asked => Stage::Released(0),
                Stage::Released(quiet) => Stage::Released(if self.is_signal_pending() { 0 } else { quiet + 1 }),
                other => other,
            };
        }
    }

    /// Answers all threads that have something to report. `false` once none is left.
    fn answer(&mut self) -> bool {
        loop {
            match ptrace::next_report() {
                Ok(Some((thread, report))) => self.answer_one(thread, report),
                Ok(None) => return true,
                Err(error) => return error.raw_os_error() != Some(libc::ECHILD),
            }
        }
    }

    /// A thread that was killed meanwhile cannot be answered, and need not be.
    fn answer_one(&mut self, thread: i32, report: Report) {
        let answered = match report {
            Report::Signal(libc::SIGTRAP) if is_without_cause(thread) => {
                self.kept += 1;
                ptrace::resume(thread, 0)
            }
            Report::Signal(signal) => ptrace::resume(thread, signal),
            Report::Stopped => ptrace::leave_stopped(thread),
            // A child process that shares memory begins like a thread; it is none of ours.
            Report::Began if !self.threads.contains(&thread) && !self.is_of_process(thread) => ptrace::let_go(thread),
            Report::Began => {
                self.threads.insert(thread);
                ptrace::resume(thread, 0)
            }
            Report::Ended => {
                self.threads.remove(&thread);
                Ok(())
            }
        };
        drop(answered);
    }

    fn listed(&self) -> io::Result<Vec<i32>> {
        let entries = fs::read_dir(format!("/proc/{}/task", self.process))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }

    fn is_of_process(&self, thread: i32) -> bool {
        fs::metadata(format!("/proc/{}/task/{thread}", self.process)).is_ok()
    }

    fn is_ours(&self, thread: i32) -> bool {
        self.status(thread, "TracerPid:").is_some_and(|tracer| tracer == std::process::id().to_string())
    }

    fn has_ended(&self, thread: i32) -> bool {
        self.status(thread, "State:").is_none_or(|state| state.starts_with(['Z', 'X']))
    }

    /// Whether a SIGTRAP has been sent to a thread and has not reached it.
    fn is_signal_pending(&self) -> bool {
        let is_pending = |thread: &i32| {
            let pending = self.status(*thread, "SigPnd:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
            pending.is_some_and(|mask| mask >> (libc::SIGTRAP - 1) & 1 == 1)
        };
        self.threads.iter().any(is_pending)
    }

    fn status(&self, thread: i32, field: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/task/{thread}/status", self.process)).ok()?;
        status.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
    }
}

/// Whether the SIGTRAP before which a thread stands still is from a debug exception that nothing in the program has made:
/// it is about the very next instruction, and the one before it is not `int1`.
fn is_without_cause(thread: i32) -> bool {
    let (Ok(signal), Ok(next)) = (ptrace::signal_information(thread), ptrace::instruction_pointer(thread)) else {
        return false;
    };
    signal.code == TRAP_BRKPT
        && signal.address == next
        && ptrace::byte_at(thread, next.wrapping_sub(1)).is_ok_and(|byte| byte != INT1)
}

/// The only word of the tracer is that the watchpoints are gone; the end of its input without it means that it is going.
fn after_command(commands: &io::Stdin) -> Stage {
    let mut line = String::new();
    match commands.read_line(&mut line) {
        Ok(1..) if line.trim_end() == RELEASED => Stage::Released(0),
        _ => Stage::Abandoned,
    }
}

fn drain(reports: &OwnedFd) {
    let mut buffer = [0; 1024];
    while rustix::io::read(reports, &mut buffer).is_ok_and(|bytes| bytes > 0) {}
}
