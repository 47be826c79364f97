//! Decodes the record of one call, in its short and in its wide form.

use std::mem::offset_of;

use tracer_common::limits::MAX_DEPTH;
use tracer_common::records::{
    CallRecord, FIRST_PART_OF_OLD, HAS_LOST_SPAN, Join as JoinRecord, RecordEnding, WidePart,
};

use super::context_record::context;
use super::error::DecodeError;
use super::tolerant::read;
use crate::model::{Call, CallEnding, ForeignCall, FunctionId, Join, MonotonicNs, RemoteAddress, ThreadId};

/// What a record of a call must have; what comes after it may be missing.
const LEAST: usize = offset_of!(CallRecord, stack_pointer);

/// The short form.
pub fn call(bytes: &[u8]) -> Result<Call, DecodeError> {
    two_parts(bytes, &[])
}

/// The wide form; `first_part` is where its second part begins, 0 if it does not say.
pub fn wide_call(bytes: &[u8], first_part: usize) -> Result<Call, DecodeError> {
    let split = if first_part == 0 { FIRST_PART_OF_OLD } else { first_part };
    let (first, second) = bytes.split_at_checked(split).unwrap_or((bytes, &[]));
    two_parts(first, second)
}

fn two_parts(first: &[u8], second: &[u8]) -> Result<Call, DecodeError> {
    let record: CallRecord = read(first, LEAST)?;
    let wide: WidePart = read(second, 0)?;
    check(&record)?;
    let has = |end: usize| first.len() >= end;
    let arguments = offset_of!(CallRecord, arguments);
    let argument = |index: usize| {
        let is_read = record.arguments_read >> index & 1 == 1 && has(arguments + 8 * (index + 1));
        is_read.then(|| record.arguments[index])
    };
    let thread = ThreadId(record.thread);
    let thread_first_seen = MonotonicNs(record.thread_first_seen_ns);
    Ok(Call {
        process: record.process,
        thread,
        thread_first_seen,
        function: FunctionId(record.function),
        sequence: record.sequence,
        call: record.call,
        parent_call: (record.parent_call != 0).then_some(record.parent_call),
        root_call: record.root_call,
        depth: record.depth,
        start: MonotonicNs(record.start_ns),
        end: MonotonicNs(record.end_ns),
        ending: ending_of(&record, &wide, has(offset_of!(CallRecord, return_value) + 8))?,
        is_on_own_stack: record.sequence != 0,
        object: address(record.object),
        folded_calls: record.folded_calls,
        arguments: std::array::from_fn(argument),
        class: address(wide.class),
        join: join(&record, &wide.join)?,
        start_uncertainty_ns: wide.start_uncertainty_ns,
        may_be_several: wide.calls_merged != 0,
        context: context(wide.context_state, wide.context)?,
        has_lost_span: wide.context_state & HAS_LOST_SPAN != 0,
    })
}

fn check(record: &CallRecord) -> Result<(), DecodeError> {
    let problem = if record.call == 0 {
        "calls are numbered from 1"
    } else if record.depth as usize >= MAX_DEPTH {
        "it is deeper than any stack"
    } else if (record.depth == 0) != (record.parent_call == 0) {
        "a root has no parent, every other call has one"
    } else if record.parent_call >= record.call {
        "a parent begins before its child"
    } else {
        return Ok(());
    };
    Err(DecodeError::Contradiction { call: record.call, problem })
}

fn ending_of(record: &CallRecord, wide: &WidePart, has_value: bool) -> Result<CallEnding, DecodeError> {
    let unwound = |is_end_exact| CallEnding::Unwound { exception: address(wide.exception), is_end_exact };
    match record.ending {
        ending if ending == RecordEnding::Returned as u32 => {
            Ok(CallEnding::Returned { value: has_value.then_some(record.return_value) })
        }
        ending if ending == RecordEnding::Jumped as u32 => Ok(CallEnding::Returned { value: None }),
        ending if ending == RecordEnding::Unwound as u32 => Ok(unwound(false)),
        ending if ending == RecordEnding::ThreadEnded as u32 => Ok(CallEnding::ThreadEnded),
        ending if ending == RecordEnding::Raised as u32 => Ok(unwound(true)),
        ending if ending == RecordEnding::Unobserved as u32 => Ok(CallEnding::Unobserved),
        ending if ending == RecordEnding::Open as u32 => Ok(CallEnding::Open),
        ending if ending == RecordEnding::Vanished as u32 => {
            Ok(CallEnding::Vanished { uncertainty_ns: wide.end_uncertainty_ns })
        }
        ending => Err(DecodeError::UnknownEnding { ending }),
    }
}

/// Where the tree of a call hangs; `None` if it stands for itself.
fn join(record: &CallRecord, join: &JoinRecord) -> Result<Option<Join>, DecodeError> {
    let foreign = |thread: u32, first_seen: u64, call: u64| ForeignCall {
        thread: ThreadId(thread),
        first_seen: MonotonicNs(first_seen),
        call,
    };
    let contradiction = |problem| Err(DecodeError::Contradiction { call: record.call, problem });
    if join.parent_thread == 0 {
        return Ok(None);
    }
    if join.trace_thread == 0 || join.parent_call == 0 || join.trace_call == 0 {
        return contradiction("a tree that is joined to another thread's names the call there and the trace");
    }
    if (join.parent_thread, join.parent_first_seen_ns) == (record.thread, record.thread_first_seen_ns) {
        return contradiction("a tree is joined to a call of another thread");
    }
    Ok(Some(Join {
        parent: foreign(join.parent_thread, join.parent_first_seen_ns, join.parent_call),
        trace: foreign(join.trace_thread, join.trace_first_seen_ns, join.trace_call),
    }))
}

fn address(value: u64) -> Option<RemoteAddress> {
    (value != 0).then_some(RemoteAddress(value))
}
