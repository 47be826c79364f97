//! Memory of a running process, read with process_vm_readv(2).

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
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
        let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(start), iov_len: length };
        // SAFETY: one local range, which is the buffer: valid for writes of its length and borrowed for the whole call.
        // The remote range is not touched by this process; the kernel checks it against the other one.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        match usize::try_from(read) {
            Ok(bytes) if bytes == length => Ok(()),
            Ok(_) => Err(unmapped()),
            Err(_) => Err(match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::ESRCH) => MemoryError::Gone { pid: self.pid },
                Some(libc::EPERM) => MemoryError::NotPermitted { pid: self.pid },
                _ => unmapped(),
            }),
        }
    }
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
