//! A file that a process has mapped and the symbol maps go in; requests for probes, and what is not probed and why, come out.
//!
//! The engines are `native` and `cpython`; `request` has its place beside them and is not there yet.

mod contract;
pub mod cpython;
mod native;

pub use contract::{Engine, EngineError, Requests};
pub use native::{NativeEngine, NativeFacts};
