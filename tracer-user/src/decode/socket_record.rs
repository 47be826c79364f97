//! Decodes the records of what is done with connections.

use std::mem::offset_of;

use tracer_common::records::{HAS_LOST, NEVER_WAITS, SocketAction as ActionNumber, SocketRecord, WAS_BEFORE};

use super::context_record::context;
use super::error::DecodeError;
use super::tolerant::read;
use crate::model::{ConnectionId, MonotonicNs, SocketAction, SocketEvent, ThreadId};

/// What such a record must have.
const LEAST: usize = offset_of!(SocketRecord, flags);

/// Something was done with a connection; `first_part` is where the captured bytes begin.
pub fn socket(bytes: &[u8], first_part: usize) -> Result<SocketEvent, DecodeError> {
    let (first, captured) = bytes.split_at_checked(first_part).unwrap_or((bytes, &[]));
    let record: SocketRecord = read(first, LEAST)?;
    let Some(captured) = captured.get(..record.captured as usize) else {
        return Err(DecodeError::TooShort { found: bytes.len(), needed: first_part + record.captured as usize });
    };
    if u64::from(record.captured) > record.length {
        let problem = "more bytes are there than were read or written";
        return Err(DecodeError::OddConnection { descriptor: record.descriptor, problem });
    }
    let length = record.length;
    let action = match record.action {
        action if action == ActionNumber::Accepted as u32 => SocketAction::Accepted,
        action if action == ActionNumber::Read as u32 => SocketAction::Read { length, bytes: captured.into() },
        action if action == ActionNumber::Written as u32 => SocketAction::Written { length, bytes: captured.into() },
        action if action == ActionNumber::Closed as u32 => SocketAction::Closed,
        action => return Err(DecodeError::UnknownAction { action }),
    };
    Ok(SocketEvent {
        connection: ConnectionId {
            process: record.process,
            descriptor: record.descriptor,
            opened: MonotonicNs(record.opened_ns),
        },
        thread: ThreadId(record.thread),
        time: MonotonicNs(record.time_ns),
        was_before: record.flags & WAS_BEFORE != 0,
        has_lost: record.flags & HAS_LOST != 0,
        context: context(record.context_state, record.context)?,
        waits: record.flags & NEVER_WAITS == 0,
        action,
    })
}
