//! The process that holds the leases: the only thing that it does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};

use super::super::error::AttachError;
use super::super::signals;
use super::client::{BROKEN, DONE, END, GIVE_BACK, HEARD, HELD, HOLD, REFUSED, WRITING};

/// A tracer that says nothing for this long while a writer waits is stopped or frozen, before it has heard of the writer or after.
/// It is killed: then its probes go, and the writer does not wait for as long as the tracer stands still.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How often that is looked at while an answer is due.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Where a process that writes to it gets out of the freezer of the tracer: control groups of version 2, and of version 1.
const UNFROZEN: [&str; 2] = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/freezer/cgroup.procs"];

struct Held {
    number: u64,
    file: File,
    /// Since when somebody waits to write to it.
    broken: Option<Instant>,
}

/// Holds leases for the tracer, which is the parent of this process, until it has given all of them back or has ended.
///
/// # Errors
/// It cannot be set up.
pub fn keep_leases() -> Result<(), AttachError> {
    keep().map_err(|source| AttachError::Leases { source })
}

fn keep() -> io::Result<()> {
    let gone = || io::Error::other("the tracer has ended already");
    let parent = getppid().ok_or_else(gone)?;
    let tracer = pidfd_open(parent, PidfdFlags::empty())?;
    if getppid() != Some(parent) {
        return Err(gone());
    }
    // Readable when a lease was broken.
    let breaks = signals::only(nix::sys::signal::SIGIO)?;
    for file in UNFROZEN {
        // In a container its own group is all there is.
        let _ = fs::write(file, "0");
    }
    let _ = rustix::thread::set_name(c"ml-tracer-lease");
    Keeper { parent, tracer, leases: Vec::new(), input: Vec::new(), heard: Instant::now(), is_dismissed: false }
        .run(&breaks)
}

struct Keeper {
    parent: Pid,
    tracer: OwnedFd,
    leases: Vec<Held>,
    /// What the tracer has said of a line that is not complete.
    input: Vec<u8>,
    /// When it said last that it takes probes away for a writer.
    heard: Instant,
    /// Whether the tracer has no probe left.
    is_dismissed: bool,
}

impl Keeper {
    fn run(&mut self, breaks: &SignalFd) -> io::Result<()> {
        let orders = io::stdin();
        let mut listens = true;
        loop {
            let is_due = self.leases.iter().any(|lease| lease.broken.is_some());
            let descriptors = [self.tracer.as_fd(), breaks.as_fd(), orders.as_fd()];
            let mut polled = descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
            let count = if listens { 3 } else { 2 };
            match poll(&mut polled[..count], is_due.then_some(&LOOK_EVERY)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [is_over, is_broken, is_ordered] = polled.map(|polled| !polled.revents().is_empty());
            if is_over {
                return Ok(());
            }
            if is_broken {
                signals::drain(breaks);
                self.look_for_broken();
            }
            if is_ordered && listens {
                listens = self.take_orders(&orders)?;
                // One that was broken while it was set up has sent its signal before it was known.
                self.look_for_broken();
            }
            if self.is_dismissed {
                return Ok(());
            }
            let overdue =
                |lease: &Held| lease.broken.is_some_and(|since| since.max(self.heard).elapsed() > ANSWER_WITHIN);
            if self.leases.iter().any(overdue) {
                // What it holds goes with it: the writer then goes on.
                let _ = pidfd_send_signal(&self.tracer, Signal::KILL);
            }
        }
    }

    /// `false` at the end of the orders.
    fn take_orders(&mut self, orders: &io::Stdin) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let bytes = match rustix::io::read(orders, &mut buffer) {
            Ok(bytes) => bytes,
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        self.input.extend_from_slice(buffer.get(..bytes).unwrap_or_default());
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut words = line.split_whitespace();
            let order = words.next().unwrap_or_default();
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
            match order {
                HOLD => {
                    let (lease, descriptor) = (number(), number());
                    self.hold(lease, descriptor);
                }
                HEARD => self.heard = Instant::now(),
                // Closing the file gives the lease back, and lets a writer go on.
                DONE | GIVE_BACK => {
                    let lease = number();
                    self.leases.retain(|held| held.number != lease);
                }
                END => self.is_dismissed = true,
                _ => {}
            }
        }
        Ok(bytes > 0)
    }

    fn hold(&mut self, number: u64, descriptor: u64) {
        // Opened once more: the lease belongs to this process then, and does not end with the tracer's own descriptor.
        let path = format!("/proc/{}/fd/{descriptor}", self.parent.as_raw_nonzero());
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        match opened.and_then(|file| lease(&file).map(|()| file)) {
            Ok(file) => {
                self.leases.push(Held { number, file, broken: None });
                tell(HELD, number);
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => tell(WRITING, number),
            Err(_) => tell(REFUSED, number),
        }
    }

    fn look_for_broken(&mut self) {
        for held in self.leases.iter_mut().filter(|held| held.broken.is_none()) {
            // SAFETY: a command without an argument, on a descriptor that is open.
            let kind = unsafe { libc::fcntl(held.file.as_raw_fd(), libc::F_GETLEASE) };
            if kind != libc::F_RDLCK {
                held.broken = Some(Instant::now());
                tell(BROKEN, held.number);
            }
        }
    }
}

fn lease(file: &File) -> io::Result<()> {
    // SAFETY: the argument is an integer, and the descriptor is open.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The tracer may have gone: nobody reads then.
fn tell(word: &str, number: u64) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{word} {number}").and_then(|()| output.flush());
}
