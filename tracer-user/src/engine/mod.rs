//! A file that a process has mapped, or a process, and the symbol maps go in; what can be watched, and what not and why, comes
//! out.
//!
//! The engines are `native` and `cpython`. `request` is none: no file tells of it, and what it is given is what sockets did.

mod contract;
pub mod cpython;
mod file_cache;
mod native;
mod request;
mod runtimes;

pub use contract::{Engine, EngineError, Instance, NoCallSites, Recognition, Requests, RuntimeInstance};
pub use native::{NativeEngine, NativeFacts, NativeInstance};
pub use request::{CallParents, Outcome as RequestOutcome, OutermostCall, Propagators, ServerRequests};
pub use runtimes::{FirstObjects, Runtimes};
