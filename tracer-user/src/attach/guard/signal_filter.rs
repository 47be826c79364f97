//! The guard itself: the only thing that its process does.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

use super::super::error::AttachError;
use super::super::signals;
use super::super::watchpoints::{Obstacle, Watchpoint};
use super::dead_man_switch::{BEAT, DeadManSwitch};
use super::isolation;
use super::protocol::{Answer, Order};
use super::ptrace::{self, Report};

/// The one-byte instruction `int1`, which programs may use to make a debug exception of their own.
const INT1: u8 = 0xf1;

/// Looks at the list of threads that may be needed: a thread that begins between two looks is seen by the next one.
const MOST_LOOKS: usize = 16;

/// How often it is tried to have the threads report, and how long between two times.
const TRIES: u32 = 8;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// After the watchpoints are gone, how often is looked whether a signal from one is still on its way, and how many quiet
/// looks in a row mean that none is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const QUIET_LOOKS: u32 = 3;

/// Guards a process until the tracer, which is the parent of this process, says so or has ended, or until the process has
/// ended. It sets the watchpoints that the tracer asks for and holds them itself: they never outlive it.
///
/// # Errors
/// It cannot be set up.
pub fn run_guard(process: u32) -> Result<(), AttachError> {
    let setup = |source| AttachError::Guard { pid: process, source };
    isolation::isolate();
    // Readable when a thread may have something to report.
    let reports = signals::only(Signal::SIGCHLD).map_err(setup)?;
    let switch = DeadManSwitch::wind().map_err(setup)?;
    let mut filter = SignalFilter { process, threads: HashSet::new(), watchpoints: Vec::new(), kept: 0, switch };
    match filter.begin() {
        Ok(()) => tell(&Answer::Ready { is_confined: isolation::is_confined() }),
        Err(error) => {
            tell(&Answer::Refused(error.to_string()));
            return Ok(());
        }
    }
    filter.run(&reports).map_err(setup)?;
    tell(&Answer::Kept(filter.kept));
    Ok(())
}

/// The tracer may have gone in the middle of something, or not read for long: that must not hold us up.
fn tell(answer: &Answer) {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = send(isolation::line(), answer.to_string().as_bytes(), flags);
}

struct SignalFilter {
    process: u32,
    /// Threads of the process that report to us.
    threads: HashSet<i32>,
    watchpoints: Vec<Watchpoint>,
    /// Signals kept from it.
    kept: u64,
    switch: DeadManSwitch,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Watchpoints may be live.
    Watched,
    /// There are none any more; so many looks have found no signal on its way.
    Released(u32),
}

impl SignalFilter {
    /// Has all threads of the process report, none of which notices. The guard of another tracer that has just gone may
    /// still be there for a moment.
    fn begin(&mut self) -> io::Result<()> {
        let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EPERM);
        for _ in 0..TRIES {
            match self.seize_all() {
                Err(error) if refused(&error) => std::thread::sleep(BETWEEN_TRIES),
                result => return result,
            }
        }
        self.seize_all()
    }

    fn seize_all(&mut self) -> io::Result<()> {
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
    fn run(&mut self, reports: &SignalFd) -> io::Result<()> {
        let mut stage = Stage::Watched;
        while self.answer() {
            let timeout = match stage {
                Stage::Released(QUIET_LOOKS) => break,
                Stage::Released(_) => LOOK_EVERY,
                Stage::Watched => BEAT,
            };
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
            let line = isolation::line();
            let mut polled = [PollFd::new(reports, PollFlags::IN), PollFd::new(&line, PollFlags::IN)];
            // While signals are looked for, what the tracer does is of no interest.
            let count = if stage == Stage::Watched { 2 } else { 1 };
            match poll(&mut polled[..count], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_asked = count == 2 && !polled[1].revents().is_empty();
            signals::drain(reports);
            stage = match stage {
                Stage::Watched if is_asked => self.obey(),
                Stage::Released(quiet) => Stage::Released(if self.is_signal_pending() { 0 } else { quiet + 1 }),
                Stage::Watched => Stage::Watched,
            };
        }
        Ok(())
    }

    /// Does what the tracer says. That its end of the line is closed means that it has ended.
    fn obey(&mut self) -> Stage {
        let mut buffer = [0; 64];
        let length = match rustix::io::read(isolation::line(), &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Stage::Watched,
            Err(_) => 0,
        };
        let order = buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
        match order {
            Some(Order::Watch(address)) => {
                let answer = match self.watch(address) {
                    Ok(()) => Answer::Done,
                    Err(Obstacle::NoSlot) => Answer::NoSlot,
                    Err(Obstacle::Gone) => Answer::Failed(libc::ESRCH),
                    Err(Obstacle::NoDescriptors { needed, limit }) => Answer::NoDescriptors { needed, limit },
                    Err(Obstacle::Other(error)) => Answer::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
                };
                tell(&answer);
                Stage::Watched
            }
            Some(Order::Unwatch(address)) => {
                self.take_away(|watchpoint, process| watchpoint.is_on(process, address));
                tell(&Answer::Done);
                Stage::Watched
            }
            Some(Order::Release) | None => {
                self.take_away(|_, _| true);
                Stage::Released(0)
            }
        }
    }

    fn watch(&mut self, address: u64) -> Result<(), Obstacle> {
        let (process, others) = (self.process, self.watchpoints.len());
        // The process goes on meanwhile.
        let watchpoint = Watchpoint::set(isolation::program(), process, address, others, || {
            self.answer();
        })?;
        self.watchpoints.push(watchpoint);
        Ok(())
    }

    fn take_away(&mut self, is_meant: impl Fn(&Watchpoint, u32) -> bool) {
        let process = self.process;
        let taken: Vec<_> = self.watchpoints.extract_if(.., |watchpoint| is_meant(watchpoint, process)).collect();
        for event in taken.into_iter().flat_map(Watchpoint::into_events) {
            drop(event);
            self.answer();
        }
    }

    /// Answers all threads that have something to report. `false` once none is left.
    fn answer(&mut self) -> bool {
        loop {
            self.switch.beat();
            match ptrace::next_report() {
                Ok(Some((thread, report))) => self.answer_one(thread, report),
                Ok(None) => return true,
                Err(error) => return error.raw_os_error() != Some(libc::ECHILD),
            }
        }
    }

    /// A thread that was killed meanwhile cannot be answered, and need not be: its end is its next report.
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
        // It would report the same for ever.
        if answered.is_err() {
            ptrace::take_report(thread);
        }
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
/// it is about the very next instruction, and no `int1` has been executed. Some hypervisors leave a program before that
/// instruction instead of after it.
fn is_without_cause(thread: i32) -> bool {
    let (Ok(signal), Ok(next)) = (ptrace::signal_information(thread), ptrace::instruction_pointer(thread)) else {
        return false;
    };
    signal.code == libc::TRAP_BRKPT
        && signal.address == next
        && [next.wrapping_sub(1), next].iter().all(|at| ptrace::byte_at(thread, *at).is_ok_and(|byte| byte != INT1))
}
