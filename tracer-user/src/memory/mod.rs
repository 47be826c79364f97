//! A remote address goes in; its bytes, or the reason why they cannot be read, come out. Who asks is of no concern.

mod heap_ranges;
mod reader;

pub use heap_ranges::heap_ranges;
pub use reader::{Memory, MemoryError};
