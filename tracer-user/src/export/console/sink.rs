//! Collects the spans of each trace and prints the trace when it is complete.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::background_writer::{BackgroundWriter, CHUNK_BYTES, Chunk, Place};
use super::super::described::Described;
use super::super::destination::CONSOLE;
use super::super::error::ExportError;
use super::super::resource::Resource;
use super::super::shown::Shown;
use super::super::sink::{Delivery, Sink, Summary};
use super::columns::Columns;
use super::layout::{DIM, Palette, WARNING};
use super::tree::{Drawing, Tree};
use crate::model::{Loss, Span, SpanId, ThreadId, TraceId, WallClockNs};

const NAME: &str = CONSOLE.word;
/// Spans held back at one time, of all traces whose outermost call has not ended.
const MAX_WAITING_SPANS: usize = 20_000;
/// A trace that has got no span for so long, nanoseconds, is the first to give way when too much is waiting: it may be a
/// tree whose parent, on another thread, was lost.
const QUIET_NS: u64 = 60_000_000_000;
/// Printed traces remembered, for trees of other threads that outlive the outermost call.
const MAX_PRINTED: usize = 256;

/// Prints traces as trees.
pub struct Console {
    writer: BackgroundWriter,
    drawing: Drawing,
    columns: Columns,
    shown: Shown,
    chunk: Chunk,
    services: Described<Arc<str>>,
    traces: HashMap<TraceId, Vec<Span>>,
    waiting: usize,
    /// Traces printed last, or decided not to be shown.
    printed: VecDeque<TraceId>,
    /// Trees that were to be printed, and those of them that are not shown.
    trees: (u64, u64),
    /// Losses not printed yet: calls, the thread, and whether there are several threads.
    losses: Option<(u64, ThreadId, bool)>,
}

impl Console {
    /// Prints to `writer`, in colour or not, what is to be shown.
    ///
    /// # Errors
    /// [`ExportError::CannotStartThread`].
    pub fn new(
        writer: impl Place + 'static,
        colour: bool,
        columns: Columns,
        shown: Shown,
    ) -> Result<Self, ExportError> {
        Ok(Self {
            writer: BackgroundWriter::start(NAME, writer)?,
            drawing: Drawing { palette: Palette { colour }, room: columns.now(), depth: shown.depth },
            columns,
            shown,
            chunk: Chunk::default(),
            services: Described::default(),
            traces: HashMap::new(),
            waiting: 0,
            printed: VecDeque::new(),
            trees: (0, 0),
            losses: None,
        })
    }

    fn print(&mut self, spans: &[Span], whole: bool) {
        let tree = Tree::new(spans);
        self.trees.0 += 1;
        if !self.shown.takes(spans, Duration::from_nanos(tree.longest())) {
            self.trees.1 += 1;
            return;
        }
        let service = spans.first().and_then(|span| self.services.get(span.process)).cloned();
        let service = service.unwrap_or_default();
        let mut text = String::new();
        tree.draw(&mut text, &self.drawing, &service, whole);
        self.chunk.bytes.extend_from_slice(text.as_bytes());
        self.chunk.spans += spans.len() as u64;
        if self.chunk.bytes.len() >= CHUNK_BYTES {
            self.writer.pass_on(&mut self.chunk);
        }
    }

    /// Too much is waiting: the biggest of the quiet traces, or else of all, is printed as far as it is known.
    fn make_room(&mut self, now: WallClockNs) {
        let is_quiet = |spans: &[Span]| spans.last().is_some_and(|last| now.0.saturating_sub(last.end.0) > QUIET_NS);
        let first = self.traces.iter().max_by_key(|(_, spans)| (is_quiet(spans), spans.len()));
        if let Some(spans) = first.map(|(trace, _)| *trace).and_then(|trace| self.traces.remove(&trace)) {
            self.waiting -= spans.len();
            self.print(&spans, false);
        }
    }

    /// The outermost call of a trace, or of a late tree, has come: prints it with all that is complete.
    fn complete(&mut self, outermost: &Span) {
        let trace = outermost.trace_id;
        let mut spans = self.traces.remove(&trace).unwrap_or_default();
        self.waiting -= spans.len();
        spans.push(outermost.clone());
        let unfinished = take_unfinished(&mut spans, outermost.thread);
        if !unfinished.is_empty() {
            self.waiting += unfinished.len();
            self.traces.insert(trace, unfinished);
        }
        let whole = outermost.parent.begins_trace();
        self.print(&spans, whole);
        if whole {
            if self.printed.len() >= MAX_PRINTED {
                self.printed.pop_front();
            }
            self.printed.push_back(trace);
        }
    }

    fn print_losses(&mut self) {
        let Some((calls, thread, several)) = self.losses.take() else { return };
        let (noun, verb) = if calls == 1 { ("call", "is") } else { ("calls", "are") };
        let place = if several { "several threads".to_owned() } else { format!("thread {}", thread.0) };
        let mut text = String::new();
        self.drawing.palette.paint(&mut text, WARNING, &format!("! {calls} {noun} of {place} {verb} lost\n\n"));
        self.chunk.bytes.extend_from_slice(text.as_bytes());
    }

    /// At the end: how many trees were not shown, so that nobody takes what is there for all.
    fn print_hidden(&mut self) {
        let (trees, hidden) = self.trees;
        if hidden == 0 || self.shown.quiet {
            return;
        }
        let options = self.shown.reasons().join(", ");
        let mut text = String::new();
        let sentence = format!("({hidden} of {trees} traces are not shown: {options})");
        self.drawing.palette.paint(&mut text, DIM, &sentence);
        self.chunk.bytes.extend_from_slice(text.as_bytes());
        self.chunk.bytes.push(b'\n');
    }
}

/// Takes from the spans of a trace those that are inside a call of their own thread which has not come yet. `thread` is the
/// one whose outermost call has come.
fn take_unfinished(spans: &mut Vec<Span>, thread: ThreadId) -> Vec<Span> {
    if spans.iter().all(|span| span.thread == thread) {
        return Vec::new();
    }
    let known: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let mut unfinished = HashSet::new();
    // Backwards: of one thread, calls come before the calls around them.
    for span in spans.iter().rev() {
        let Some(parent) = span.parent.span_id() else { continue };
        if unfinished.contains(&parent) || span.parent_thread.is_none() && !known.contains(&parent) {
            unfinished.insert(span.span_id);
        }
    }
    spans.extract_if(.., |span| unfinished.contains(&span.span_id)).collect()
}

impl Sink for Console {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_for_people(&self) -> bool {
        true
    }

    fn process(&mut self, resource: &Arc<Resource>) {
        self.services.insert(resource.process, Arc::clone(&resource.service_name));
    }

    fn span(&mut self, span: &Span) {
        if self.shown.leaves_out(span.trace_id) {
            // Nothing of it needs to be kept.
            let is_tree = u64::from(span.parent.begins_trace());
            self.trees = (self.trees.0 + is_tree, self.trees.1 + is_tree);
            return;
        }
        // A tree that was joined to a call of another thread, or to a request, waits for the rest of its trace, unless that came first.
        let is_late = || span.depth == 0 && self.printed.contains(&span.trace_id);
        if span.parent.begins_trace() || is_late() {
            self.complete(span);
            return;
        }
        self.traces.entry(span.trace_id).or_default().push(span.clone());
        self.waiting += 1;
        if self.waiting > MAX_WAITING_SPANS {
            self.make_room(span.end);
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
        self.drawing.room = self.columns.now();
        self.print_losses();
        self.writer.pass_on(&mut self.chunk);
    }

    fn is_gone(&self) -> bool {
        self.writer.reader_is_gone()
    }

    fn finish(mut self: Box<Self>, _summary: &Summary) -> Delivery {
        let mut unfinished: Vec<Vec<Span>> = std::mem::take(&mut self.traces).into_values().collect();
        unfinished.sort_by_key(|spans| spans.iter().map(|span| span.start).min());
        for spans in unfinished {
            self.print(&spans, false);
        }
        self.print_losses();
        self.print_hidden();
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
    use crate::model::Parent;

    fn printed(colour: bool, feed: impl FnOnce(&mut Console)) -> (String, Delivery) {
        printed_as(Shown::default(), colour, feed)
    }

    fn printed_as(shown: Shown, colour: bool, feed: impl FnOnce(&mut Console)) -> (String, Delivery) {
        let terminal = Shared::default();
        let console = Console::new(terminal.clone(), colour, Columns::Fixed, shown);
        let mut console = Box::new(console.expect("a thread"));
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
        check(&text, expected);
        assert_eq!(delivery, Delivery { sink: "console", delivered: 7, lost: 0, problem: None });
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(text, expected, "\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn python_calls_of_three_threads_are_one_tree() {
        let (text, _) = printed(false, |console| samples::python_spans().iter().for_each(|span| console.span(span)));
        check(&text, include_str!("golden_python.txt"));
    }

    #[test]
    fn a_joined_tree_without_its_parent_stands_alone_and_says_so() {
        let joined = |span: &Span| span.parent_thread.is_some();
        let (text, delivery) = printed(false, |console| {
            // The parent of the joined calls is lost, its root is not.
            let spans = samples::python_spans();
            spans.iter().filter(|span| span.span_id != samples::id(0x12)).for_each(|span| console.span(span));
            // The joined calls outlive the tree: they wait for nothing.
            let (late, early): (Vec<Span>, Vec<Span>) = samples::python_spans().into_iter().partition(joined);
            early.iter().chain(&late).for_each(|span| console.span(span));
            assert_eq!(console.waiting, 0);
            // Nothing but a joined call ever comes.
            late.iter().take(1).for_each(|span| console.span(&Span { trace_id: TraceId([0xef; 16]), ..span.clone() }));
            assert_eq!(console.waiting, 1);
        });
        check(&text, include_str!("golden_alone.txt"));
        assert_eq!(delivery.delivered, 6 + 7 + 1);
    }

    #[test]
    fn steps_that_were_not_watched_stand_beside_the_time_of_its_own() {
        let predict = samples::function(0, "Pipeline", "predict");
        let step = samples::function(1, "Scaler", "transform");
        let printed = |names: &[&str]| {
            let mut outer = samples::span(1, Parent::Root, 0, Some(&predict), (0, 45_000));
            names.iter().for_each(|name| samples::facts(&mut outer).unwatched_steps.add(name));
            let (text, _) = printed(false, |console| {
                console.span(&samples::span(2, Parent::Span(samples::id(1)), 1, Some(&step), (0, 4_400)));
                console.span(&outer);
            });
            text.lines().nth(1).expect("a line").trim_end().to_owned()
        };
        assert!(printed(&["rf"]).ends_with("45.00 ms  self 40.60 ms  (rf not watched)"), "{}", printed(&["rf"]));
        let hostile = printed(&["r\u{1b}[2Jf"]);
        assert!(hostile.contains("(r\\u{1b}[2Jf not") && hostile.chars().count() <= 100, "{hostile}");
        assert!(printed(&["scaler", "columns", "rf"]).ends_with("(3 steps not watched)"));
    }

    #[test]
    fn what_waits_in_vain_gives_way_first() {
        let step = samples::function(0, "Loop", "step");
        let (text, delivery) = printed(false, |console| {
            let mut orphan = samples::span(1, Parent::Span(samples::id(99)), 0, Some(&step), (0, 1));
            (orphan.trace_id, orphan.parent_thread) = (TraceId([0xef; 16]), Some(ThreadId(1)));
            console.span(&orphan);
            for number in 0..MAX_WAITING_SPANS as u64 {
                let times = (100_000_000 + number, 100_000_001 + number);
                console.span(&samples::span(2, Parent::Span(samples::id(1)), 1, Some(&step), times));
            }
            assert_eq!((console.waiting, console.traces.len()), (MAX_WAITING_SPANS, 1));
        });
        assert_eq!(delivery.delivered, 1 + MAX_WAITING_SPANS as u64);
        assert!(text.starts_with("12:00:00.000000Z") && text.contains("part of trace efefef"), "{text}");
    }

    /// The sample traces: one of native calls, then one of Python calls.
    fn feed_both(console: &mut Console) {
        samples::spans().iter().chain(&samples::python_spans()).for_each(|span| console.span(span));
        console.loss(&Loss { process: samples::PROCESS, thread: ThreadId(4243), calls: 2 });
    }

    #[test]
    fn a_filter_shows_whole_traces_and_says_how_many_it_does_not() {
        let names = vec!["SelectKBest".parse().expect("a glob")];
        let (text, delivery) = printed_as(Shown { names, ..Shown::default() }, false, feed_both);
        let (python, _) = text.split_once("! 2 calls").expect("losses are told");
        assert_eq!(python, include_str!("golden_python.txt"));
        assert!(text.ends_with("(1 of 2 traces are not shown: --filter)\n"), "{text}");
        assert_eq!(delivery.delivered, 7);
    }

    #[test]
    fn quiet_is_about_trees_and_hides_no_loss() {
        let (text, delivery) = printed_as(Shown { quiet: true, ..Shown::default() }, false, feed_both);
        assert_eq!(text, "! 2 calls of thread 4243 are lost\n\n");
        assert_eq!((delivery.delivered, delivery.lost), (0, 0));
    }

    #[test]
    fn calls_below_the_depth_are_counted() {
        let depth = |levels| Shown { depth: std::num::NonZeroU32::new(levels), ..Shown::default() };
        let feed = |console: &mut Console| samples::python_spans().iter().for_each(|span| console.span(span));
        let (text, _) = printed_as(depth(2), false, feed);
        let union = text.lines().find(|line| line.contains("FeatureUnion")).expect("it is shown");
        assert!(union.contains("self 40.00 µs") && union.contains("+3 below"), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
        assert_eq!(printed_as(depth(1), false, feed).0.lines().count(), 3);
        assert_eq!(printed_as(depth(9), false, feed).0, printed(false, feed).0);
    }

    #[test]
    fn a_sample_keeps_nothing_of_what_it_leaves_out() {
        let sample = Some("1/2".parse().expect("a share"));
        let (text, _) = printed_as(Shown { sample, ..Shown::default() }, false, |console| {
            for (number, id) in [(1, 0x10), (2, 0xf0), (3, 0x20)] {
                for mut span in samples::python_spans() {
                    span.trace_id = TraceId([id; 16]);
                    console.span(&span);
                    assert!(number != 2 || console.waiting == 0);
                }
            }
        });
        assert_eq!(text.matches("Pipeline.predict").count(), 2);
        assert!(text.ends_with("(1 of 3 traces are not shown: --sample)\n"), "{text}");
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
