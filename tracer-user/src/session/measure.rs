//! Replays a tape again and again from memory and measures how long that takes.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::error::SessionError;
use super::wiring::Pipeline;
use crate::export::Destination;
use crate::model::{FunctionDescription, PythonNames, RawRecord, RemoteAddress, Target, ThreadId};
use crate::ring::{TapeEnd, TapeError, TapeHeader, TapeItem, TapeReader};

/// How fast a tape went through everything after the ring.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Records on the tape.
    pub records: u64,
    /// The rounds in their order.
    pub rounds: Vec<ThroughputRound>,
}

/// One replay of the whole tape.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputRound {
    /// From the first record until every destination had delivered what it could.
    pub seconds: f64,
    /// Spans that left the assembler.
    pub spans: u64,
    /// Spans that reached the slowest destination; all of them if there is none.
    pub delivered: u64,
}

/// A tape in memory, so that reading it takes no part in the figures.
struct Loaded {
    header: TapeHeader,
    functions: Vec<FunctionDescription>,
    python: Vec<PythonNames>,
    processes: Vec<Target>,
    names: HashMap<ThreadId, Arc<str>>,
    python_classes: HashMap<(u32, RemoteAddress), Arc<str>>,
    records: Vec<Vec<u8>>,
    end: TapeEnd,
}

/// Replays a tape so many times, without a destination or into some.
///
/// # Errors
/// The tape cannot be read to its end, or a destination cannot be opened.
pub fn measure(path: &Path, exports: &[Destination], rounds: u32) -> Result<Throughput, SessionError> {
    let tape = Loaded::read(path).map_err(|source| SessionError::Tape { path: path.to_owned(), source })?;
    let rounds = (0..rounds).map(|_| tape.replay(exports)).collect::<Result<_, _>>()?;
    Ok(Throughput { records: tape.records.len() as u64, rounds })
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, TapeError> {
        let (header, mut reader) = TapeReader::new(File::open(path)?)?;
        let (mut functions, mut python, mut records) = (Vec::new(), Vec::new(), Vec::new());
        let mut processes = Vec::new();
        let (mut names, mut python_classes) = (HashMap::new(), HashMap::new());
        while let Some(item) = reader.next_item()? {
            match item {
                TapeItem::Record(record) => records.push(record.0.to_vec()),
                TapeItem::Functions(more) => functions.extend(more),
                TapeItem::PythonNames(more) => python.push(more),
                TapeItem::Thread { thread, name } => drop(names.insert(ThreadId(thread), name.into())),
                TapeItem::PythonClass { process, class, name } => {
                    if let Some(name) = name {
                        python_classes.insert((process, class), name.into());
                    }
                }
                TapeItem::Process(target) => processes.push(*target),
                // They say nothing about the speed.
                TapeItem::Gap(_) | TapeItem::Anchor(_) | TapeItem::Unwatched(_) => {}
                TapeItem::End(end) => {
                    let end = *end;
                    return Ok(Self { header, functions, python, processes, names, python_classes, records, end });
                }
            }
        }
        Err(TapeError::NoEnd)
    }

    fn replay(&self, exports: &[Destination]) -> Result<ThroughputRound, SessionError> {
        let known = self.python_classes.clone();
        let classes = move |process, class| known.get(&(process, class)).cloned();
        let mut pipeline = Pipeline::open(&self.header, Box::new(classes), exports)?;
        self.names.iter().for_each(|(thread, name)| pipeline.add_thread_name(*thread, Arc::clone(name)));
        self.processes.iter().for_each(|target| pipeline.add_process(target));
        pipeline.add_functions(self.functions.clone());
        self.python.iter().for_each(|names| pipeline.add_python_names(names.clone()));
        let begin = Instant::now();
        for record in &self.records {
            pipeline.record(&RawRecord(record));
        }
        let (totals, deliveries) = pipeline.finish(Some(self.end.totals.clone()));
        let seconds = begin.elapsed().as_secs_f64();
        let delivered = deliveries.iter().map(|delivery| delivery.delivered).min().unwrap_or(totals.spans);
        Ok(ThroughputRound { seconds, spans: totals.spans, delivered })
    }
}
