//! Decodes what records say of contexts (`contextvars.Context`).

use tracer_common::records::{ContextRecord, ContextState, HAS_LOST_SPAN};

use super::error::DecodeError;
use super::tolerant::read;
use crate::model::{ContextChange, ContextEvent, MonotonicNs, PythonContext, RemoteAddress};

/// A context was made or freed.
pub fn context_event(bytes: &[u8]) -> Result<ContextEvent, DecodeError> {
    let record: ContextRecord = read(bytes, size_of::<ContextRecord>())?;
    let context = RemoteAddress(record.context);
    let change = match record.is_made {
        0 => ContextChange::Freed { context },
        _ => ContextChange::Made { context, current: address(record.current) },
    };
    Ok(ContextEvent { process: record.process, time: MonotonicNs(record.time_ns), lost: record.lost, change })
}

/// The context that a thread was in, as its state and its address tell it; `None`: it was not read.
pub fn context(state: u32, context: u64) -> Result<Option<PythonContext>, DecodeError> {
    let is_entered = match state & !HAS_LOST_SPAN {
        state if state == ContextState::NotRead as u32 => return Ok(None),
        state if state == ContextState::NotEntered as u32 => false,
        state if state == ContextState::Entered as u32 => true,
        state => return Err(DecodeError::UnknownContextState { state }),
    };
    Ok(Some(PythonContext { address: address(context), is_entered }))
}

fn address(value: u64) -> Option<RemoteAddress> {
    (value != 0).then_some(RemoteAddress(value))
}
