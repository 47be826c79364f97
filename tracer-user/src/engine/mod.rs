//! A file that a process has mapped and the symbol maps go in; requests for probes, and what is not probed and why, come out.
//!
//! There is one engine: `native`. The `cpython` and `request` engines have their places beside it and are not there yet.

mod contract;
mod native;

pub use contract::{Engine, EngineError, Requests};
pub use native::{NativeEngine, NativeFacts};
