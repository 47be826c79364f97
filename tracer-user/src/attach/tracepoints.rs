//! The kernel's tracepoints by their numbers, which tracefs tells, and programs at them. It need not be mounted: the kernel gives a mount
//! that nobody else sees.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_TRACEPOINT, perf_event_attr};
use perf_event_open_sys::{ioctls, perf_event_open};
use rustix::fs::{Mode, OFlags, open, openat};

/// Where it is mounted, if it is.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `FSOPEN_CLOEXEC`, `FSCONFIG_CMD_CREATE` and `FSMOUNT_CLOEXEC` (include/uapi/linux/mount.h, Linux 6.18).
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// The list of tracepoints.
pub struct Tracepoints(OwnedFd);

impl Tracepoints {
    /// Where tracefs is mounted, or on a mount of our own.
    ///
    /// # Errors
    /// Not permitted, or the kernel has none.
    pub fn find() -> io::Result<Self> {
        let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mounted = PLACES.into_iter().find_map(|place| {
            let found = Self(open(place, folder, Mode::empty()).ok()?);
            // A folder that waits for a mount is empty.
            openat(&found.0, "events", folder, Mode::empty()).ok().map(|_| found)
        });
        mounted.map_or_else(|| mount_aside().map(Self), Ok)
    }

    /// Has a program run at a tracepoint, for as long as the descriptor is open.
    ///
    /// # Errors
    /// There is no such tracepoint, or the kernel does not take the program.
    pub fn attach(&self, program: BorrowedFd<'_>, category: &str, name: &str) -> io::Result<OwnedFd> {
        let path = format!("events/{category}/{name}/id");
        let missing = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let file = openat(&self.0, &path, OFlags::CLOEXEC, Mode::empty()).map_err(|error| missing(error.into()))?;
        let mut number = String::new();
        File::from(file).read_to_string(&mut number).map_err(missing)?;
        attach(program, number.trim().parse().map_err(io::Error::other)?)
    }
}

/// Mounts tracefs where no path leads.
fn mount_aside() -> io::Result<OwnedFd> {
    // SAFETY: the name is text ended by a 0; what it gives is checked.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let number = context.as_raw_fd();
    // SAFETY: this command takes neither a key nor a value.
    let created = unsafe {
        let (none, nothing) = (std::ptr::null::<libc::c_char>(), std::ptr::null::<libc::c_void>());
        libc::syscall(libc::SYS_fsconfig, number, FSCONFIG_CMD_CREATE, none, nothing, 0)
    };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers; what it gives is checked.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, number, FSMOUNT_CLOEXEC, 0) })
}

/// A descriptor that the kernel has just made, or why it has not.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn attach(program: BorrowedFd<'_>, tracepoint: u64) -> io::Result<OwnedFd> {
    let mut attributes = perf_event_attr {
        type_: PERF_TYPE_TRACEPOINT,
        size: size_of::<perf_event_attr>() as u32,
        config: tracepoint,
        ..perf_event_attr::default()
    };
    attributes.set_disabled(1);
    // SAFETY: the structure outlives the call and states its own size; the others are plain numbers. A program runs on every
    // processor, whichever one the event is of.
    let descriptor = unsafe { perf_event_open(&raw mut attributes, -1, 0, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    let event = owned(descriptor.into())?;
    let (number, program) = (event.as_raw_fd(), program.as_raw_fd().unsigned_abs());
    // SAFETY: the requests take the number of a descriptor that is open, and nothing.
    let is_live = unsafe { ioctls::SET_BPF(number, program) == 0 && ioctls::ENABLE(number, 0) == 0 };
    if is_live { Ok(event) } else { Err(io::Error::last_os_error()) }
}
