//! The spans of an OpenTelemetry SDK in a traced process: what a thread does in one belongs into its trace.

use super::trace_ids::{SpanId, TraceId};
use super::units::{MonotonicNs, ThreadId, WallClockNs};

/// A span of an SDK in a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSpan {
    /// Its trace.
    pub trace_id: TraceId,
    /// It.
    pub span_id: SpanId,
    /// Whether it is recorded.
    pub is_sampled: bool,
    /// Whether it is another process's: nothing was begun in this one.
    pub is_remote: bool,
    /// Whether it is that of a request.
    pub is_server: bool,
    /// Whether it is inside another span of this process.
    pub has_local_parent: bool,
    /// When it began, if that is known.
    pub started: Option<WallClockNs>,
}

/// A thread was in a span of an SDK when something began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSpanEvent {
    /// Process id in the initial pid namespace.
    pub process: u32,
    /// The thread.
    pub thread: ThreadId,
    /// When the programs first saw the thread.
    pub thread_first_seen: MonotonicNs,
    /// The outermost call that began, by its number on the thread; `None`: an answer to a request.
    pub call: Option<u64>,
    /// The span.
    pub span: CurrentSpan,
}

/// Another span that has to do with one, and is not around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLink {
    /// Its trace.
    pub trace_id: TraceId,
    /// It.
    pub span_id: SpanId,
}
