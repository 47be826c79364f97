//! One request, one span of kind server: in the caller's trace if the caller names one, else in a trace of its own.

use super::clock::Clock;
use super::identity::ThreadIdentity;
use crate::model::{
    CallersTrace, ConnectionId, Ending, Parent, ProcessId, Request, RequestEnding, RequestStart, Span, SpanId, Subject,
    TraceId,
};

/// The ids of the span of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestIdentity {
    /// Trace: that of the caller, if it names one.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
}

impl RequestIdentity {
    /// The ids in the session with this random seed; they are known as soon as the request has begun.
    pub fn new(seed: u64, start: &RequestStart) -> Self {
        Self::of(seed, (start.connection, start.number), start.trace.as_ref())
    }

    fn of(seed: u64, (connection, number): (ConnectionId, u64), trace: Option<&CallersTrace>) -> Self {
        let identity = ThreadIdentity::of_connection(seed, connection);
        let trace_id = trace.map_or_else(|| identity.trace_id(number), |trace| trace.trace_id);
        Self { trace_id, span_id: identity.span_id(number) }
    }
}

/// The span of a request.
pub fn request_span(request: Request, process: ProcessId, seed: u64, clock: &Clock) -> Span {
    let trace = request.facts.trace.as_ref();
    let RequestIdentity { trace_id, span_id } = RequestIdentity::of(seed, (request.connection, request.number), trace);
    let (start, end) = clock.times(request.start, request.end);
    Span {
        trace_id,
        span_id,
        parent: trace.map_or(Parent::Root, |trace| Parent::Remote(trace.parent)),
        parent_thread: None,
        depth: 0,
        process,
        thread: request.thread,
        thread_name: None,
        start,
        end,
        ending: match request.ending {
            RequestEnding::Answered => Ending::Returned { error: None },
            RequestEnding::Closed | RequestEnding::OutOfStep => Ending::Unanswered,
            RequestEnding::ProcessEnded => Ending::ThreadEnded,
            RequestEnding::StillOpen => Ending::StillOpen,
        },
        subject: Subject::Request(Box::new(request.facts)),
        lost_before: 0,
        link: None,
        is_recorded: true,
        attributes: Vec::new(),
    }
}
