//! One request, one span of kind server: in the caller's trace if the caller names one, else in a trace of its own.

use super::clock::Clock;
use super::identity::ThreadIdentity;
use crate::model::{Ending, Parent, ProcessId, Request, RequestEnding, Span, Subject};

/// The span of a request.
pub fn request_span(request: Request, process: ProcessId, seed: u64, clock: &Clock) -> Span {
    let identity = ThreadIdentity::of_connection(seed, request.connection);
    let (start, end) = clock.times(request.start, request.end);
    let (trace_id, parent) = match &request.facts.trace {
        Some(trace) => (trace.trace_id, Parent::Remote(trace.parent)),
        None => (identity.trace_id(request.number), Parent::Root),
    };
    Span {
        trace_id,
        span_id: identity.span_id(request.number),
        parent,
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
        attributes: Vec::new(),
    }
}
