//! Spans go in; at the end a file comes out of what was spent in each stack of calls, in a format that aggregates.

use std::sync::Arc;

use super::background_writer::{BackgroundWriter, Chunk, Place};
use super::error::ExportError;
use super::resource::Resource;
use super::sink::{Delivery, Sink, Summary};
use super::stack_totals::StackTotals;
use crate::model::{Loss, Span};

/// The bytes of the file.
type Format = fn(&StackTotals) -> Vec<u8>;

/// Adds up stacks, and writes them when everything has come.
pub struct StackFile {
    name: &'static str,
    writer: BackgroundWriter,
    place: String,
    format: Format,
    totals: StackTotals,
    spans: u64,
}

impl StackFile {
    /// Writes to `writer` in this format; `place` names it to the user, `name` the kind of destination.
    ///
    /// # Errors
    /// [`ExportError::CannotStartThread`].
    pub fn new(
        name: &'static str,
        writer: impl Place + 'static,
        place: String,
        format: Format,
    ) -> Result<Self, ExportError> {
        let writer = BackgroundWriter::start(name, writer)?;
        Ok(Self { name, writer, place, format, totals: StackTotals::default(), spans: 0 })
    }
}

impl Sink for StackFile {
    fn name(&self) -> &'static str {
        self.name
    }

    /// The stacks of all processes are added up.
    fn is_for_people(&self) -> bool {
        true
    }

    fn process(&mut self, _resource: &Arc<Resource>) {}

    fn span(&mut self, span: &Span) {
        self.totals.span(span);
        self.spans += 1;
    }

    /// What never arrived takes no time.
    fn loss(&mut self, _loss: &Loss) {}

    fn flush(&mut self) {}

    fn is_gone(&self) -> bool {
        self.writer.reader_is_gone()
    }

    fn finish(mut self: Box<Self>, _summary: &Summary) -> Delivery {
        self.totals.end();
        let mut chunk = Chunk { bytes: (self.format)(&self.totals), spans: self.spans };
        self.writer.pass_on(&mut chunk);
        let report = self.writer.finish();
        let problem = report.problem(&self.place);
        Delivery { sink: self.name, delivered: report.written, lost: report.lost, problem }
    }
}
