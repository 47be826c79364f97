//! Replays a tape through everything after the ring, into any destination.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::error::SessionError;
use super::report::Report;
use super::wiring::Pipeline;
use crate::assemble::Assembler;
use crate::export::{Destination, Resource, Sink};
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
    let mut assembler = Assembler::new(
        header.seed,
        header.anchor,
        Box::new(move |_, thread| known_names.lock().ok()?.get(&thread.0).cloned()),
    );
    let mut resources = Vec::new();
    for target in &header.targets {
        assembler.add_process(target.kernel_pid, target.process);
        resources.push(Arc::new(Resource::new(target, &|name| std::env::var(name).ok())));
    }
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    for destination in exports {
        let mut sink = crate::export::open(destination, &|name| std::env::var(name).ok())?;
        resources.iter().for_each(|resource| sink.process(resource));
        sinks.push(sink);
    }
    let mut pipeline = Pipeline::new(assembler, sinks);
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
