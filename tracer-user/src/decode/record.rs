//! Decodes one record: its header says what it is and how much of it is there.

use tracer_common::records::{RecordHeader, RecordKind};

use super::call_record::{call, wide_call};
use super::context_record::context_event;
use super::current_span_record::current_span;
use super::error::DecodeError;
use super::process_record::{process, thread};
use super::socket_record::socket;
use super::tolerant::read;
use crate::model::{Event, RawRecord};

/// Fields end at multiples of so many bytes.
const WORD: u32 = 8;

/// Decodes one record, of this version or another one: fields that an older version did not have are not there, and those
/// that this version does not know are left alone.
///
/// # Errors
/// The bytes are no record that this version knows.
pub fn decode(record: &RawRecord<'_>) -> Result<Event, DecodeError> {
    let header: RecordHeader = read(record.0, size_of::<RecordHeader>())?;
    let RecordHeader { kind, first_part, size } = header;
    if size % WORD != 0 || u32::from(first_part) % WORD != 0 {
        return Err(DecodeError::OddSize { kind, found: size });
    }
    let Some(bytes) = record.0.get(..size as usize) else {
        return Err(DecodeError::TooShort { found: record.0.len(), needed: size as usize });
    };
    match kind {
        _ if kind == RecordKind::Call as u16 => call(bytes).map(Event::Call),
        _ if kind == RecordKind::WideCall as u16 => wide_call(bytes, usize::from(first_part)).map(Event::Call),
        _ if kind == RecordKind::Request as u16 => socket(bytes, usize::from(first_part)).map(Event::Socket),
        _ if kind == RecordKind::Process as u16 => process(bytes).map(Event::Process),
        _ if kind == RecordKind::Thread as u16 => thread(bytes).map(Event::Thread),
        _ if kind == RecordKind::Context as u16 => context_event(bytes).map(Event::Context),
        _ if kind == RecordKind::CurrentSpan as u16 => current_span(bytes).map(Event::CurrentSpan),
        _ => Err(DecodeError::UnknownKind { kind }),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
