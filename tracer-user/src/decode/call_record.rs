//! Decodes the record of one finished call, in its short and in its wide form.

use std::mem::offset_of;

use tracer_common::limits::{MAX_ARGUMENTS, MAX_DEPTH};
use tracer_common::records::{CallRecord, Join as JoinRecord, RecordEnding, RecordHeader, RecordKind, WideCallRecord};

use super::error::DecodeError;
use crate::model::{
    Call, Ending, Event, ForeignCall, FunctionId, Join, MonotonicNs, RawRecord, RemoteAddress, ThreadId,
};

/// Decodes one record.
///
/// # Errors
/// The bytes are no record that this version knows.
pub fn decode(record: &RawRecord<'_>) -> Result<Event, DecodeError> {
    let bytes = record.0;
    let kind = u32_at(bytes, offset_of!(RecordHeader, kind))?;
    let is_wide = kind == RecordKind::WideCall as u32;
    if !is_wide && kind != RecordKind::Call as u32 {
        return Err(DecodeError::UnknownKind { kind });
    }
    let expected = if is_wide { WideCallRecord::SIZE } else { CallRecord::SIZE };
    let size = u32_at(bytes, offset_of!(RecordHeader, size))?;
    if size as usize != expected {
        return Err(DecodeError::WrongSize { kind, found: size, expected });
    }
    let Some(bytes) = bytes.get(..expected) else {
        return Err(DecodeError::TooShort { found: bytes.len(), needed: expected });
    };
    let mut call = call(bytes)?;
    if is_wide {
        call.class = address_at(bytes, offset_of!(WideCallRecord, class))?;
        call.exception = address_at(bytes, offset_of!(WideCallRecord, exception))?;
        call.join = join(bytes, &call)?;
    }
    Ok(Event::Call(call))
}

fn call(bytes: &[u8]) -> Result<Call, DecodeError> {
    let ending_number = u32_at(bytes, offset_of!(CallRecord, ending))?;
    let (ending, thread_ended) = ending_of(ending_number)?;
    let depth = u32_at(bytes, offset_of!(CallRecord, depth))?;
    let call = u64_at(bytes, offset_of!(CallRecord, call))?;
    let parent_call = u64_at(bytes, offset_of!(CallRecord, parent_call))?;
    let contradiction = |problem| Err(DecodeError::Contradiction { call, problem });
    if call == 0 {
        return contradiction("calls are numbered from 1");
    }
    if depth as usize >= MAX_DEPTH {
        return contradiction("it is deeper than any stack");
    }
    if (depth == 0) != (parent_call == 0) {
        return contradiction("a root has no parent, every other call has one");
    }
    if parent_call >= call {
        return contradiction("a parent begins before its child");
    }
    let arguments_read = u32_at(bytes, offset_of!(CallRecord, arguments_read))?;
    let mut arguments = [None; MAX_ARGUMENTS];
    for (index, argument) in arguments.iter_mut().enumerate() {
        if arguments_read >> index & 1 == 1 {
            *argument = Some(u64_at(bytes, offset_of!(CallRecord, arguments) + 8 * index)?);
        }
    }
    let sequence = u64_at(bytes, offset_of!(CallRecord, sequence))?;
    let return_value = u64_at(bytes, offset_of!(CallRecord, return_value))?;
    Ok(Call {
        process: u32_at(bytes, offset_of!(CallRecord, process))?,
        thread: ThreadId(u32_at(bytes, offset_of!(CallRecord, thread))?),
        function: FunctionId(u32_at(bytes, offset_of!(CallRecord, function))?),
        ending,
        thread_ended,
        depth,
        incarnation: MonotonicNs(u64_at(bytes, offset_of!(CallRecord, incarnation))?),
        sequence,
        call,
        parent_call: (parent_call != 0).then_some(parent_call),
        root_call: u64_at(bytes, offset_of!(CallRecord, root_call))?,
        start: MonotonicNs(u64_at(bytes, offset_of!(CallRecord, start_ns))?),
        end: MonotonicNs(u64_at(bytes, offset_of!(CallRecord, end_ns))?),
        end_observed: ending == Ending::Returned || ending_number == RecordEnding::Raised as u32,
        let_go: ending_number == RecordEnding::LetGo as u32,
        is_on_own_stack: sequence != 0,
        same_stack: None,
        is_python: false,
        stack_pointer: RemoteAddress(u64_at(bytes, offset_of!(CallRecord, stack_pointer))?),
        object: address_at(bytes, offset_of!(CallRecord, object))?,
        return_value: (ending == Ending::Returned).then_some(return_value),
        folded_calls: u64_at(bytes, offset_of!(CallRecord, folded_calls))?,
        arguments,
        class: None,
        exception: None,
        join: None,
    })
}

fn ending_of(number: u32) -> Result<(Ending, bool), DecodeError> {
    match number {
        number if number == RecordEnding::Returned as u32 => Ok((Ending::Returned, false)),
        number if number == RecordEnding::Unwound as u32 => Ok((Ending::Unwound, false)),
        number if number == RecordEnding::ThreadEnded as u32 => Ok((Ending::Unwound, true)),
        number if number == RecordEnding::Raised as u32 => Ok((Ending::Unwound, false)),
        number if number == RecordEnding::LetGo as u32 => Ok((Ending::StillOpen, false)),
        ending => Err(DecodeError::UnknownEnding { ending }),
    }
}

/// Where the tree of a call hangs; `None` if it stands for itself.
fn join(bytes: &[u8], call: &Call) -> Result<Option<Join>, DecodeError> {
    const BASE: usize = offset_of!(WideCallRecord, join);
    let foreign = |thread: usize, incarnation: usize, number: usize| {
        Ok(ForeignCall {
            thread: ThreadId(u32_at(bytes, BASE + thread)?),
            incarnation: MonotonicNs(u64_at(bytes, BASE + incarnation)?),
            call: u64_at(bytes, BASE + number)?,
        })
    };
    let parent = foreign(
        offset_of!(JoinRecord, parent_thread),
        offset_of!(JoinRecord, parent_incarnation),
        offset_of!(JoinRecord, parent_call),
    )?;
    let trace = foreign(
        offset_of!(JoinRecord, trace_thread),
        offset_of!(JoinRecord, trace_incarnation),
        offset_of!(JoinRecord, trace_call),
    )?;
    let contradiction = |problem| Err(DecodeError::Contradiction { call: call.call, problem });
    if parent.thread == ThreadId(0) {
        return Ok(None);
    }
    if trace.thread == ThreadId(0) || parent.call == 0 || trace.call == 0 {
        return contradiction("a tree that is joined to another thread's names the call there and the trace");
    }
    if (parent.thread, parent.incarnation) == (call.thread, call.incarnation) {
        return contradiction("a tree is joined to a call of another thread");
    }
    Ok(Some(Join { parent, trace }))
}

fn array_at<const SIZE: usize>(bytes: &[u8], offset: usize) -> Result<[u8; SIZE], DecodeError> {
    let too_short = DecodeError::TooShort { found: bytes.len(), needed: offset + SIZE };
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(too_short)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, DecodeError> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

fn address_at(bytes: &[u8], offset: usize) -> Result<Option<RemoteAddress>, DecodeError> {
    Ok(Some(u64_at(bytes, offset)?).filter(|address| *address != 0).map(RemoteAddress))
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, DecodeError> {
    array_at(bytes, offset).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Vec<u8> {
        let mut bytes = vec![0_u8; CallRecord::SIZE];
        let mut put32 = |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        put32(offset_of!(RecordHeader, kind), RecordKind::Call as u32);
        put32(offset_of!(RecordHeader, size), CallRecord::SIZE as u32);
        put32(offset_of!(CallRecord, process), 41);
        put32(offset_of!(CallRecord, thread), 42);
        put32(offset_of!(CallRecord, function), 7);
        put32(offset_of!(CallRecord, ending), RecordEnding::Returned as u32);
        put32(offset_of!(CallRecord, depth), 1);
        put32(offset_of!(CallRecord, arguments_read), 0b10);
        let mut put64 = |offset: usize, value: u64| bytes[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        put64(offset_of!(CallRecord, call), 9);
        put64(offset_of!(CallRecord, parent_call), 8);
        put64(offset_of!(CallRecord, root_call), 8);
        put64(offset_of!(CallRecord, start_ns), 100);
        put64(offset_of!(CallRecord, end_ns), 300);
        put64(offset_of!(CallRecord, return_value), 5);
        put64(offset_of!(CallRecord, arguments) + 8, 77);
        bytes
    }

    #[test]
    fn a_record_keeps_its_fields() {
        let bytes = valid();
        let Ok(Event::Call(call)) = decode(&RawRecord(&bytes)) else { panic!("a valid record") };
        assert_eq!((call.process, call.thread, call.function), (41, ThreadId(42), FunctionId(7)));
        assert_eq!((call.call, call.parent_call, call.depth), (9, Some(8), 1));
        assert_eq!((call.start, call.end), (MonotonicNs(100), MonotonicNs(300)));
        assert_eq!(call.return_value, Some(5));
        assert_eq!(call.arguments, [None, Some(77), None, None]);
        assert_eq!(call.object, None);
    }

    fn put64(bytes: &mut [u8], offset: usize, value: u64) {
        bytes[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn put32(bytes: &mut [u8], offset: usize, value: u32) {
        bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    const JOIN: usize = offset_of!(WideCallRecord, join);

    fn wide() -> Vec<u8> {
        let mut bytes = valid();
        bytes.resize(WideCallRecord::SIZE, 0);
        put32(&mut bytes, offset_of!(RecordHeader, kind), RecordKind::WideCall as u32);
        put32(&mut bytes, offset_of!(RecordHeader, size), WideCallRecord::SIZE as u32);
        put64(&mut bytes, offset_of!(WideCallRecord, class), 0x5000);
        put32(&mut bytes, JOIN + offset_of!(JoinRecord, parent_thread), 50);
        put32(&mut bytes, JOIN + offset_of!(JoinRecord, trace_thread), 60);
        put64(&mut bytes, JOIN + offset_of!(JoinRecord, parent_incarnation), 51);
        put64(&mut bytes, JOIN + offset_of!(JoinRecord, parent_call), 52);
        put64(&mut bytes, JOIN + offset_of!(JoinRecord, trace_incarnation), 61);
        put64(&mut bytes, JOIN + offset_of!(JoinRecord, trace_call), 62);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Call {
        match decode(&RawRecord(bytes)) {
            Ok(Event::Call(call)) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wide_record_says_class_exception_and_join() {
        let mut bytes = wide();
        let call = decoded(&bytes);
        assert_eq!((call.call, call.class, call.exception), (9, Some(RemoteAddress(0x5000)), None));
        let foreign = |thread| ForeignCall {
            thread: ThreadId(thread),
            incarnation: MonotonicNs(u64::from(thread) + 1),
            call: u64::from(thread) + 2,
        };
        assert_eq!(call.join, Some(Join { parent: foreign(50), trace: foreign(60) }));

        put32(&mut bytes, JOIN + offset_of!(JoinRecord, parent_thread), 0);
        put64(&mut bytes, offset_of!(WideCallRecord, exception), 0x6000);
        let call = decoded(&bytes);
        assert_eq!((call.exception, call.join), (Some(RemoteAddress(0x6000)), None));
    }

    #[test]
    fn joins_that_cannot_be_are_errors() {
        let broken = |offset: usize, value: u32| {
            let mut bytes = wide();
            put32(&mut bytes, offset, value);
            assert!(matches!(decode(&RawRecord(&bytes)), Err(DecodeError::Contradiction { call: 9, .. })));
        };
        broken(JOIN + offset_of!(JoinRecord, trace_thread), 0);
        broken(JOIN + offset_of!(JoinRecord, parent_call), 0);
        broken(JOIN + offset_of!(JoinRecord, trace_call), 0);
        // Its own thread.
        let mut bytes = wide();
        put32(&mut bytes, JOIN + offset_of!(JoinRecord, parent_thread), 42);
        put64(&mut bytes, JOIN + offset_of!(JoinRecord, parent_incarnation), 0);
        assert!(matches!(decode(&RawRecord(&bytes)), Err(DecodeError::Contradiction { .. })));
    }

    #[test]
    fn an_exceptional_end_can_be_exact() {
        let mut bytes = wide();
        for (number, ending, observed) in [
            (RecordEnding::Returned as u32, Ending::Returned, true),
            (RecordEnding::Unwound as u32, Ending::Unwound, false),
            (RecordEnding::ThreadEnded as u32, Ending::Unwound, false),
            (RecordEnding::Raised as u32, Ending::Unwound, true),
            (RecordEnding::LetGo as u32, Ending::StillOpen, false),
        ] {
            put32(&mut bytes, offset_of!(CallRecord, ending), number);
            let call = decoded(&bytes);
            assert_eq!((call.ending, call.end_observed), (ending, observed));
            assert_eq!(call.return_value.is_some(), ending == Ending::Returned);
        }
    }

    #[test]
    fn a_call_without_a_place_among_the_others_was_made_on_another_stack() {
        let mut bytes = valid();
        for (sequence, is_on_own_stack) in [(1, true), (0, false)] {
            put64(&mut bytes, offset_of!(CallRecord, sequence), sequence);
            assert_eq!(decoded(&bytes).is_on_own_stack, is_on_own_stack);
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        for bytes in [valid(), wide()] {
            for length in 0..bytes.len() {
                assert!(decode(&RawRecord(&bytes[..length])).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn unknown_numbers_are_errors() {
        let mut bytes = valid();
        bytes[0] = 99;
        assert_eq!(decode(&RawRecord(&bytes)), Err(DecodeError::UnknownKind { kind: 99 }));
        let mut bytes = valid();
        bytes[offset_of!(CallRecord, ending)] = 77;
        assert_eq!(decode(&RawRecord(&bytes)), Err(DecodeError::UnknownEnding { ending: 77 }));
        let mut bytes = valid();
        bytes[0] = RecordKind::WideCall as u8;
        assert!(matches!(decode(&RawRecord(&bytes)), Err(DecodeError::WrongSize { found: 152, expected: 208, .. })));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..200_000 {
            let mut bytes = if round % 2 == 0 { valid() } else { wide() };
            for _ in 0..4 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let position = (state % bytes.len() as u64) as usize;
                bytes[position] = (state >> 32) as u8;
            }
            if let Ok(Event::Call(call)) = decode(&RawRecord(&bytes)) {
                assert!(call.call > 0 && (call.depth as usize) < MAX_DEPTH);
                assert!(call.join.is_none_or(|join| join.parent.call > 0 && join.trace.call > 0));
            }
        }
    }
}
