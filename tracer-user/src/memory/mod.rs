//! A remote address, or a mapped file, goes in; its bytes, or the reason why they cannot be read, come out. Who asks is of no concern.

mod heap_ranges;
mod live_process;
mod mapped_file;
mod page_cache;
mod read_limit;
mod reader;
mod recorder;
mod regions;
mod snapshot;

pub use heap_ranges::heap_ranges;
pub use live_process::LiveProcess;
pub use mapped_file::MappedFile;
pub use page_cache::PageCache;
pub use read_limit::{LimitedMemory, ReadLimit};
pub use reader::{Memory, MemoryError};
pub use recorder::Recorder;
pub use regions::{Region, regions};
pub use snapshot::{Snapshot, SnapshotError};
