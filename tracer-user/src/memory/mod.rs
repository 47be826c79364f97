//! A remote address goes in; its bytes, or the reason why they cannot be read, come out. Who asks is of no concern.

mod reader;

pub use reader::{Memory, MemoryError};
