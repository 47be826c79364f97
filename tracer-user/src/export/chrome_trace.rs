//! Chrome trace events, which ui.perfetto.dev opens: a lane for each thread, a slice for each call, an arrow from lane to
//! lane where a tree of calls was joined to a call of another thread. Requests, of which one thread may answer many at one time, have
//! lanes of their own.
//! Source: "Trace Event Format", JSON array format; its closing bracket may be missing, so a killed tracer leaves a
//! readable file.

use std::collections::HashMap;
use std::sync::Arc;

use super::attribute_limits::{AttributeLimits, shorten_name};
use super::attributes::visit_attributes;
use super::background_writer::{BackgroundWriter, CHUNK_BYTES, Chunk, Place};
use super::destination::PERFETTO;
use super::error::ExportError;
use super::json::{push_microseconds, push_number, push_string, push_value};
use super::resource::Resource;
use super::sink::{Delivery, Sink, Summary};
use crate::model::{Loss, Span, Subject, ThreadId, WallClockNs};

const NAME: &str = PERFETTO.word;
/// Thread names remembered; with more threads a name may be written twice, which does no harm.
const MAX_NAMED_THREADS: usize = 65_536;
const NS_PER_DAY: u64 = 86_400 * 1_000_000_000;

/// Writes spans as trace events.
pub struct ChromeTrace {
    writer: BackgroundWriter,
    place: String,
    limits: AttributeLimits,
    chunk: Chunk,
    /// Timestamps count from here: microseconds since 1970 with three decimals would not fit a double.
    origin: Option<WallClockNs>,
    named_threads: HashMap<(u32, ThreadId), Arc<str>>,
}

impl ChromeTrace {
    /// Writes to `writer`; `place` names it to the user.
    ///
    /// # Errors
    /// [`ExportError::CannotStartThread`].
    pub fn new(writer: impl Place + 'static, place: String, limits: AttributeLimits) -> Result<Self, ExportError> {
        let mut chunk = Chunk::default();
        // An event without meaning, so that every other one can begin with a comma.
        chunk.bytes.extend_from_slice(br#"[{"ph":"M","name":"trace_begin","pid":0,"tid":0,"args":{}}"#);
        Ok(Self {
            writer: BackgroundWriter::start(NAME, writer)?,
            place,
            limits,
            chunk,
            origin: None,
            named_threads: HashMap::new(),
        })
    }

    fn begin_event(&mut self, phase: &str, name: &str, pid: u32, thread: ThreadId) {
        let text = &mut self.chunk.bytes;
        text.extend_from_slice(b",\n{\"ph\":");
        push_string(text, phase);
        text.extend_from_slice(br#","name":"#);
        push_string(text, name);
        text.extend_from_slice(br#","pid":"#);
        push_number(text, pid);
        text.extend_from_slice(br#","tid":"#);
        push_number(text, thread.0);
    }

    fn metadata(&mut self, kind: &str, pid: u32, thread: ThreadId, name: &str) {
        self.begin_event("M", kind, pid, thread);
        let text = &mut self.chunk.bytes;
        text.extend_from_slice(br#","args":{"name":"#);
        push_string(text, name);
        text.extend_from_slice(b"}}");
    }

    /// An arrow from the slice that is open on the parent's thread to a span that was joined to it.
    fn join(&mut self, span: &Span, parent_thread: ThreadId, origin: WallClockNs) {
        for (phase, thread) in [("s", parent_thread), ("f", span.thread)] {
            self.begin_event(phase, "joined", span.process.pid, thread);
            let text = &mut self.chunk.bytes;
            // The end of an arrow belongs to the slice around it (`bp`), not to the next one.
            text.extend_from_slice(br#","cat":"joined","bp":"e","id":"#);
            push_string(text, &span.span_id.to_string());
            self.time(span.start, origin);
            self.chunk.bytes.push(b'}');
        }
    }

    /// A moment of a span.
    fn time(&mut self, at: WallClockNs, origin: WallClockNs) {
        let text = &mut self.chunk.bytes;
        text.extend_from_slice(br#","ts":"#);
        push_microseconds(text, i128::from(at.0) - i128::from(origin.0));
    }

    /// What makes one request of its beginning and its end.
    fn request_id(&mut self, span: &Span) {
        let text = &mut self.chunk.bytes;
        text.extend_from_slice(br#","id":"#);
        push_string(text, &span.span_id.to_string());
    }

    fn request_ends(&mut self, span: &Span, origin: WallClockNs) {
        self.begin_event("e", shorten_name(span.name()), span.process.pid, span.thread);
        self.category(span);
        self.time(span.end, origin);
        self.request_id(span);
        self.chunk.bytes.push(b'}');
    }

    fn category(&mut self, span: &Span) {
        let text = &mut self.chunk.bytes;
        text.extend_from_slice(br#","cat":"#);
        push_string(text, category(span));
    }

    fn name_thread(&mut self, span: &Span) {
        let Some(name) = &span.thread_name else { return };
        let key = (span.process.pid, span.thread);
        if self.named_threads.get(&key).is_some_and(|known| known == name) {
            return;
        }
        if self.named_threads.len() >= MAX_NAMED_THREADS {
            self.named_threads.clear();
        }
        self.named_threads.insert(key, Arc::clone(name));
        self.metadata("thread_name", key.0, key.1, name);
    }
}

impl Sink for ChromeTrace {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_for_people(&self) -> bool {
        true
    }

    fn process(&mut self, resource: &Arc<Resource>) {
        let pid = resource.process.pid;
        self.metadata("process_name", pid, ThreadId(pid), &resource.service_name);
    }

    fn span(&mut self, span: &Span) {
        self.name_thread(span);
        // Midnight (UTC) before the day of the first span: its parents, which come later, have begun before it.
        let origin = *self
            .origin
            .get_or_insert(WallClockNs((span.start.0 - span.start.0 % NS_PER_DAY).saturating_sub(NS_PER_DAY)));
        let is_request = matches!(span.subject, Subject::Request(_));
        let phase = if is_request { "b" } else { "X" };
        self.begin_event(phase, shorten_name(span.name()), span.process.pid, span.thread);
        self.category(span);
        self.time(span.start, origin);
        if is_request {
            self.request_id(span);
        } else {
            self.chunk.bytes.extend_from_slice(br#","dur":"#);
            push_microseconds(&mut self.chunk.bytes, i128::from(span.duration_ns()));
        }
        let text = &mut self.chunk.bytes;
        text.extend_from_slice(br#","args":{"trace_id":"#);
        push_string(text, &span.trace_id.to_string());
        visit_attributes(span, self.limits, |name, value| {
            text.push(b',');
            push_string(text, name);
            text.push(b':');
            push_value(text, value);
        });
        if let Some(error) = span.error() {
            text.extend_from_slice(br#","error":"#);
            push_string(text, &error.to_string());
        }
        text.extend_from_slice(b"}}");
        if is_request {
            self.request_ends(span, origin);
        }
        if let Some(parent_thread) = span.parent_thread {
            self.join(span, parent_thread, origin);
        }
        self.chunk.spans += 1;
        if self.chunk.bytes.len() >= CHUNK_BYTES {
            self.writer.pass_on(&mut self.chunk);
        }
    }

    /// The loss itself is not repeated here: the next span of the thread carries `ml.lost_before`.
    fn loss(&mut self, _loss: &Loss) {}

    fn flush(&mut self) {
        self.writer.pass_on(&mut self.chunk);
    }

    fn is_gone(&self) -> bool {
        self.writer.reader_is_gone()
    }

    fn finish(mut self: Box<Self>, _summary: &Summary) -> Delivery {
        self.chunk.bytes.extend_from_slice(b"\n]\n");
        self.flush();
        let report = self.writer.finish();
        let problem = report.problem(&self.place);
        Delivery { sink: NAME, delivered: report.written, lost: report.lost, problem }
    }
}

/// What people filter by.
fn category(span: &Span) -> &str {
    match (&span.subject, span.function()) {
        (Subject::Request(_), _) => "http",
        (_, Some(function)) => &function.library,
        (_, None) => "lost",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{self, Shared};
    use super::*;

    fn events(spans: &[Span]) -> Vec<Value> {
        let file = Shared::default();
        let mut sink = Box::new(
            ChromeTrace::new(file.clone(), "test.json".to_owned(), AttributeLimits::default()).expect("a thread"),
        );
        sink.process(&samples::resource());
        for span in spans {
            sink.span(span);
        }
        sink.flush();
        let delivery = sink.finish(&Summary::default());
        assert_eq!(delivery, Delivery { sink: "perfetto", delivered: spans.len() as u64, lost: 0, problem: None });
        serde_json::from_str(&file.text()).expect("valid JSON")
    }

    #[test]
    fn processes_threads_and_spans_are_there() {
        let spans = samples::spans();
        let events = events(&spans);
        assert!(events.contains(
            &json!({"ph": "M", "name": "process_name", "pid": 4242, "tid": 4242, "args": {"name": "prices"}})
        ));
        let threads = events.iter().filter(|event| event["name"] == "thread_name").count();
        assert_eq!(threads, 1, "each thread is named once");
        let slices: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
        assert_eq!(slices.len(), spans.len());
        for (slice, span) in slices.iter().zip(&spans) {
            assert_eq!(slice["name"], span.name());
            assert_eq!(slice["tid"], span.thread.0);
            assert_eq!(slice["args"]["ml.ending"], span.ending.as_str());
            assert_eq!(slice["args"]["trace_id"], span.trace_id.to_string());
            let duration = slice["dur"].as_f64().expect("a number");
            assert_eq!((duration * 1_000.0).round() as u64, span.duration_ns());
        }
    }

    #[test]
    fn an_arrow_leads_to_each_joined_call() {
        let spans = samples::python_spans();
        let events = events(&spans);
        let joined: Vec<&Span> = spans.iter().filter(|span| span.parent_thread.is_some()).collect();
        assert_eq!(joined.len(), 2);
        for span in joined {
            let end = |phase: &str| {
                let found = events.iter().find(|event| event["ph"] == phase && event["id"] == span.span_id.to_string());
                found.unwrap_or_else(|| panic!("no {phase} of {}", span.span_id))
            };
            let slice = events.iter().find(|event| event["ph"] == "X" && event["name"] == span.name());
            let slice = slice.expect("a slice");
            assert_eq!((&end("s")["tid"], &end("f")["tid"]), (&json!(4243), &json!(span.thread.0)));
            assert!([end("s"), end("f")].iter().all(|arrow| arrow["ts"] == slice["ts"] && arrow["pid"] == 4242));
            let step = samples::facts(&mut span.clone()).step.clone();
            assert_eq!(slice["args"]["ml.step"], *step.expect("a step"));
        }
        let forest = events.iter().find(|event| event["name"] == "RandomForestClassifier.predict").expect("a slice");
        assert_eq!(forest["args"]["error.type"], "NotFittedError");
        assert_eq!(forest["args"]["code.line.number"], 117);
    }

    #[test]
    fn requests_have_lanes_of_their_own() {
        let spans = samples::request_spans();
        let events = events(&spans);
        assert!(!events.iter().any(|event| event["ph"] == "X"), "no lane of a thread");
        for span in &spans {
            let of_request = |event: &&Value| event["id"] == span.span_id.to_string();
            let both: Vec<&Value> = events.iter().filter(of_request).collect();
            let [begins, ends] = both[..] else { panic!("{both:?}") };
            assert_eq!((&begins["ph"], &ends["ph"]), (&json!("b"), &json!("e")));
            let key = |event: &Value| (event["name"].clone(), event["cat"].clone(), event["pid"].clone());
            assert_eq!((key(begins), key(begins)), (key(ends), (json!(span.name()), json!("http"), json!(4242))));
            let time = |event: &Value| event["ts"].as_f64().expect("a number") * 1_000.0;
            assert_eq!((time(ends) - time(begins)).round() as u64, span.duration_ns());
            assert_eq!(begins["args"]["url.path"], "/predict/7");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        let mut spans = samples::spans();
        spans.truncate(2);
        spans[0].start = WallClockNs(1_795_000_000_123_456_789);
        spans[1].start = WallClockNs(1_795_000_000_123_456_790);
        spans.iter_mut().for_each(|span| span.end = WallClockNs(span.start.0 + 1));
        let times: Vec<f64> =
            events(&spans).iter().filter(|event| event["ph"] == "X").filter_map(|event| event["ts"].as_f64()).collect();
        assert_eq!(((times[1] - times[0]) * 1_000.0).round(), 1.0);
        let of_day = 1_795_000_000_123_456_789_u64 % NS_PER_DAY + NS_PER_DAY;
        assert_eq!((times[0] * 1_000.0).round() as u64, of_day);
    }

    #[test]
    fn a_file_cut_short_lacks_only_its_bracket() {
        let file = Shared::default();
        let mut sink =
            ChromeTrace::new(file.clone(), "test.json".to_owned(), AttributeLimits::default()).expect("a thread");
        samples::spans().iter().for_each(|span| sink.span(span));
        sink.flush();
        file.wait_for(1);
        let text = format!("{}]", file.text());
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }
}
