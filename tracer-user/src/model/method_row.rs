//! What a method's calls have come to: a row of the table of methods.

use std::sync::Arc;

use serde::Serialize;

/// The finished calls of one method, in all processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MethodRow {
    /// Span name: `{Class}.{method}`.
    pub method: Arc<str>,
    /// Calls.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
    /// Half of the calls took at most this, nanoseconds, to 1 %.
    pub p50_ns: u64,
    /// 95 of 100 calls took at most this, nanoseconds, to 1 %.
    pub p95_ns: u64,
    /// The longest call, nanoseconds.
    pub max_ns: u64,
    /// Time in the calls, nanoseconds, that of the calls inside included.
    pub total_ns: u64,
    /// Time in the calls, nanoseconds, in which no traced call inside was running.
    pub self_ns: u64,
    /// Steps whose time may be in that, because they were not watched during all of these calls; only the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unwatched_steps: Vec<Arc<str>>,
}
