//! Decodes what records say of the spans of an SDK.

use tracer_common::records::{
    CurrentSpanRecord, SPAN_HAS_LOCAL_PARENT, SPAN_IS_REMOTE, SPAN_IS_SAMPLED, SPAN_IS_SERVER,
};

use super::error::DecodeError;
use super::tolerant::read;
use crate::model::{CurrentSpan, CurrentSpanEvent, MonotonicNs, SpanId, ThreadId, TraceId, WallClockNs};

/// A thread was in a span when something began.
pub fn current_span(bytes: &[u8]) -> Result<CurrentSpanEvent, DecodeError> {
    let record: CurrentSpanRecord = read(bytes, size_of::<CurrentSpanRecord>())?;
    let trace_id = u128::from(record.trace_id_high) << 64 | u128::from(record.trace_id_low);
    let is = |flag: u32| record.flags & flag != 0;
    Ok(CurrentSpanEvent {
        process: record.process,
        thread: ThreadId(record.thread),
        thread_first_seen: MonotonicNs(record.thread_first_seen_ns),
        call: (record.call != 0).then_some(record.call),
        span: CurrentSpan {
            trace_id: TraceId(trace_id.to_be_bytes()),
            span_id: SpanId(record.span_id.to_be_bytes()),
            is_sampled: is(SPAN_IS_SAMPLED),
            is_remote: is(SPAN_IS_REMOTE),
            is_server: is(SPAN_IS_SERVER),
            has_local_parent: is(SPAN_HAS_LOCAL_PARENT),
            started: (record.started_ns != 0).then_some(WallClockNs(record.started_ns)),
        },
    })
}
