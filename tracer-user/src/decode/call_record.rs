//! Decodes the record of one finished call.

use std::mem::offset_of;

use tracer_common::limits::{MAX_ARGUMENTS, MAX_DEPTH};
use tracer_common::records::{CallRecord, RecordEnding, RecordHeader, RecordKind};

use super::error::DecodeError;
use crate::model::{Call, Ending, Event, FunctionId, MonotonicNs, RawRecord, RemoteAddress, ThreadId};

/// Decodes one record.
///
/// # Errors
/// The bytes are no record that this version knows.
pub fn decode(record: &RawRecord<'_>) -> Result<Event, DecodeError> {
    let bytes = record.0;
    let kind = u32_at(bytes, offset_of!(RecordHeader, kind))?;
    if kind != RecordKind::Call as u32 {
        return Err(DecodeError::UnknownKind { kind });
    }
    let size = u32_at(bytes, offset_of!(RecordHeader, size))?;
    if size as usize != CallRecord::SIZE {
        return Err(DecodeError::WrongSize { kind, found: size, expected: CallRecord::SIZE });
    }
    call(bytes).map(Event::Call)
}

fn call(bytes: &[u8]) -> Result<Call, DecodeError> {
    let Some(bytes) = bytes.get(..CallRecord::SIZE) else {
        return Err(DecodeError::TooShort { found: bytes.len(), needed: CallRecord::SIZE });
    };
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
    let object = u64_at(bytes, offset_of!(CallRecord, object))?;
    let return_value = u64_at(bytes, offset_of!(CallRecord, return_value))?;
    Ok(Call {
        process: u32_at(bytes, offset_of!(CallRecord, process))?,
        thread: ThreadId(u32_at(bytes, offset_of!(CallRecord, thread))?),
        function: FunctionId(u32_at(bytes, offset_of!(CallRecord, function))?),
        ending,
        thread_ended,
        depth,
        incarnation: MonotonicNs(u64_at(bytes, offset_of!(CallRecord, incarnation))?),
        sequence: u64_at(bytes, offset_of!(CallRecord, sequence))?,
        call,
        parent_call: (parent_call != 0).then_some(parent_call),
        root_call: u64_at(bytes, offset_of!(CallRecord, root_call))?,
        start: MonotonicNs(u64_at(bytes, offset_of!(CallRecord, start_ns))?),
        end: MonotonicNs(u64_at(bytes, offset_of!(CallRecord, end_ns))?),
        stack_pointer: RemoteAddress(u64_at(bytes, offset_of!(CallRecord, stack_pointer))?),
        object: (object != 0).then_some(RemoteAddress(object)),
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
        ending => Err(DecodeError::UnknownEnding { ending }),
    }
}

fn array_at<const SIZE: usize>(bytes: &[u8], offset: usize) -> Result<[u8; SIZE], DecodeError> {
    let too_short = DecodeError::TooShort { found: bytes.len(), needed: offset + SIZE };
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(too_short)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, DecodeError> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
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

    #[test]
    fn every_cut_is_an_error() {
        let bytes = valid();
        for length in 0..bytes.len() {
            assert!(decode(&RawRecord(&bytes[..length])).is_err(), "{length} bytes");
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
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            let mut bytes = valid();
            for _ in 0..4 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let position = (state % CallRecord::SIZE as u64) as usize;
                bytes[position] = (state >> 32) as u8;
            }
            if let Ok(Event::Call(call)) = decode(&RawRecord(&bytes)) {
                assert!(call.call > 0 && (call.depth as usize) < MAX_DEPTH);
            }
        }
    }
}
