//! Decodes the records of what happens to processes and threads.

use std::mem::offset_of;

use tracer_common::records::{ProcessChange as ChangeNumber, ProcessRecord, ThreadRecord};

use super::error::DecodeError;
use super::tolerant::read;
use crate::model::{MonotonicNs, ProcessChange, ProcessEvent, ThreadEvent, ThreadId};

/// What such records must have.
const LEAST_OF_PROCESS: usize = offset_of!(ProcessRecord, parent);
/// See [`LEAST_OF_PROCESS`].
const LEAST_OF_THREAD: usize = offset_of!(ThreadRecord, name);

/// Something has happened to a process.
pub fn process(bytes: &[u8]) -> Result<ProcessEvent, DecodeError> {
    let record: ProcessRecord = read(bytes, LEAST_OF_PROCESS)?;
    let change = match record.change {
        change if change == ChangeNumber::Forked as u32 => ProcessChange::Forked(record.parent),
        change if change == ChangeNumber::Executed as u32 => ProcessChange::Executed,
        change if change == ChangeNumber::Ended as u32 => ProcessChange::Ended,
        change if change == ChangeNumber::Stopped as u32 => ProcessChange::Stopped,
        change => return Err(DecodeError::UnknownChange { change }),
    };
    Ok(ProcessEvent { process: record.process, time: MonotonicNs(record.time_ns), change })
}

/// A thread was seen for the first time.
pub fn thread(bytes: &[u8]) -> Result<ThreadEvent, DecodeError> {
    let record: ThreadRecord = read(bytes, LEAST_OF_THREAD)?;
    let length = record.name.iter().position(|byte| *byte == 0).unwrap_or(record.name.len());
    let name = String::from_utf8_lossy(&record.name[..length]);
    Ok(ThreadEvent {
        process: record.process,
        thread: ThreadId(record.thread),
        first_seen: MonotonicNs(record.first_seen_ns),
        name: (!name.is_empty()).then(|| name.into()),
    })
}
