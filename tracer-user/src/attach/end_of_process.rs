//! How a process has ended, which the kernel otherwise tells its parent only.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `PIDFD_GET_INFO` and `PIDFD_INFO_EXIT` (include/uapi/linux/pidfd.h, Linux 6.18; the kernel keeps the exit status from 6.15 on).
const GET_INFORMATION: u32 = 0xc040_ff0b;
const WITH_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` of the first version that has all of this.
#[repr(C)]
#[derive(Default)]
struct Information {
    mask: u64,
    control_group: u64,
    numbers: [u32; 3],
    users: [u32; 8],
    exit_code: i32,
}

/// Signals that end a process because of the code that it runs.
const ABOUT_CODE: [(i32, &str); 4] =
    [(libc::SIGTRAP, "SIGTRAP"), (libc::SIGILL, "SIGILL"), (libc::SIGSEGV, "SIGSEGV"), (libc::SIGBUS, "SIGBUS")];

/// How often, and how long after one another, a process that is ending is looked at.
const MOST_LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A process whose end is of interest.
#[derive(Debug)]
pub struct EndOfProcess {
    process: u32,
    descriptor: Option<OwnedFd>,
}

impl EndOfProcess {
    /// Holds on to a process, so that its end can be asked for afterwards.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        Self { process, descriptor: pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) }
    }

    /// Name of the signal that has ended it, if that is one about its code. `None` also where the kernel does not tell.
    #[must_use]
    pub fn signal(&self) -> Option<&'static str> {
        let told = || self.status_of_zombie().or_else(|| self.kept_status());
        let status = (0..MOST_LOOKS).find_map(|look| {
            // A process that has no memory any more may still be on its way to its end.
            if look > 0 {
                std::thread::sleep(BETWEEN_LOOKS);
            }
            told()
        })?;
        let number = status & 0x7f;
        ABOUT_CODE.iter().find(|(signal, _)| *signal == number).map(|(_, name)| *name)
    }

    /// While its parent has not asked for it, the status stands in /proc (proc(5), the last field of `stat`).
    fn status_of_zombie(&self) -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process)).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let is_zombie = rest.trim_start().starts_with(['Z', 'X']);
        rest.split_whitespace().next_back().filter(|_| is_zombie)?.parse().ok()
    }

    /// Afterwards the kernel keeps it for those that hold on to the process.
    fn kept_status(&self) -> Option<i32> {
        let mut information = Information { mask: WITH_EXIT, ..Information::default() };
        let descriptor = self.descriptor.as_ref()?;
        // SAFETY: the request carries the size of the structure, which the kernel fills in and which outlives the call.
        let result =
            unsafe { libc::ioctl(descriptor.as_raw_fd(), GET_INFORMATION as libc::Ioctl, &raw mut information) };
        (result == 0 && information.mask & WITH_EXIT != 0).then_some(information.exit_code)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_signal_that_ended_a_process_is_told() {
        for (signal, name) in [("TRAP", Some("SIGTRAP")), ("KILL", None)] {
            let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
            let end = EndOfProcess::of(child.id());
            assert_eq!(end.signal(), None, "it goes on");
            let number = child.id().to_string();
            Command::new("kill").args(["-s", signal, &number]).status().expect("kill is everywhere");
            // It is a zombie until it is waited for.
            let told = (0..1000).find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                end.status_of_zombie().map(|_| end.signal())
            });
            assert_eq!(told.flatten(), name);
            child.wait().expect("our own child");
            if end.kept_status().is_some() {
                assert_eq!(end.signal(), name);
            }
        }
    }
}
