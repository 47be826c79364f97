//! Replays a tape through everything after the ring, into any destination.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::error::SessionError;
use super::report::Report;
use super::wiring::Pipeline;
use crate::export::Destination;
use crate::model::{RemoteAddress, ThreadId};
use crate::ring::{TapeError, TapeItem, TapeReader};

/// Replays a tape.
///
/// # Errors
/// The tape cannot be read to its end, or a destination cannot be opened.
pub fn replay(path: &Path, exports: &[Destination]) -> Result<Report, SessionError> {
    let failed = |source: TapeError| SessionError::Tape { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let (header, mut reader) = TapeReader::new(file).map_err(failed)?;
    let known = Arc::<Mutex<KnownClasses>>::default();
    let told = Arc::clone(&known);
    let classes = move |process, class| told.lock().ok()?.get(&(process, class)).cloned().flatten();
    let mut pipeline = Pipeline::open(&header, Box::new(classes), exports)?;
    let mut end = None;
    while let Some(item) = reader.next_item().map_err(failed)? {
        match item {
            TapeItem::Record(record) => drop(pipeline.record(&record)),
            TapeItem::Functions(functions) => pipeline.add_functions(functions),
            TapeItem::PythonNames(names) => pipeline.add_python_names(names),
            TapeItem::Thread { thread, name } => pipeline.add_thread_name(ThreadId(thread), name.into()),
            TapeItem::PythonClass { process, class, name } => {
                if let Ok(mut known) = known.lock() {
                    known.insert((process, class), name.map(Into::into));
                }
            }
            TapeItem::Process(target) => pipeline.add_process(&target),
            TapeItem::Gap(gap) => pipeline.add_gap(gap),
            TapeItem::Anchor(anchor) => pipeline.add_anchor(anchor),
            TapeItem::Unwatched(unwatched) => pipeline.add_unwatched(unwatched),
            TapeItem::End(last) => end = Some(*last),
        }
    }
    let Some(end) = end else { return Err(failed(TapeError::NoEnd)) };
    let (seen, deliveries) = pipeline.finish(Some(end.totals.clone()));
    Ok(Report::new(&end.totals, seen, deliveries))
}

/// Names of Python classes that the tape has told so far, by process and address: what the assembler was told at the same
/// place of the stream.
type KnownClasses = HashMap<(u32, RemoteAddress), Option<Arc<str>>>;
