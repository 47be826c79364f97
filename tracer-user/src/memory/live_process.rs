//! Memory of a running process, read with process_vm_readv(2).

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::reader::{Memory, MemoryError};
use crate::model::RemoteAddress;

/// A running process. It is neither stopped nor told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveProcess {
    pid: u32,
}

impl LiveProcess {
    /// Memory of the process with this number, in the tracer's pid namespace.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid }
    }
}

impl Memory for LiveProcess {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let length = buffer.len();
        let unmapped = || MemoryError::Unmapped { address, bytes: length };
        let pid = libc::pid_t::try_from(self.pid).map_err(|_| MemoryError::Gone { pid: self.pid })?;
        let start = usize::try_from(address.0).map_err(|_| unmapped())?;
        if buffer.is_empty() {
            return Ok(());
        }
        match read_through(pid, start, buffer) {
            Ok(bytes) if bytes == length => return Ok(()),
            Ok(_) => return Err(unmapped()),
            Err(Errno::ESRCH) => {}
            Err(Errno::EPERM) => return Err(MemoryError::NotPermitted { pid: self.pid }),
            Err(_) => return Err(unmapped()),
        }
        // Its first thread has ended. Others that go on (`pthread_exit` in `main`) lead to the same memory.
        let gone = MemoryError::Gone { pid: self.pid };
        let known = Self::known_thread(pid);
        let others = std::iter::once_with(|| living_threads(pid)).flatten();
        for thread in known.into_iter().chain(others) {
            match read_through(thread, start, buffer) {
                Ok(bytes) if bytes == length => {
                    Self::know_thread(pid, thread);
                    return Ok(());
                }
                Err(Errno::ESRCH) => {}
                Err(Errno::EPERM) => return Err(MemoryError::NotPermitted { pid: self.pid }),
                Ok(_) | Err(_) => return Err(unmapped()),
            }
        }
        Err(gone)
    }
}

/// The process and thread that memory was read through last, for a process whose first thread has ended: looking for one at each
/// reading would take longer than the reading.
static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

impl LiveProcess {
    fn known_thread(pid: libc::pid_t) -> Option<libc::pid_t> {
        let last = LAST_THREAD.load(Ordering::Relaxed);
        let is_of_it = last >> 32 == u64::from(pid.unsigned_abs());
        let thread = libc::pid_t::try_from(last & u64::from(u32::MAX)).ok()?;
        // The number may be another process's by now.
        let is_there = || std::fs::metadata(format!("/proc/{pid}/task/{thread}")).is_ok();
        (is_of_it && is_there()).then_some(thread)
    }

    fn know_thread(pid: libc::pid_t, thread: libc::pid_t) {
        LAST_THREAD.store(u64::from(pid.unsigned_abs()) << 32 | u64::from(thread.unsigned_abs()), Ordering::Relaxed);
    }
}

/// The threads of a process but the first, which is known to have ended.
fn living_threads(pid: libc::pid_t) -> Vec<libc::pid_t> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|thread| *thread != pid).collect()
}

fn read_through(thread: libc::pid_t, start: usize, buffer: &mut [u8]) -> Result<usize, Errno> {
    let remote = RemoteIoVec { base: start, len: buffer.len() };
    process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(buffer)], &[remote])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read() {
        let bytes = *b"something to read";
        let memory = LiveProcess::new(std::process::id());
        let mut read = [0; 17];
        memory.read(RemoteAddress(bytes.as_ptr() as u64), &mut read).expect("it is there");
        assert_eq!(read, bytes);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let memory = LiveProcess::new(std::process::id());
        for address in [0, 8, u64::MAX, u64::MAX - 7, 1 << 47] {
            let address = RemoteAddress(address);
            assert_eq!(memory.read(address, &mut [0; 8]), Err(MemoryError::Unmapped { address, bytes: 8 }));
        }
        let read = LiveProcess::new(4_194_304).read(RemoteAddress(4096), &mut [0; 8]);
        assert_eq!(read, Err(MemoryError::Gone { pid: 4_194_304 }));
    }
}
