//! Hardware watchpoints on words of a process: one perf event for each of its threads, inherited by those that come later.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use perf_event_open_sys::bindings::{
    HW_BREAKPOINT_LEN_8, HW_BREAKPOINT_W, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_BREAKPOINT, perf_event_attr,
};
use perf_event_open_sys::{ioctls, perf_event_open};
use rustix::process::{Resource, getrlimit};

/// Looks at the list of threads that may be needed: a thread that begins between two looks is seen by the next one.
const MOST_LOOKS: usize = 16;

/// Debug registers of a thread (`HBP_NUM`, arch/x86/include/asm/hw_breakpoint.h, Linux 6.18).
const REGISTERS: usize = 4;

/// A register of a thread that is just ending, or of a watchpoint just taken away, may be free in a moment.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(2);

/// Descriptors that must be left for everything else.
const RESERVE: u64 = 32;

/// A watchpoint on all threads of a process. Dropping it takes it away.
#[derive(Debug)]
pub struct Watchpoint {
    address: u64,
    process: u32,
    events: Vec<OwnedFd>,
}

/// Why a watchpoint could not be set.
#[derive(Debug)]
pub enum Obstacle {
    /// A thread has no debug register left.
    NoSlot,
    /// The process is gone.
    Gone,
    /// One descriptor for each thread is more than may be open.
    NoDescriptors {
        /// So many would have to be open.
        needed: u64,
        /// So many may be.
        limit: u64,
    },
    /// Anything else.
    Other(io::Error),
}

impl Watchpoint {
    /// Watches writes to the eight bytes at an address, on every thread that the process has or gets. `others` are the
    /// watchpoints of the process that are set already; `between` is called again and again meanwhile.
    ///
    /// # Errors
    /// No debug register left on one of the threads (none is watched then), the process is gone, or not permitted.
    pub fn set(
        program: BorrowedFd<'_>,
        process: u32,
        address: u64,
        others: usize,
        mut between: impl FnMut(),
    ) -> Result<Self, Obstacle> {
        let mut watchpoint = Self { address, process, events: Vec::new() };
        let first = threads_of(process)?;
        enough_descriptors(first.len(), others)?;
        for thread in &first {
            between();
            watchpoint.events.extend(open_at_last(program, *thread, address, &mut between)?);
        }
        if watchpoint.events.is_empty() {
            return Err(Obstacle::Gone);
        }
        // What the first threads have left tells what others hold in the process besides.
        let left = first.iter().find_map(|thread| free_registers(*thread, address, REGISTERS).ok()).unwrap_or(0);
        let mut covered: HashSet<u32> = first.into_iter().collect();
        for _ in 0..MOST_LOOKS {
            let threads = threads_of(process)?;
            let new: Vec<u32> = threads.into_iter().filter(|thread| covered.insert(*thread)).collect();
            let before = watchpoint.events.len();
            for thread in new {
                between();
                watchpoint.events.extend(open_unless_inherited(program, thread, address, left + 1)?);
            }
            // Threads that begin from now on inherit it from the one that makes them.
            if watchpoint.events.len() == before {
                break;
            }
        }
        Ok(watchpoint)
    }

    /// Whether it is on this address of this process.
    #[must_use]
    pub fn is_on(&self, process: u32, address: u64) -> bool {
        self.process == process && self.address == address
    }

    /// Its events, to be closed one by one.
    pub fn into_events(self) -> Vec<OwnedFd> {
        self.events
    }
}

/// A thread of the first look, which has none of this watchpoint yet. `None` if it has ended meanwhile.
fn open_at_last(
    program: BorrowedFd<'_>,
    thread: u32,
    address: u64,
    between: &mut impl FnMut(),
) -> Result<Option<OwnedFd>, Obstacle> {
    let mut tries = TRIES;
    loop {
        match open(program, thread, address) {
            Ok(event) => return Ok(Some(event)),
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && tries > 0 => {
                tries -= 1;
                between();
                std::thread::sleep(BETWEEN_TRIES);
            }
            Err(error) => return ended_or(error).map(|()| None),
        }
    }
}

/// A thread that has begun while the first ones got their events: it has inherited one if the thread that made it had its
/// own by then. Nobody tells, so its free registers are counted: `free` of them if it has not inherited. A second event
/// would take a register that another watchpoint needs, and so would all that the thread makes.
fn open_unless_inherited(
    program: BorrowedFd<'_>,
    thread: u32,
    address: u64,
    free: usize,
) -> Result<Option<OwnedFd>, Obstacle> {
    match free_registers(thread, address, free) {
        Ok(count) if count < free => Ok(None),
        Ok(_) => match open(program, thread, address) {
            Ok(event) => Ok(Some(event)),
            Err(error) => ended_or(error).map(|()| None),
        },
        Err(error) => ended_or(error).map(|()| None),
    }
}

/// A thread that has ended meanwhile needs nothing.
fn ended_or(error: io::Error) -> Result<(), Obstacle> {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        Some(libc::ENOSPC) => Err(Obstacle::NoSlot),
        Some(libc::EMFILE | libc::ENFILE) => {
            let limit = limit_of_descriptors();
            Err(Obstacle::NoDescriptors { needed: limit + RESERVE, limit })
        }
        _ => Err(Obstacle::Other(error)),
    }
}

/// How many debug registers of a thread are free; no more than `most` are counted. They are taken for a moment, by events
/// that are not live and that no new thread inherits.
fn free_registers(thread: u32, address: u64, most: usize) -> io::Result<usize> {
    let mut taken = Vec::new();
    while taken.len() < most {
        match open_event(thread, attributes(address, false)) {
            Ok(event) => taken.push(event),
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken.len())
}

/// Each thread takes a descriptor for each watchpoint. It is better to watch less code than to watch some threads only.
fn enough_descriptors(threads: usize, others: usize) -> Result<(), Obstacle> {
    let limit = limit_of_descriptors();
    let open = fs::read_dir("/proc/self/fd").map_err(Obstacle::Other)?.count() as u64;
    let (threads, others) = (threads as u64, others as u64);
    if open + threads + RESERVE <= limit {
        return Ok(());
    }
    let missing = threads * (REGISTERS as u64).saturating_sub(others);
    Err(Obstacle::NoDescriptors { needed: open + missing + RESERVE, limit })
}

fn limit_of_descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn threads_of(process: u32) -> Result<Vec<u32>, Obstacle> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Obstacle::Gone,
        _ => Obstacle::Other(error),
    })?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn open(program: BorrowedFd<'_>, thread: u32, address: u64) -> io::Result<OwnedFd> {
    let event = open_event(thread, attributes(address, true))?;
    enable(&event, program)?;
    Ok(event)
}

fn enable(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    let (number, program) = (event.as_raw_fd(), program.as_raw_fd().unsigned_abs());
    // SAFETY: the requests take the number of a descriptor that is open, and nothing.
    let is_live = unsafe { ioctls::SET_BPF(number, program) == 0 && ioctls::ENABLE(number, 0) == 0 };
    if is_live { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A watchpoint on the calling thread alone, for as long as the descriptor is open.
///
/// # Errors
/// No debug register is left, or not permitted.
pub fn watch_this_thread(program: BorrowedFd<'_>, address: u64) -> io::Result<OwnedFd> {
    // The number that stands for the calling thread (perf_event_open(2)).
    let event = open_event(0, attributes(address, false))?;
    enable(&event, program)?;
    Ok(event)
}

fn attributes(address: u64, is_inherited: bool) -> perf_event_attr {
    let mut attributes = perf_event_attr {
        type_: PERF_TYPE_BREAKPOINT,
        size: size_of::<perf_event_attr>() as u32,
        bp_type: HW_BREAKPOINT_W,
        ..perf_event_attr::default()
    };
    attributes.sample_period = 1;
    attributes.bp_addr = address;
    attributes.bp_len = HW_BREAKPOINT_LEN_8.into();
    attributes.set_disabled(1);
    attributes.set_exclude_kernel(1);
    attributes.set_exclude_hv(1);
    if is_inherited {
        attributes.set_inherit(1);
        // Not by forked processes: they would pay for hits that nobody asked for.
        attributes.set_inherit_thread(1);
    }
    // Another program has other things at the address.
    attributes.set_remove_on_exec(1);
    attributes
}

fn open_event(thread: u32, mut attributes: perf_event_attr) -> io::Result<OwnedFd> {
    // SAFETY: the structure outlives the call and states its own size; the others are plain numbers.
    let descriptor =
        unsafe { perf_event_open(&raw mut attributes, thread as libc::pid_t, -1, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
