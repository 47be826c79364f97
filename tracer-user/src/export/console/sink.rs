//! Collects the spans of each trace and prints the trace when it is complete.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use super::super::background_writer::{BackgroundWriter, CHUNK_BYTES, Chunk};
use super::super::described::Described;
use super::super::error::ExportError;
use super::super::resource::Resource;
use super::super::sink::{Delivery, Sink, Summary};
use super::layout::{Palette, Style};
use super::tree::draw;
use crate::model::{Loss, Parent, Span, ThreadId, TraceId};

const NAME: &str = "console";
/// Spans held back at one time, of all traces whose outermost call has not ended.
const MAX_WAITING_SPANS: usize = 20_000;

/// Prints traces as trees.
pub struct Console {
    writer: BackgroundWriter,
    palette: Palette,
    chunk: Chunk,
    services: Described<Arc<str>>,
    traces: HashMap<TraceId, Vec<Span>>,
    waiting: usize,
    /// Losses not printed yet: calls, the thread, and whether there are several threads.
    losses: Option<(u64, ThreadId, bool)>,
}

impl Console {
    /// Prints to `writer`, in colour or not.
    ///
    /// # Errors
    /// [`ExportError::CannotStartThread`].
    pub fn new(writer: impl Write + Send + 'static, colour: bool) -> Result<Self, ExportError> {
        Ok(Self {
            writer: BackgroundWriter::start(NAME, writer)?,
            palette: Palette { colour },
            chunk: Chunk::default(),
            services: Described::default(),
            traces: HashMap::new(),
            waiting: 0,
            losses: None,
        })
    }

    fn print(&mut self, spans: &[Span], whole: bool) {
        let service = spans.first().and_then(|span| self.services.get(span.process)).cloned();
        let service = service.unwrap_or_default();
        let mut text = String::new();
        draw(&mut text, self.palette, &service, spans, whole);
        self.chunk.bytes.extend_from_slice(text.as_bytes());
        self.chunk.spans += spans.len() as u64;
        if self.chunk.bytes.len() >= CHUNK_BYTES {
            self.writer.pass_on(&mut self.chunk);
        }
    }

    /// Too much is waiting: the biggest trace is printed as far as it is known.
    fn make_room(&mut self) {
        let biggest = self.traces.iter().max_by_key(|(_, spans)| spans.len()).map(|(trace, _)| *trace);
        if let Some(spans) = biggest.and_then(|trace| self.traces.remove(&trace)) {
            self.waiting -= spans.len();
            self.print(&spans, false);
        }
    }

    fn print_losses(&mut self) {
        let Some((calls, thread, several)) = self.losses.take() else { return };
        let (noun, verb) = if calls == 1 { ("call", "is") } else { ("calls", "are") };
        let place = if several { "several threads".to_owned() } else { format!("thread {}", thread.0) };
        let mut text = String::new();
        self.palette.paint(&mut text, Style::Warning, &format!("! {calls} {noun} of {place} {verb} lost\n\n"));
        self.chunk.bytes.extend_from_slice(text.as_bytes());
    }
}

impl Sink for Console {
    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&mut self, resource: &Arc<Resource>) {
        self.services.insert(resource.process, Arc::clone(&resource.service_name));
    }

    fn span(&mut self, span: &Span) {
        if span.parent == Parent::Root {
            let mut spans = self.traces.remove(&span.trace_id).unwrap_or_default();
            self.waiting -= spans.len();
            spans.push(span.clone());
            self.print(&spans, true);
            return;
        }
        self.traces.entry(span.trace_id).or_default().push(span.clone());
        self.waiting += 1;
        if self.waiting > MAX_WAITING_SPANS {
            self.make_room();
        }
    }

    fn loss(&mut self, loss: &Loss) {
        self.losses = Some(match self.losses {
            None => (loss.calls, loss.thread, false),
            Some((calls, thread, several)) => {
                (calls.saturating_add(loss.calls), thread, several || thread != loss.thread)
            }
        });
    }

    fn flush(&mut self) {
        self.print_losses();
        self.writer.pass_on(&mut self.chunk);
    }

    fn finish(mut self: Box<Self>, _summary: &Summary) -> Delivery {
        let mut unfinished: Vec<Vec<Span>> = std::mem::take(&mut self.traces).into_values().collect();
        unfinished.sort_by_key(|spans| spans.iter().map(|span| span.start).min());
        for spans in unfinished {
            self.print(&spans, false);
        }
        self.flush();
        let report = self.writer.finish();
        let problem = report.problem("standard output");
        Delivery { sink: NAME, delivered: report.written, lost: report.lost, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{self, Shared};
    use super::*;

    fn printed(colour: bool, feed: impl FnOnce(&mut Console)) -> (String, Delivery) {
        let terminal = Shared::default();
        let mut console = Box::new(Console::new(terminal.clone(), colour).expect("a thread"));
        console.process(&samples::resource());
        feed(&mut console);
        let delivery = console.finish(&Summary::default());
        (terminal.text(), delivery)
    }

    #[test]
    fn a_trace_is_a_tree() {
        let (text, delivery) = printed(false, |console| {
            samples::spans().iter().for_each(|span| console.span(span));
            console.loss(&Loss { process: samples::PROCESS, thread: ThreadId(4243), calls: 2 });
        });
        let expected = include_str!("golden.txt");
        assert_eq!(text, expected, "\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100));
        assert_eq!(delivery, Delivery { sink: "console", delivered: 7, lost: 0, problem: None });
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let feed = |console: &mut Console| samples::spans().iter().for_each(|span| console.span(span));
        let (plain, _) = printed(false, feed);
        let (coloured, _) = printed(true, feed);
        assert_ne!(plain, coloured);
        let mut stripped = String::new();
        for (place, piece) in coloured.split('\u{1b}').enumerate() {
            stripped.push_str(if place == 0 { piece } else { piece.split_once('m').expect("a sequence").1 });
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn a_trace_without_end_is_printed_in_parts() {
        let function = samples::function(0, "Loop", "step");
        let (text, delivery) = printed(false, |console| {
            for number in 0..50_000_u64 {
                let mut span = samples::span(2, Parent::Span(samples::id(1)), 1, Some(&function), (number, number + 1));
                span.span_id.0[..4].copy_from_slice(&(number as u32).to_be_bytes());
                console.span(&span);
                assert!(console.waiting <= MAX_WAITING_SPANS);
            }
        });
        assert_eq!((delivery.delivered, delivery.lost), (50_000, 0));
        assert_eq!(text.matches("part of trace").count(), 3);
    }

    #[test]
    fn many_siblings_are_summed_up() {
        let function = samples::function(0, "Loop", "step");
        let (text, delivery) = printed(false, |console| {
            for number in 0..1_000_u64 {
                let mut span = samples::span(2, Parent::Span(samples::id(1)), 1, Some(&function), (number, number + 1));
                span.span_id.0[..4].copy_from_slice(&(number as u32).to_be_bytes());
                console.span(&span);
            }
            console.span(&samples::span(1, Parent::Root, 0, Some(&function), (0, 1_000)));
        });
        assert_eq!(delivery.delivered, 1_001);
        assert_eq!(text.lines().filter(|line| line.contains("Loop.step")).count(), 101);
        assert!(text.contains("└─ … 900 more calls, 900.0 µs in all"), "{text}");
    }
}
