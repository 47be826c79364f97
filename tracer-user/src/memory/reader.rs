//! What every kind of remote memory does.

use crate::model::RemoteAddress;

/// Memory of another process, alive or recorded.
pub trait Memory {
    /// Fills the buffer with the bytes at an address. An empty buffer is filled whatever the address.
    ///
    /// # Errors
    /// Nothing is mapped there, or the process is gone.
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError>;

    /// Forgets what was read before, so that the next reading sees the memory as it is then.
    fn refresh(&self) {}
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, address: RemoteAddress, buffer: &mut [u8]) -> Result<(), MemoryError> {
        (**self).read(address, buffer)
    }

    fn refresh(&self) {
        (**self).refresh();
    }
}

/// Why remote memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Nothing is mapped there, or a snapshot does not hold it.
    #[error("nothing can be read at {address} ({bytes} bytes)")]
    Unmapped {
        /// First address.
        address: RemoteAddress,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The process is gone.
    #[error("process {pid} is gone")]
    Gone {
        /// Its number.
        pid: u32,
    },
    /// The time that was allowed for reading is over, or the reading was ended.
    #[error("reading it took longer than it may")]
    OutOfTime,
    /// The tracer may not read it.
    #[error("the memory of process {pid} may not be read: run as root, or give ml-tracer CAP_SYS_PTRACE")]
    NotPermitted {
        /// Its number.
        pid: u32,
    },
}
