//! Replays a tape through everything after the ring, into any destination.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::error::SessionError;
use super::report::Report;
use super::wiring::{Pipeline, ThreadNames};
use crate::export::Destination;
use crate::ring::{TapeError, TapeItem, TapeReader};

/// Replays a tape.
///
/// # Errors
/// The tape cannot be read to its end, or a destination cannot be opened.
pub fn replay(path: &Path, exports: &[Destination]) -> Result<Report, SessionError> {
    let failed = |source: TapeError| SessionError::Tape { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let (header, mut reader) = TapeReader::new(file).map_err(failed)?;
    let names: Arc<Mutex<HashMap<u32, Arc<str>>>> = Arc::default();
    let known_names = Arc::clone(&names);
    let lookup: ThreadNames = Box::new(move |_, thread| known_names.lock().ok()?.get(&thread.0).cloned());
    let mut pipeline = Pipeline::open(&header, lookup, exports)?;
    let mut end = None;
    while let Some(item) = reader.next_item().map_err(failed)? {
        match item {
            TapeItem::Record(record) => pipeline.record(&record),
            TapeItem::Functions(functions) => pipeline.add_functions(functions),
            TapeItem::Thread { thread, name } => {
                if let Ok(mut names) = names.lock() {
                    names.insert(thread, name.into());
                }
            }
            TapeItem::End(last) => end = Some(*last),
        }
    }
    let Some(end) = end else { return Err(failed(TapeError::NoEnd)) };
    let (seen, deliveries) = pipeline.finish(end.open_calls, Some(end.totals.clone()));
    Ok(Report::new(&end.totals, seen, deliveries))
}
