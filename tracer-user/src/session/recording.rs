//! The pipeline of a live session, and the tape on which everything that goes into it is kept.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::wiring::Pipeline;
use crate::export::Delivery;
use crate::model::{
    Call, FunctionDescription, Gap, LossCounts, PythonNames, RawRecord, RemoteAddress, StreamTotals, Target,
};
use crate::ring::{TapeEnd, TapeError, TapeWriter};

/// A tape being recorded, and where.
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// Writes to it.
    pub writer: TapeWriter<BufWriter<File>>,
    /// Names as the assembler learns them; they go on the tape before the record that asked for them.
    pub learned: Receiver<Learned>,
}

/// What the assembler was told when it asked for a name.
pub enum Learned {
    /// The name of a thread.
    Thread(u32, Arc<str>),
    /// The name of a Python class of a process, or that nobody knows it.
    PythonClass(u32, RemoteAddress, Option<Arc<str>>),
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
    pub fn record(&mut self, record: &RawRecord<'_>) {
        self.pipeline.record(record);
        self.tape(|writer| writer.record(record));
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

    /// See [`Pipeline::flush`].
    pub fn flush(&mut self) {
        self.pipeline.flush();
    }

    /// See [`Pipeline::nobody_reads`]. A tape is read later.
    pub fn nobody_reads(&self) -> bool {
        self.recording.is_none() && self.pipeline.nobody_reads()
    }

    /// The stream has ended: ends the tape and waits for the sinks.
    pub fn finish(mut self, counts: LossCounts, open_calls: Vec<Call>) -> (StreamTotals, Vec<Delivery>) {
        let end = TapeEnd { totals: counts.clone(), open_calls: open_calls.clone() };
        // Open calls can ask for names too: the end of the tape comes after them.
        self.pipeline.open_calls(open_calls);
        self.tape(|_| Ok(()));
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
            for learned in recording.learned.try_iter() {
                match learned {
                    Learned::Thread(thread, name) => recording.writer.thread(thread, &name)?,
                    Learned::PythonClass(process, class, name) => {
                        recording.writer.python_class(process, class, name.as_deref())?;
                    }
                }
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
