//! Takes the ring buffer of the kernel, or a tape of an earlier run, and gives back the bytes of each record.

mod kernel;
mod source;
mod tape;
mod tape_version_1;

pub use kernel::KernelRing;
pub use source::RecordSource;
pub use tape::{TapeEnd, TapeError, TapeHeader, TapeItem, TapeReader, TapeWriter};
