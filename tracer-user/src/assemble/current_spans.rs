//! Trees that begin inside spans of an SDK, by the traces that they would begin otherwise; and requests that such an SDK tells of itself.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::model::{CallersTrace, ConnectionId, CurrentSpan, MonotonicNs, ThreadId, TraceId};

/// Threads whose newest trees are remembered for as long as they go on.
const MOST_THREADS: usize = 2 * tracer_common::limits::MAX_THREADS as usize;
/// Trees that are over and whose late spans, of other threads, may still come.
const MOST_OVER: usize = 4_096;
/// Requests that are remembered.
const MOST_REQUESTS: usize = 16_384;

/// The trees.
#[derive(Debug, Default)]
pub struct TreesInSpans {
    spans: FxHashMap<TraceId, CurrentSpan>,
    newest: FxHashMap<(ThreadId, MonotonicNs), TraceId>,
    over: VecDeque<TraceId>,
}

impl TreesInSpans {
    /// A tree of a thread begins in a span; the one before it on that thread is over.
    pub fn begins(&mut self, thread: (ThreadId, MonotonicNs), trace: TraceId, span: CurrentSpan) {
        if self.newest.len() >= MOST_THREADS {
            // Most of them have ended.
            self.over.extend(std::mem::take(&mut self.newest).into_values());
        }
        self.spans.insert(trace, span);
        self.over.extend(self.newest.insert(thread, trace));
        while self.over.len() > MOST_OVER
            && let Some(oldest) = self.over.pop_front()
        {
            self.spans.remove(&oldest);
        }
    }

    /// The span that a tree began in.
    pub fn of(&self, trace: TraceId) -> Option<CurrentSpan> {
        self.spans.get(&trace).copied()
    }
}

/// Spans of an SDK that show that it tells of requests itself.
#[derive(Debug, Default)]
pub struct ToldRequests {
    shown: FxHashMap<Number, Shown>,
    order: VecDeque<Number>,
}

type Number = (ConnectionId, u64);

#[derive(Clone, Copy, Debug)]
struct Shown {
    span: CurrentSpan,
    /// Whether it shows that whatever the trace of the request is.
    is_sure: bool,
}

impl ToldRequests {
    /// The answer to a request is begun in a span: the one of the request, or one inside another, as servers' middleware makes them.
    pub fn answered_in(&mut self, request: Number, span: CurrentSpan) {
        self.learn(request, Shown { span, is_sure: span.is_server || span.has_local_parent });
    }

    /// A call that was made for a request began in a span.
    pub fn called_in(&mut self, request: Number, span: CurrentSpan) {
        self.learn(request, Shown { span, is_sure: span.is_server });
    }

    /// The span that shows that the SDK tells of a request: that of the request, one inside it, or at least one in the trace that its
    /// caller names.
    pub fn shown_by(&self, request: &Number, trace: Option<&CallersTrace>) -> Option<CurrentSpan> {
        let shown = self.shown.get(request)?;
        let is_in_trace = trace.is_some_and(|trace| trace.trace_id == shown.span.trace_id);
        (shown.is_sure || is_in_trace).then_some(shown.span)
    }

    fn learn(&mut self, request: Number, shown: Shown) {
        // Nothing was begun here that an SDK could tell of.
        if shown.span.is_remote || self.shown.get(&request).is_some_and(|known| known.span.is_server) {
            return;
        }
        if self.shown.insert(request, shown).is_none() {
            self.order.push_back(request);
        }
        if self.order.len() > MOST_REQUESTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.shown.remove(&oldest);
        }
    }
}
