//! The pipeline of a live session, and the tape on which everything that goes into it is kept.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::wiring::Pipeline;
use crate::export::Delivery;
use crate::model::{
    ClockAnchor, FunctionDescription, Gap, LossCounts, OpenCall, ProcessEvent, PythonNames, RawRecord, RemoteAddress,
    StreamTotals, Target, UnwatchedMethods,
};
use crate::ring::{TapeEnd, TapeError, TapeWriter};

/// A tape being recorded, and where.
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// Writes to it.
    pub writer: TapeWriter<BufWriter<File>>,
    /// Names as the assembler learns them; they go on the tape before the record that asked for them.
    pub learned: Receiver<LearnedClass>,
}

/// What the assembler was told when it asked for the name of a Python class.
pub struct LearnedClass {
    /// Process id in the records.
    pub process: u32,
    /// Address of the type object.
    pub class: RemoteAddress,
    /// Its name; `None`: nobody knows it.
    pub name: Option<Arc<str>>,
}

/// A pipeline that may be recorded.
pub struct RecordedPipeline {
    pipeline: Pipeline,
    recording: Option<Recording>,
}

impl RecordedPipeline {
    /// Records what goes into the pipeline, if asked to.
    pub fn new(pipeline: Pipeline, recording: Option<Recording>) -> Self {
        Self { pipeline, recording }
    }

    /// See [`Pipeline::record`].
    pub fn record(&mut self, record: &RawRecord<'_>) -> Option<ProcessEvent> {
        let event = self.pipeline.record(record);
        self.tape(|writer| writer.record(record));
        event
    }

    /// See [`Pipeline::add_process`].
    pub fn add_process(&mut self, target: &Target) {
        self.tape(|writer| writer.process(target));
        self.pipeline.add_process(target);
    }

    /// See [`Pipeline::add_functions`].
    pub fn add_functions(&mut self, functions: Vec<FunctionDescription>) {
        self.tape(|writer| writer.functions(&functions));
        self.pipeline.add_functions(functions);
    }

    /// See [`Pipeline::add_python_names`].
    pub fn add_python_names(&mut self, names: PythonNames) {
        self.tape(|writer| writer.python_names(&names));
        self.pipeline.add_python_names(names);
    }

    /// See [`Pipeline::add_gap`].
    pub fn add_gap(&mut self, gap: Gap) {
        self.tape(|writer| writer.gap(gap));
        self.pipeline.add_gap(gap);
    }

    /// See [`Pipeline::add_unwatched`].
    pub fn add_unwatched(&mut self, unwatched: UnwatchedMethods) {
        self.tape(|writer| writer.unwatched(&unwatched));
        self.pipeline.add_unwatched(unwatched);
    }

    /// See [`Pipeline::add_anchor`].
    pub fn add_anchor(&mut self, anchor: ClockAnchor) {
        self.tape(|writer| writer.anchor(anchor));
        self.pipeline.add_anchor(anchor);
    }

    /// See [`Pipeline::flush`].
    pub fn flush(&mut self) {
        self.pipeline.flush();
    }

    /// See [`Pipeline::nobody_reads`]. A tape is read later.
    pub fn nobody_reads(&self) -> bool {
        self.recording.is_none() && self.pipeline.nobody_reads()
    }

    /// The stream has ended, with the calls that are still open: ends the tape and waits for the sinks.
    pub fn finish(mut self, counts: LossCounts, open_calls: Vec<OpenCall>) -> (StreamTotals, Vec<Delivery>) {
        for call in &open_calls {
            self.record(&call.raw());
        }
        let end = TapeEnd { totals: counts.clone() };
        if let Some(Recording { path, writer, .. }) = self.recording
            && let Err(error) = writer.finish(&end)
        {
            tracing::error!(path = %path.display(), %error, "the tape is incomplete");
        }
        self.pipeline.finish(Some(counts))
    }

    /// Writes to the tape, after the names that were learned before.
    fn tape(&mut self, write: impl FnOnce(&mut TapeWriter<BufWriter<File>>) -> Result<(), TapeError>) {
        let Some(recording) = &mut self.recording else { return };
        let write = || {
            for LearnedClass { process, class, name } in recording.learned.try_iter() {
                recording.writer.python_class(process, class, name.as_deref())?;
            }
            write(&mut recording.writer)
        };
        if let Err(error) = write() {
            tracing::error!(path = %recording.path.display(), %error, "the tape is incomplete");
            self.recording = None;
        }
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
