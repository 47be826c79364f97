//! Hardware watchpoints on words of a process: one perf event for each of its threads, inherited by those that come later.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::perf_event_attr;

/// `PERF_TYPE_BREAKPOINT`, `PERF_FLAG_FD_CLOEXEC`, `PERF_EVENT_IOC_SET_BPF` (include/uapi/linux/perf_event.h, Linux 6.18).
const TYPE_BREAKPOINT: u32 = 5;
const FLAG_CLOEXEC: u64 = 8;
const IOC_SET_BPF: u64 = 0x4004_2408;

/// `HW_BREAKPOINT_W`, `HW_BREAKPOINT_LEN_8` (include/uapi/linux/hw_breakpoint.h).
const WRITE: u32 = 2;
const EIGHT_BYTES: u64 = 8;

/// Looks at the list of threads that may be needed: a thread that begins between two looks is seen by the next one.
const MOST_LOOKS: usize = 16;

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
    /// Anything else.
    Other(io::Error),
}

impl Watchpoint {
    /// Watches writes to the eight bytes at an address, on every thread that the process has or gets.
    ///
    /// # Errors
    /// No debug register left on one of the threads (none is watched then), the process is gone, or not permitted.
    pub fn set(program: BorrowedFd<'_>, process: u32, address: u64) -> Result<Self, Obstacle> {
        let mut watchpoint = Self { address, process, events: Vec::new() };
        let mut covered = HashSet::new();
        for _ in 0..MOST_LOOKS {
            let threads = threads_of(process)?;
            let new: Vec<u32> = threads.into_iter().filter(|thread| !covered.contains(thread)).collect();
            if new.is_empty() {
                break;
            }
            for thread in new {
                covered.insert(thread);
                match open(program, thread, address) {
                    Ok(event) => watchpoint.events.push(event),
                    // A thread that has ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Err(Obstacle::NoSlot),
                    Err(error) => return Err(Obstacle::Other(error)),
                }
            }
        }
        if watchpoint.events.is_empty() { Err(Obstacle::Gone) } else { Ok(watchpoint) }
    }

    /// Whether it is on this process.
    #[must_use]
    pub fn is_of(&self, process: u32) -> bool {
        self.process == process
    }

    /// Whether it is on this address of this process.
    #[must_use]
    pub fn is_on(&self, process: u32, address: u64) -> bool {
        self.process == process && self.address == address
    }
}

fn threads_of(process: u32) -> Result<Vec<u32>, Obstacle> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Obstacle::Gone,
        _ => Obstacle::Other(error),
    })?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn open(program: BorrowedFd<'_>, thread: u32, address: u64) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `perf_event_attr` is a value: integers and unions of integers.
    let mut attributes: perf_event_attr = unsafe { std::mem::zeroed() };
    attributes.type_ = TYPE_BREAKPOINT;
    attributes.size = size_of::<perf_event_attr>() as u32;
    attributes.__bindgen_anon_1.sample_period = 1;
    attributes.__bindgen_anon_3.bp_addr = address;
    attributes.__bindgen_anon_4.bp_len = EIGHT_BYTES;
    attributes.bp_type = WRITE;
    attributes.set_disabled(1);
    attributes.set_exclude_kernel(1);
    attributes.set_exclude_hv(1);
    attributes.set_inherit(1);
    // Not by forked processes: they would pay for hits that nobody asked for.
    attributes.set_inherit_thread(1);
    // Another program has other things at the address.
    attributes.set_remove_on_exec(1);
    // SAFETY: the structure outlives the call and states its own size; the others are plain numbers.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread as libc::pid_t, -1, -1, FLAG_CLOEXEC)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let event = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
    // SAFETY: the request takes the number of a descriptor that is open.
    if unsafe { libc::ioctl(event.as_raw_fd(), IOC_SET_BPF, program.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // `PERF_EVENT_IOC_ENABLE`.
    // SAFETY: the request takes no pointer.
    if unsafe { libc::ioctl(event.as_raw_fd(), 0x2400, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(event)
}
